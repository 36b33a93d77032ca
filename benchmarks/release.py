"""Turn the model of a finished run into a bundled one: half-precision weights with a complete card.

Example:
    python benchmarks/release.py aerial-run benchmarks/cards/aerial.json aerial.safetensors

The card is the JSON file, over what the run knows itself (images seen, hours of training); what is null in
the file is left out.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro

from diffnca.models.file import find_model, read_card, read_config, read_tensors, write_model

REQUIRED = ("description", "data", "licence", "machine", "images_seen", "training_hours", "scores", "limits")


@dataclass(frozen=True)
class Options:
    """What to release."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, or its model file."""
    card: tyro.conf.Positional[Path]
    """JSON file with what is to be told of the model."""
    out: tyro.conf.Positional[Path]
    """File to write."""
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    """How it is sampled, if not as the run says."""
    steps: int | None = None
    """Diffusion steps, likewise."""
    guidance: float | None = None
    """Guidance by the model without its last cell steps, likewise."""
    guide_leaves_out: int | None = None
    """How many cell steps the guide leaves out, likewise."""
    maker: str | None = None
    """The bundled model that makes its maps, if none are given."""


def main(options: Options) -> None:
    """Write the file, if its card is complete."""
    path = find_model(options.run)
    told = {**read_card(path), **json.loads(options.card.read_text())}
    card = {key: value for key, value in told.items() if value is not None}
    missing = [key for key in REQUIRED if key not in card]
    if missing:
        raise SystemExit(f"{options.card}: the card lacks {', '.join(missing)}")
    weights, _ = read_tensors(path)
    config = read_config(path)
    asked = {key: getattr(options, key) for key in ("sampler", "steps", "guidance", "guide_leaves_out")}
    sampling = replace(config.sampling, **{key: value for key, value in asked.items() if value is not None})
    config = replace(config, sampling=sampling, layout=replace(config.layout, maker=options.maker))
    write_model(options.out, weights, config, card, torch.float16)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Options))
