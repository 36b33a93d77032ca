"""Turn a model of K cell steps into one of 2K that computes nearly the same, to be trained on.

Each cell step on the image, and of the coarse stage where there is one, is done twice with half the change,
as one halves the steps of an Euler method; a Fourier stage stays as it is. Example:

    python benchmarks/deepen.py runs/shallow deep.safetensors
    diffnca train --from deep.safetensors --data slides/ --out runs/deep
"""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.build import build_denoiser
from diffnca.models.file import find_model, load, write_model


@dataclass(frozen=True)
class Options:
    """From what, to where."""

    model: tyro.conf.Positional[str]
    """A model of cells without weight norm: a bundled one, a file, or a run's folder."""
    out: tyro.conf.Positional[Path]
    """The model file to write."""


def twice(cell: CellConfig) -> CellConfig:
    """Return the rule with each of its cell steps twice."""
    dilations = tuple(dilation for dilation in cell.dilations for _ in range(2))
    return replace(cell, num_cell_steps=2 * cell.num_cell_steps, dilations=dilations)


def deepened(model: NCAConfig) -> NCAConfig:
    """Return the configuration with every cell step on squares of the image twice."""
    coarse = model.coarse and replace(model.coarse, cell=twice(model.coarse.cell))
    return replace(model, cell=twice(model.cell), coarse=coarse)


def main(options: Options) -> None:
    """Write the deeper model."""
    shallow = load(find_model(options.model))
    model = shallow.config.model
    if not isinstance(model, NCAConfig) or model.cell.weight_norm:
        raise SystemExit(f"{options.model}: must be a model of cells without weight norm")
    weights = shallow.network.state_dict()
    for stage in ("image", "coarse") if model.coarse else ("image",):
        for name in (f"{stage}.project.weight", f"{stage}.project.bias"):
            weights[name] = 0.5 * weights[name]
    config = replace(shallow.config, model=deepened(model))
    build_denoiser(config).network.load_state_dict(weights)  # the same shapes, or an error
    write_model(options.out, weights, config, {"deepened_from": options.model})


if __name__ == "__main__":
    main(tyro.cli(Options))
