"""Canvases, regions of canvases, and what lies beyond an edge; in pixels, y before x.

A region may hang over the edge of a circular axis (`top < 0`, or beyond its end), and goes on opposite.

A network mirrors the edge of a reflecting canvas at every cell step, and wraps a circular axis that is fully
covered. Beyond other edges it may see anything; the caller crops the affected pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from diffnca.errors import require

Boundary = Literal["reflect", "circular"]
"""How an axis goes on beyond its edge: as its mirror image (edge pixel not repeated), or from its start."""

MAX_SIDE_PX = 2**31
"""Longest side of a canvas: the noise counter has one 32-bit word for a coordinate."""


@dataclass(frozen=True)
class Canvas:
    """The finished image: its sides, from 1 to 2**31 px, and how it goes on beyond its edges, (y, x)."""

    height: int
    width: int
    boundary: tuple[Boundary, Boundary] = ("reflect", "reflect")

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width)):
            allowed = f"from 1 to {MAX_SIDE_PX} px; choose such a {name}"
            require(1 <= side <= MAX_SIDE_PX, f"canvas {name}", side, allowed)
        if len(self.boundary) != 2 or any(axis not in ("reflect", "circular") for axis in self.boundary):
            allowed = '"reflect" or "circular" for each of (y, x); for instance ("reflect", "circular")'
            raise ValueError(f"canvas boundary={self.boundary!r}: must be {allowed}")

    @property
    def whole(self) -> Region:
        """The region that covers the canvas."""
        return Region(0, 0, self.height, self.width, self)

    def require_multiples(self, side: int) -> None:
        """Refuse circular sides that are no multiples of `side` px."""
        sides = (self.height, self.width)
        fitting = [
            -(-each // side) * side if axis == "circular" else each
            for each, axis in zip(sides, self.boundary, strict=True)
        ]
        if (*fitting,) != sides:
            asked, allowed = ("x".join(map(str, each)) for each in (sides, fitting))
            raise ValueError(
                f"{asked} px: circular sides must be multiples of {side} px; choose such a size, for example "
                f"{allowed}"
            )


@dataclass(frozen=True)
class Region:
    """A rectangle of a canvas: its first row and column, and its sides, from 1 px to those of the canvas.

    On a circular axis the first row or column is any integer, taken modulo the side of the canvas.
    """

    top: int
    left: int
    height: int
    width: int
    canvas: Canvas

    def __post_init__(self) -> None:
        boundary_y, boundary_x = self.canvas.boundary
        for start_name, start, length_name, length, size, boundary in (
            ("top", self.top, "height", self.height, self.canvas.height, boundary_y),
            ("left", self.left, "width", self.width, self.canvas.width, boundary_x),
        ):
            if not 1 <= length <= size:
                allowed = f"from 1 to {size} px, as its canvas"
                raise ValueError(f"region of {length_name} {length}: must be {allowed}; cut it")
            if boundary == "reflect" and not 0 <= start <= size - length:
                span = f"of {start_name} {start}, {length_name} {length}"
                raise ValueError(f"region {span}: must lie in [0, {size}) of a reflecting canvas; cut it")

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def is_whole_y(self) -> bool:
        """Whether the region covers every row of the canvas."""
        return self.height == self.canvas.height

    @property
    def is_whole_x(self) -> bool:
        """Whether the region covers every column of the canvas."""
        return self.width == self.canvas.width

    def rows(self) -> Int64[Tensor, " h"]:
        """Return the row on the canvas, in [0, canvas.height), of each row of the region."""
        rows = torch.arange(self.top, self.top + self.height)
        return fold(rows, self.canvas.height, self.canvas.boundary[0])

    def columns(self) -> Int64[Tensor, " w"]:
        """Return the column on the canvas, in [0, canvas.width), of each column of the region."""
        columns = torch.arange(self.left, self.left + self.width)
        return fold(columns, self.canvas.width, self.canvas.boundary[1])

    def grow(self, n: int) -> Region:
        """Return the region with `n` px more on each side, as far as reflecting edges or a whole axis."""
        if n < 0:
            raise ValueError(f"grow by {n} px: must be >= 0; make a smaller Region instead")
        boundary_y, boundary_x = self.canvas.boundary
        top, height = grow_span(self.top, self.height, n, self.canvas.height, boundary_y)
        left, width = grow_span(self.left, self.width, n, self.canvas.width, boundary_x)
        return Region(top, left, height, width, self.canvas)

    def shrink(self, n: int) -> Region | None:
        """Return the part that is `n` px or more away from edges inside the canvas; `None` if there is none.

        This part sees no such edge within `n` px: for any region r, `r.grow(n).shrink(n)` contains r.
        """
        boundary_y, boundary_x = self.canvas.boundary
        top, height = _shrink_span(self.top, self.height, n, self.canvas.height, boundary_y)
        left, width = _shrink_span(self.left, self.width, n, self.canvas.width, boundary_x)
        return Region(top, left, height, width, self.canvas) if min(height, width) > 0 else None

    def within(self, other: Region) -> Region:
        """Return the part of this region in `other`, which holds it, or is shorter on an axis."""
        top, height = (self.top, self.height) if self.height < other.height else (other.top, other.height)
        left, width = (self.left, self.width) if self.width < other.width else (other.left, other.width)
        return Region(top, left, height, width, self.canvas)

    def crop(self, tensor: Tensor, of: Region) -> Tensor:
        """Return the part on this region of a tensor whose last two dimensions lie on the region `of`.

        `of` contains this region, on a circular axis also after a full turn. The part is a view if possible.
        """
        if of.canvas != self.canvas:
            canvases = f"{of.canvas} to one on {self.canvas}"
            raise ValueError(f"crop of a region on {canvases}: both must lie on the same canvas")
        given, own = tuple(tensor.shape[-2:]), (of.height, of.width)
        if given != own:
            raise ValueError(f"crop of a tensor of {given} px: must be {own} px, as the region it lies on")
        boundary_y, boundary_x = self.canvas.boundary
        tensor = _take_span(tensor, -2, self.top - of.top, self.height, self.canvas.height, boundary_y)
        return _take_span(tensor, -1, self.left - of.left, self.width, self.canvas.width, boundary_x)

    def tiles(self, height: int, width: int) -> Iterator[Region]:
        """Yield tiles that cover the region row by row, each pixel once; the last tiles may be smaller."""
        if height < 1 or width < 1:
            raise ValueError(f"tiles of {height}x{width} px: both sides must be >= 1; choose a larger tile")
        bottom, right = self.top + self.height, self.left + self.width
        return (
            Region(top, left, min(height, bottom - top), min(width, right - left), self.canvas)
            for top in range(self.top, bottom, height)
            for left in range(self.left, right, width)
        )


def fold(index: Int[Tensor, "*shape"], size: int, boundary: Boundary) -> Int[Tensor, "*shape"]:
    """Return the coordinate in [0, size) of the pixel at `index`, any integer.

    `reflect` mirrors without repeating the edge pixel (a side of 1 px replicates); `circular` is the modulo.
    """
    if boundary == "circular":
        return index % size
    index = index % max(2 * (size - 1), 1)
    return torch.minimum(index, 2 * (size - 1) - index)


def grow_span(start: int, length: int, n: int, size: int, boundary: Boundary) -> tuple[int, int]:
    """Return start and length of a span of an axis with `n` px more on each side, as `Region.grow` does."""
    if n == 0:
        return start, length  # a region that covers a circular axis may begin anywhere
    if boundary == "circular":
        return (start - n, length + 2 * n) if length + 2 * n < size else (0, size)
    first, end = max(start - n, 0), min(start + length + n, size)
    return first, end - first


def _shrink_span(start: int, length: int, n: int, size: int, boundary: Boundary) -> tuple[int, int]:
    """Return start and length of a span without `n` px on each side that is no edge of the canvas."""
    if length == size:
        return start, length
    before = n if boundary == "circular" or start > 0 else 0
    after = n if boundary == "circular" or start + length < size else 0
    return start + before, length - before - after


def _take_span(tensor: Tensor, axis: int, offset: int, length: int, size: int, boundary: Boundary) -> Tensor:
    """Return `length` px of `axis` from `offset` on, around the edge of a complete circular axis."""
    available = tensor.shape[axis]
    if boundary == "circular":
        offset %= size
    if 0 <= offset <= available - length:
        return tensor.narrow(axis, offset, length)
    if boundary == "circular" and available == size:
        before_edge = size - offset
        parts = [tensor.narrow(axis, offset, before_edge), tensor.narrow(axis, 0, length - before_edge)]
        return torch.cat(parts, dim=axis)
    raise ValueError(
        f"crop of {length} px from {offset} on: must lie within the {available} px of the region; grow it"
    )
