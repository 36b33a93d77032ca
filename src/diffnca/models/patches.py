"""Cells that hold a square of pixels each: the same rule sees farther, and there are fewer cells to update.

The squares lie on a grid that begins at pixel (0, 0) of the canvas, so the cells of a tile are cells of the
whole. A network made of such cells commutes with shifts by whole squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from diffnca.geometry import Canvas, Region, fold


@dataclass(frozen=True)
class PatchGrid:
    """The squares that cover a region.

    Attributes:
        pixels: the region, in pixels.
        patch: side of a square in pixels, >= 1.
    """

    pixels: Region
    patch: int

    def __post_init__(self) -> None:
        """Refuse a circular axis around which the squares do not fit."""
        canvas = self.pixels.canvas
        sides = {"height": canvas.height, "width": canvas.width}
        for (name, side), boundary in zip(sides.items(), canvas.boundary, strict=True):
            if boundary == "circular" and side % self.patch:
                raise ValueError(
                    f"{name}={side} on a circular axis: must be a multiple of {self.patch} px, the side of "
                    "the model's cells; choose such a size"
                )

    @property
    def cells(self) -> Region:
        """The region in cells, on a canvas of cells."""
        pixels, canvas = self.pixels, self.pixels.canvas
        top, height = self._span(pixels.top, pixels.height)
        left, width = self._span(pixels.left, pixels.width)
        sides = (-(-canvas.height // self.patch), -(-canvas.width // self.patch))
        return Region(top, left, height, width, Canvas(*sides, canvas.boundary))

    def gather(self, image: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n_p_p y x"]:
        """Return the pixels of each cell as its channels.

        Squares that end beyond the region are filled with its mirror image: right at an edge of the canvas;
        elsewhere the caller crops what that has touched.
        """
        if self.patch == 1:
            return image
        top, bottom, left, right = self._margins()
        rows = fold(torch.arange(-top, self.pixels.height + bottom), self.pixels.height, "reflect")
        columns = fold(torch.arange(-left, self.pixels.width + right), self.pixels.width, "reflect")
        filled = image.index_select(2, rows.to(image.device)).index_select(3, columns.to(image.device))
        return F.pixel_unshuffle(filled, self.patch)

    def scatter(self, cells: Float[Tensor, "b n_p_p y x"]) -> Float[Tensor, "b n h w"]:
        """Return the image whose pixels the cells hold."""
        if self.patch == 1:
            return cells
        top, _, left, _ = self._margins()
        image = F.pixel_shuffle(cells, self.patch)
        return image[..., top : top + self.pixels.height, left : left + self.pixels.width].contiguous()

    def _span(self, start: int, length: int) -> tuple[int, int]:
        """Return the first square that touches a span of pixels, and how many do."""
        first = start // self.patch
        return first, -(-(start + length) // self.patch) - first

    def _margins(self) -> tuple[int, int, int, int]:
        """Return by how many pixels the squares overhang the region: top, bottom, left, right."""
        pixels, cells = self.pixels, self.cells
        top, left = pixels.top - cells.top * self.patch, pixels.left - cells.left * self.patch
        bottom = cells.height * self.patch - pixels.height - top
        return top, bottom, left, cells.width * self.patch - pixels.width - left
