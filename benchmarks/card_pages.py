"""Write the page of a bundled model, with uncurated pictures, from the card in its file.

    python benchmarks/card_pages.py pathology aerial      # pages and pictures
    python benchmarks/card_pages.py --text-only faces     # after a change of the card alone

The pictures are 64 samples, seeds 0 to 63, none left out, and of textures one of 1024x1024 px, seed 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from diffnca import generate, load
from diffnca.canvas.pixels import to_uint8
from diffnca.cli.inspections import facts_of
from diffnca.data.layouts import coloured
from diffnca.evaluation.metrics.distances import with_error
from diffnca.evaluation.samples import Samples
from diffnca.formats.png import contact_sheet
from diffnca.models.file import find_model, read_config

DOCS = Path(__file__).parents[1] / "docs"
NUM_SAMPLES, SAMPLE_PX, LARGE_PX = 64, 128, 1024
QUALITY = 82


@dataclass(frozen=True)
class Options:
    """Which pages."""

    models: tyro.conf.Positional[tuple[str, ...]]
    """Bundled models."""
    text_only: bool = False
    """Leave the pictures as they are."""
    threads: int = 2
    """Threads to compute with."""


def page(name: str) -> str:
    """Return the page of a model, in Markdown."""
    facts = facts_of(name)
    side, seen = sample_px(name), f"{facts['radius_px']} px"
    lines = [
        f"# {name}",
        "",
        facts["description"] + ".",
        "",
        f"![64 samples of {side}x{side} px](../images/cards/{name}.jpg)",
        "",
        f"*64 samples of {side}x{side} px, seeds 0 to 63, none left out.*",
        "",
    ]
    if is_texture(name):
        lines += [
            f"![one of 1024x1024 px](../images/cards/{name}-1024.jpg)",
            "",
            "*1024x1024 px, seed 0.*",
            "",
        ]
    if facts["config"]["model"]["fourier"] is not None:
        seen += ", and the whole image through its low frequencies"
    rows = {
        "configuration": f"`{facts['recipe']}`, {facts['parameters']:,} parameters; a call sees {seen}",
        "cells": stages(facts["config"]["model"]),
        "data": facts["data"],
        "licence": facts["licence"],
        "images seen": f"{facts['images_seen']:,}",
        "training": f"{facts['training_hours']} hours on {facts['machine']}",
        "trained by": facts["trained_by"],
        "KID x 1000": score(facts["scores"]),
        **judged(facts["scores"]),
        "known failures": "; ".join(facts["limits"]),
    }
    lines += ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items()), ""]
    return "\n".join(lines)


def stages(model: dict[str, Any]) -> str:
    """Return which cells a model has, stage after stage."""
    told = []
    if model["fourier"] is not None:
        window, cell = model["fourier"]["window"], model["fourier"]["cell"]
        told.append(f"{cell['num_cell_steps']} steps on a window of {window} frequencies")
    for stage in (model["coarse"], model):
        if stage is not None:
            side, steps = stage["patch"], stage["cell"]["num_cell_steps"]
            width = f"{stage['channels']} channels, hidden {stage['cell']['hidden']}"
            told.append(f"{steps} steps of cells of {side}x{side} px ({width})")
    return ", then ".join(told)


def score(scores: dict[str, Any]) -> str:
    """Return KID with its protocol."""
    text = f"{scores['kid_x1000']:.0f} ± {scores['error']:.0f}; n = {scores['n']}, {scores['split']}; "
    text += f"features of {scores['features']}; {scores['sampler']}"
    if "real_kid_x1000" in scores:
        text += f"; real images score {scores['real_kid_x1000']:.0f} ± {scores['real_error']:.0f}"
    return text


def judged(scores: dict[str, Any]) -> dict[str, str]:
    """Return a row for each network that judged the model; a card may have none."""
    rows = {}
    for each in scores.get("judges", ()):
        distance = with_error(each["kid_x1000"], each["error"], 2)
        shares = (
            f"precision {each['precision']:.2f}, recall {each['recall']:.3f}, coverage {each['coverage']:.2f}"
        )
        counts = f"n = {each['n']} against {each['n_reference']}"
        rows[f"by `{each['features']}`"] = f"KID x 1000 {distance}; {shares}; {counts}"
    return rows


def is_texture(name: str) -> bool:
    """Return whether the model makes a texture of any size."""
    config = read_config(find_model(name))
    return config.model.family == "diff_nca" and not config.layout.made


def sample_px(name: str) -> int:
    """Return the side of the 64 samples."""
    return SAMPLE_PX if is_texture(name) else int(facts_of(name)["config"]["data"]["crop"])


def draw(name: str) -> None:
    """Make the pictures of a model."""
    folder = DOCS / "images" / "cards"
    folder.mkdir(exist_ok=True)
    sheet = contact_sheet(np.stack([*pictures(name, sample_px(name), NUM_SAMPLES)]))
    Image.fromarray(sheet).save(folder / f"{name}.jpg", quality=QUALITY)
    if is_texture(name):
        (large,) = pictures(name, LARGE_PX, 1)
        Image.fromarray(large).save(folder / f"{name}-1024.jpg", quality=QUALITY)


def pictures(name: str, side: int, count: int) -> Iterator[np.ndarray]:
    """Yield pictures as `diffnca sample` makes them; the map follows on the right, if the model makes one."""
    legend = read_config(find_model(name)).layout
    if not legend.made:
        yield from Samples(name, side, side).pictures(count)
        return
    for image in generate(load(name), height=side, width=side, batch=count, seed=0):
        numbers = image[-len(legend.classes) :].argmax(dim=0).byte().numpy()
        colours = to_uint8(image[None, : -len(legend.classes)])[0]
        yield np.concatenate([colours, coloured(numbers, legend)], axis=1)


def main(options: Options) -> None:
    """Write the pages."""
    torch.set_num_threads(options.threads)
    for name in options.models:
        if not options.text_only:
            draw(name)
        path = DOCS / "cards" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(name), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main(tyro.cli(Options))
