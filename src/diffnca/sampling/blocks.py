"""A coarse grid over a canvas: each pixel of the grid is a block of pixels of the canvas.

The blocks cover the canvas evenly, so a pixel may belong to two blocks on each axis, in shares. Every number
is a sum of products in a fixed order. So its bits do not depend on the region that is computed.

Spreading changes means by a matrix with three diagonals on each axis. Its inverse falls off quickly beside
the diagonal, so elimination uses only `NEIGHBOURS` blocks. The error is 1% at a factor of 1.1, and at most
0.1% from 1.25 on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partialmethod

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diffnca.canvas.region import Boundary, Canvas, Region, fold

Taps = Iterable[tuple[Int64[Tensor, " n"], Float64[Tensor, " n"]]]
"""The inputs of the outputs along an axis: parts of (index of the input, weight), for each output."""

NEIGHBOURS = 4
"""Blocks on each side that influence the value of a block in `Axis.solved`."""


@dataclass(frozen=True)
class Axis:
    """A span of an axis of `size` pixels and `blocks` blocks; it may go over the edge of a circular axis."""

    start: int
    length: int
    size: int
    blocks: int
    boundary: Boundary

    @property
    def pixels(self) -> Int64[Tensor, " n"]:
        """All pixels of the span."""
        return torch.arange(self.start, self.start + self.length)

    @property
    def touched(self) -> Int64[Tensor, " n"]:
        """All blocks that the span touches, beyond the edge of a circular axis too."""
        last = -(-(self.start + self.length) * self.blocks // self.size)
        return torch.arange(self.start * self.blocks // self.size, last)

    def means(self) -> Taps:
        """Yield the taps of the means over the touched blocks; blocks that the span cuts get wrong means."""
        blocks = self.touched
        for offset in range(-(-self.size // self.blocks) + 1):
            pixels = blocks * self.size // self.blocks + offset
            share = self._overlap(pixels, blocks).double() / self.size
            yield (pixels - self.start).clamp(0, self.length - 1), share

    def spread(self) -> Taps:
        """Yield the taps that give each pixel the values of its blocks; input 0 is the first block."""
        blocks, first = self.pixels * self.blocks // self.size, self.touched[0]
        for offset in (0, 1):
            share = self._overlap(self.pixels, blocks + offset).double() / self.blocks
            yield (blocks + offset - first).clamp(max=len(self.touched) - 1), share

    def solved(self) -> Taps:
        """Yield the taps from means to the values with this spread; wrong `NEIGHBOURS` blocks from cuts."""
        blocks, first = self.touched, self.touched[0]
        below, above = self._eliminated(-1), self._eliminated(1)
        couplings = self._coupling(blocks - 1) * below[0], self._coupling(blocks) * above[0]
        own = 1.0 / (self._retained(blocks) + couplings[0] + couplings[1])
        for offset in range(-NEIGHBOURS, NEIGHBOURS + 1):
            weight = own
            for ratio in (below if offset < 0 else above)[: abs(offset)]:
                weight = weight * ratio
            yield (blocks + offset - first).clamp(0, len(blocks) - 1), weight

    def interpolated(self) -> Taps:
        """Yield the taps of a linear interpolation between the centres of the blocks of the whole grid."""
        return self._lines(self._on_grid)

    def smoothed(self) -> Taps:
        """Yield the taps of such an interpolation between the touched blocks; wrong a block from cuts."""
        if (self.start, self.length) == (0, self.size):
            return self.interpolated()
        first, last = self.touched[0], len(self.touched) - 1
        return self._lines(lambda blocks: (blocks - first).clamp(0, last))

    def _lines(self, input_of: Callable[[Tensor], Tensor]) -> Taps:
        place = (2 * self.pixels + 1) * self.blocks - self.size  # in units of half a pixel's share of a block
        below = torch.div(place, 2 * self.size, rounding_mode="floor")
        share = (place - below * 2 * self.size).double() / (2 * self.size)
        yield input_of(below), 1.0 - share
        yield input_of(below + 1), share

    def own(self) -> Taps:
        """Yield the taps that select the touched blocks from the whole grid."""
        yield self._on_grid(self.touched), torch.ones(len(self.touched)).double()

    def _eliminated(self, step: int) -> list[Float64[Tensor, " n"]]:
        """Return the influence of the 1st, 2nd, ... block towards `step`, each as share of the one before."""
        ratios: list[Tensor] = []
        for distance in range(NEIGHBOURS, 0, -1):
            block = self.touched + step * distance
            nearer, farther = (block - 1, block) if step > 0 else (block, block - 1)
            pivot = self._retained(block)
            if ratios:
                pivot = pivot + self._coupling(farther) * ratios[0]
            ratios.insert(0, -self._coupling(nearer) / pivot)
        return ratios

    def _retained(self, blocks: Tensor) -> Float64[Tensor, " n"]:
        total = torch.zeros(len(blocks)).double()
        for offset in range(-(-self.size // self.blocks) + 1):
            overlap = self._overlap(blocks * self.size // self.blocks + offset, blocks).double()
            total = total + overlap * overlap / self.size / self.blocks
        return total

    def _coupling(self, blocks: Tensor) -> Float64[Tensor, " n"]:
        """Return the share of each block's value in the mean of the next block after spreading."""
        shared = (blocks + 1) * self.size // self.blocks
        both = self._overlap(shared, blocks).double() * self._overlap(shared, blocks + 1).double()
        return both / self.size / self.blocks

    def _overlap(self, pixels: Tensor, blocks: Tensor) -> Int64[Tensor, " n"]:
        """Return how much of the pixels lies in the blocks, in units of 1 / `self.blocks` pixel."""
        begin = torch.maximum(pixels * self.blocks, blocks * self.size)
        end = torch.minimum((pixels + 1) * self.blocks, (blocks + 1) * self.size)
        return (end - begin).clamp(min=0)

    def _on_grid(self, blocks: Tensor) -> Int64[Tensor, " n"]:
        is_circular = self.boundary == "circular"
        return fold(blocks, self.blocks, "circular") if is_circular else blocks.clamp(0, self.blocks - 1)


