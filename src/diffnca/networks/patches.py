"""Cells that hold a square of pixels each: a rule sees farther, and fewer cells are updated.

The squares begin at pixel (0, 0) of the canvas, so the cells of a tile are cells of the canvas.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.region import Canvas, Region, fold


@dataclass(frozen=True)
class PatchGrid:
    """The squares, `patch` pixels a side, that cover the region `pixels`."""

    pixels: Region
    patch: int

    def __post_init__(self) -> None:
        self.pixels.canvas.require_multiples(self.patch)

    @property
    def cells(self) -> Region:
        """The region in cells, on a canvas of cells."""
        pixels, canvas = self.pixels, self.pixels.canvas
        sides = (-(-canvas.height // self.patch), -(-canvas.width // self.patch))
        top, height = self._span(pixels.top, pixels.height, sides[0])
        left, width = self._span(pixels.left, pixels.width, sides[1])
        return Region(top, left, height, width, Canvas(*sides, canvas.boundary))

    @property
    def is_filled(self) -> bool:
        """Whether the pixels fill all squares that they touch."""
        pixels = self.pixels
        return not any(n % self.patch for n in (pixels.top, pixels.left, pixels.height, pixels.width))

    def part(self, cells: Region) -> "PatchGrid":
        """Return the grid of the pixels that some of the cells hold."""
        pixels, mine = self.pixels, self.cells
        top, height = self._held_by(cells.top, cells.height, mine.height, pixels.top, pixels.height)
        left, width = self._held_by(cells.left, cells.width, mine.width, pixels.left, pixels.width)
        return PatchGrid(Region(top, left, height, width, pixels.canvas), self.patch)

    def gather(self, image: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n_p_p y x"]:
        """Return the pixels of each cell as its channels.

        The mirror image fills squares beyond the region; inside the canvas the caller crops what it touched.
        """
        if self.patch == 1:
            return image
        if self.is_filled:
            return F.pixel_unshuffle(image, self.patch)
        cells, pixels = self.cells, self.pixels
        rows = self._held(pixels.top, cells.height, pixels.height, pixels.canvas.height)
        columns = self._held(pixels.left, cells.width, pixels.width, pixels.canvas.width)
        filled = image.index_select(2, rows.to(image.device)).index_select(3, columns.to(image.device))
        return F.pixel_unshuffle(filled, self.patch)

    def averaged(self, planes: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k y x"]:
        """Return the mean of each plane over the pixels of each cell, beyond the region as for `gather`."""
        if self.patch == 1:
            return planes
        parts = self.gather(planes).unflatten(1, (planes.shape[1], -1)).unbind(2)
        total: Tensor = sum(parts[1:], parts[0])  # in one order, so tiles equal the whole to the bit
        return total / len(parts)

    def spread(self, cells: Float[Tensor, "b k y x"]) -> Float[Tensor, "b k h w"]:
        """Return planes in which each pixel has the numbers of its cell."""
        return self.scatter(cells.repeat_interleave(self.patch**2, dim=1))

    def scatter(self, cells: Float[Tensor, "b n_p_p y x"]) -> Float[Tensor, "b n h w"]:
        """Return the image whose pixels the cells hold."""
        if self.patch == 1:
            return cells
        image = F.pixel_shuffle(cells, self.patch)
        if self.is_filled:
            return image
        top, left = self.pixels.top % self.patch, self.pixels.left % self.patch
        rows = torch.arange(top, top + self.pixels.height, device=image.device) % image.shape[-2]
        columns = torch.arange(left, left + self.pixels.width, device=image.device) % image.shape[-1]
        return image.index_select(2, rows).index_select(3, columns)

    def _span(self, start: int, length: int, squares: int) -> tuple[int, int]:
        """Return the first square and the number of squares that touch a span; a square counts only once."""
        first = start // self.patch
        return first, min(-(-(start + length) // self.patch) - first, squares)

    def _held_by(self, first: int, count: int, squares: int, start: int, length: int) -> tuple[int, int]:
        """Return start and length of the part of a span that `count` of its `squares` hold."""
        if count == squares:
            return start, length
        begin, end = max(first * self.patch, start), min((first + count) * self.patch, start + length)
        return begin, end - begin

    def _held(self, start: int, squares: int, length: int, size: int) -> Int64[Tensor, " p"]:
        """Return which row (or column) of the region stands at each row (or column) of the squares."""
        index = torch.arange(squares * self.patch) - start % self.patch
        is_around = (index < 0) & (index + size < length)  # in the square where a circular axis ends
        return fold(torch.where(is_around, index + size, index), length, "reflect")
