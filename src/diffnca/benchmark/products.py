"""The matrix products of a network of cells: its useful operations, and the least time that they take.

Perception, hidden layer and the projection of unprotected channels count, two operations a multiply-add.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffnca.canvas.region import Canvas
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid


class Product(NamedTuple):
    """A matrix product `rows x inner` by `inner x outputs`, computed `times` times in a call."""

    rows: int
    inner: int
    outputs: int
    times: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of all `times` products."""
        return 2 * self.rows * self.inner * self.outputs * self.times


def products(config: NCAConfig, height: int, width: int, batch: int = 1) -> list[Product]:
    """Return the matrix products of one call of the network on a canvas."""
    canvas = Canvas(height, width)
    cells = PatchGrid(canvas.whole, config.patch).cells
    needed = _of_rule(config.cell, config.channels, config.cell_image_channels, batch * cells.area)
    if config.coarse is not None:
        coarse, squares = config.coarse, PatchGrid(canvas.whole, config.coarse.patch).cells
        needed += _of_rule(coarse.cell, coarse.channels, config.coarse_image_channels, batch * squares.area)
    if config.fourier is not None:
        window = Window(config.fourier, canvas).region
        channels, protected = 2 * config.spectrum_channels, 2 * config.image_channels
        needed += _of_rule(config.fourier.cell, channels, protected, batch * window.area)
    return needed


def _of_rule(cell: CellConfig, channels: int, protected: int, rows: int) -> list[Product]:
    seen, steps = channels + cell.embedding_channels * cell.perceive_embedding, cell.num_cell_steps
    return [
        Product(rows, 9 * seen, channels, steps),
        Product(rows, seen + channels, cell.hidden, steps),
        Product(rows, cell.hidden, channels - protected, steps),
    ]


def floor_of(needed: list[Product], dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Return a function that computes the matrix products alone, into preallocated outputs."""

    def filled(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    operands = [
        (filled(rows, inner), filled(inner, outputs), filled(rows, outputs), times)
        for rows, inner, outputs, times in needed
    ]

    def work() -> None:
        for left, right, out, times in operands:
            for _ in range(times):
                torch.mm(left, right, out=out)

    return work