@dataclass(frozen=True)
class Grid:
    """A coarse grid of `height` x `width` blocks over a canvas."""

    height: int
    width: int

    def reach(self, canvas: Canvas, blocks: int = 1) -> int:
        """Return how many pixels `blocks` blocks reach from a pixel of the first block."""
        return max(-(-blocks * canvas.height // self.height), -(-blocks * canvas.width // self.width))

    def is_even(self, canvas: Canvas) -> bool:
        """Return whether every pixel of the canvas belongs to one block."""
        return canvas.height % self.height == 0 and canvas.width % self.width == 0

    def _applied(
        self, taps: Callable[[Axis], Taps], values: Float[Tensor, "b c y x"], region: Region
    ) -> Float[Tensor, "b c v u"]:
        (boundary_y, boundary_x), canvas = region.canvas.boundary, region.canvas
        rows = Axis(region.top, region.height, canvas.height, self.height, boundary_y)
        columns = Axis(region.left, region.width, canvas.width, self.width, boundary_x)
        return _gathered(_gathered(values, taps(rows), -2), taps(columns), -1)

    # each takes a tensor and a region, and does along both axes what `Axis` says
    means = partialmethod(_applied, Axis.means)
    spread = partialmethod(_applied, Axis.spread)
    solved = partialmethod(_applied, Axis.solved)
    interpolated = partialmethod(_applied, Axis.interpolated)
    smoothed = partialmethod(_applied, Axis.smoothed)
    own = partialmethod(_applied, Axis.own)


def _gathered(values: Tensor, taps: Taps, axis: int) -> Tensor:
    total: Tensor | None = None
    for index, weight in taps:
        shape = (-1, 1) if axis == -2 else (-1,)
        term = values.index_select(axis, index.to(values.device)) * weight.to(values).reshape(shape)
        total = term if total is None else total + term
    assert total is not None
    return total
