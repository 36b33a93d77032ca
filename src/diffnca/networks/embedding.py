"""Embeddings `b e h w`: what a cell knows of time, cell step and position (without it, `h = w = 1`).

[1] Kalkhof et al., "Frequency-Time Diffusion with Neural Cellular Automata", arXiv 2401.06291.
[2] Vaswani et al., "Attention is all you need", 2017.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.region import Region
from diffnca.config.networks import CellConfig

PIXELS_PER_UNIT = 32.0
"""Length of a unit of position, in pixels, for `positions="pixels"`."""


def positions(
    kind: str, region: Region, device: torch.device, origin: tuple[int, int] | None = None
) -> Float[Tensor, "2 h w"] | None:
    """Return row and column coordinates of the cells of `region`; `None` for `kind` "none".

    "relative" run from 1 to 0, as published; "pixels" count from `origin` (`None`: centre of the canvas).
    """
    if kind == "none":
        return None
    sides = (region.canvas.height, region.canvas.width)
    centre = ((sides[0] - 1) / 2.0, (sides[1] - 1) / 2.0)
    axes = []
    for index, size, zero in zip((region.rows(), region.columns()), sides, origin or centre, strict=True):
        index = index.to(device, torch.float32)
        if kind == "relative":
            axes.append(1.0 - index / max(size - 1, 1))
        else:
            axes.append((index - zero) / PIXELS_PER_UNIT)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


class LinearEmbedding(nn.Module):
    """The published embedding ([1], code): linear in row, column, t and cell step, then a small network."""

    waves: Tensor

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        angles = torch.arange(4.0)[:, None] * torch.tensor([1.0, 10000.0**-0.5])
        self.register_buffer("waves", torch.cat([angles.cos(), angles.sin()], dim=1), persistent=False)
        self.net = two_layers(4 * 4, width, channels)  # four numbers, four waves

    def spread(self, numbers: Float[Tensor, "b n h w"]) -> Float[Tensor, "b f h w"]:
        """Return what the small network takes."""
        return (numbers[:, :, None] * self.waves[None, :, :, None, None]).flatten(1, 2)

    def forward(self, numbers: Float[Tensor, "b n h w"]) -> Float[Tensor, "b e h w"]:
        """Embed (row, column, t, cell step)."""
        embedded: Tensor = self.net(self.spread(numbers))
        return embedded


class FourierEmbedding(nn.Module):
    """Sines and cosines ([2]) of t, cell step and optional row and column, then a small network."""

    octaves = 6
    rates: Tensor

    def __init__(self, numbers: int, width: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("rates", math.pi / 2 * 2.0 ** torch.arange(self.octaves), persistent=False)
        self.net = two_layers(2 * self.octaves * numbers, width, channels)

    def spread(self, numbers: Float[Tensor, "b n h w"]) -> Float[Tensor, "b f h w"]:
        """Return what the small network takes."""
        angles = (numbers[:, :, None] * self.rates[None, None, :, None, None]).flatten(1, 2)
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def forward(self, numbers: Float[Tensor, "b n h w"]) -> Float[Tensor, "b e h w"]:
        """Embed all `numbers`; the last two are t and cell step."""
        embedded: Tensor = self.net(self.spread(numbers))
        return embedded


def two_layers(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Return a small network for single cells."""
    return nn.Sequential(nn.Conv2d(inputs, width, 1), nn.SiLU(), nn.Conv2d(width, outputs, 1))


class Embedding(nn.Module):
    """Gathers the numbers that a `CellConfig` asks for, and embeds these numbers."""

    def __init__(self, config: CellConfig) -> None:
        super().__init__()
        self.config = config
        self.period = config.cell_step_period or config.num_cell_steps
        width, channels = config.embedding_width, config.embedding_channels
        match config.embedding:
            case "linear":
                if config.positions == "none":
                    raise ValueError("embedding=linear needs positions: choose relative or pixels")
                self.features: LinearEmbedding | FourierEmbedding = LinearEmbedding(width, channels)
            case "fourier":
                self.features = FourierEmbedding(2 if config.positions == "none" else 4, width, channels)

    def forward(
        self,
        t: Float[Tensor, " b"],
        cell_step: Float[Tensor, ""],
        region: Region,
        origin: tuple[int, int] | None = None,
    ) -> Float[Tensor, "b e h w"]:
        """Return the embedding of each cell of `region`; without positions, of all cells (`h = w = 1`).

        `t` is in [0, 1), and `cell_step` counts from 0; `origin` is as for `positions`.
        """
        clocks = torch.stack([t, (cell_step / self.period).expand_as(t)], dim=1)[:, :, None, None]
        places = positions(self.config.positions, region, t.device, origin)
        if places is not None:
            grid = places.shape[-2:]
            clocks = torch.cat(
                [places.expand(len(t), -1, -1, -1).to(t.dtype), clocks.expand(-1, -1, *grid)], dim=1
            )
        embedded: Tensor = self.features(clocks)
        return embedded
