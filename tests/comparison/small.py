"""Tables of small networks, measured in features that cost nothing; also as a command."""

import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffnca.comparison import reproduction, tables
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, NCAConfig, UNetConfig, VNCAConfig
from diffnca.evaluation.metrics.features import ModuleFeatures


class Brightness(torch.nn.Module):
    """Stands for a feature network where only the order of events matters."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 4).flatten(1)


class Colours(torch.nn.Module):
    """The mean of each colour."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def small(config: Config) -> Config:
    """Return a recipe with a network of the same kind that is trained in no time."""
    model: Any = config.model

    def cells(cell: CellConfig) -> CellConfig:
        return replace(cell, hidden=16, num_cell_steps=2)

    if isinstance(model, NCAConfig):
        first = {
            name: replace(stage, cell=cells(stage.cell))
            for name, stage in (("fourier", model.fourier), ("coarse", model.coarse))
            if stage is not None
        }
        model = replace(model, cell=cells(model.cell), **first)
    elif isinstance(model, UNetConfig):
        model = replace(model, channels=(8, 16), layers=1, groups=8)
    elif isinstance(model, VNCAConfig):
        model = replace(
            model, latent=16, hidden=16, num_residual_blocks=1, encoder_channels=4, num_cell_steps=2
        )
    return replace(config, model=model)


def table_named(*arguments: Any) -> tables.Table:
    """Return a table whose rows have small networks."""
    table = tables.table_named(*arguments)
    return replace(table, rows=tuple(map(small, table.rows)))


def make_quick(patch: Any) -> None:
    """Let `patch` set what makes tables quick."""
    brightness, colours = ModuleFeatures("brightness", Brightness()), ModuleFeatures("colours", Colours())
    patch(reproduction, "judges_named", lambda *_: [brightness, colours])
    patch(reproduction, "table_named", table_named)


if __name__ == "__main__":
    from diffnca.cli.main import main

    make_quick(setattr)
    sys.exit(main(sys.argv[1:]))
