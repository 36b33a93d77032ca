"""The cells of a whole canvas of any size, as nodes of a graph.

It computes what `diffnca.networks.patches` and the positions and edges of `diffnca.networks` compute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffnca.canvas.region import Boundary
from diffnca.export.graph import Graph, Value
from diffnca.networks.embedding import PIXELS_PER_UNIT


@dataclass(frozen=True, eq=False)
class Grid:
    """The cells of a whole canvas: their numbers of rows and columns, and what lies beyond its edges.

    Positions in pixels count from the cell `origin`; `None` is the centre.
    """

    height: Value
    width: Value
    boundary: tuple[Boundary, Boundary]
    origin: tuple[Value | float, Value | float] | None = None

    @property
    def graph(self) -> Graph:
        """The graph of all values."""
        return self.height.graph

    def divided(self, side: int) -> Grid:
        """Return the grid of squares of this side that cover the cells."""
        if side == 1:
            return self
        height, width = ((each + (side - 1)) / side for each in (self.height, self.width))
        return Grid(height, width, self.boundary)

    def padded(self, state: Value, width: int, padding: str) -> Value:
        """Extend a state by `width` cells per side, as the canvas goes on, or with zeros."""
        if padding == "zeros":
            sides = np.array([0, 0, width, width, 0, 0, width, width], np.int64)
            return self.graph.add("Pad", state, self.graph.constant(sides))
        for axis, (size, edge) in enumerate(zip((self.height, self.width), self.boundary, strict=True)):
            beyond = self.graph.range(-width, size + width)
            index = self.graph.add("Mod", beyond, size) if edge == "circular" else mirrored(beyond, size)
            state = self.graph.add("Gather", state, index, axis=axis + 2)
        return state

    def gather(self, image: Value, patch: int, channels: int) -> Value:
        """Return the pixels of each square as its channels."""
        picks = np.eye(patch**2, dtype=np.float32).reshape(patch**2, 1, patch, patch)
        return self._folded(image, picks, channels)

    def averaged(self, planes: Value, patch: int, channels: int) -> Value:
        """Return the mean of each plane over the pixels of each square."""
        return self._folded(planes, np.full((1, 1, patch, patch), patch**-2.0, np.float32), channels)

    def _folded(self, image: Value, weights: np.ndarray, channels: int) -> Value:
        """Convolve each square with weights; the mirror image fills squares beyond the canvas."""
        patch = weights.shape[-1]
        if patch == 1:
            return image
        squares = self.divided(patch)
        for axis, (count, size) in enumerate(
            ((squares.height, self.height), (squares.width, self.width)), start=2
        ):
            index = mirrored(self.graph.range(0, count * patch), size)
            image = self.graph.add("Gather", image, index, axis=axis)
        each = self.graph.constant(np.tile(weights, (channels, 1, 1, 1)))
        return self.graph.add("Conv", image, each, strides=[patch, patch], group=channels)

    def scatter(self, squares: Value, patch: int) -> Value:
        """Return the cells whose numbers the squares hold."""
        if patch == 1:
            return squares
        image = self.graph.add("DepthToSpace", squares, blocksize=patch, mode="CRD")
        ends = self.graph.add("Concat", self.height.shaped(1), self.width.shaped(1), axis=0)
        starts, axes = (self.graph.constant(np.array(each, np.int32)) for each in ([0, 0], [2, 3]))
        return self.graph.add("Slice", image, starts, ends, axes)

    def positions(self, kind: str) -> list[Value]:
        """Return the rows and the columns of the cells as two planes; none for `kind` "none"."""
        if kind == "none":
            return []
        rows, columns = (self._position(kind, axis) for axis in (0, 1))
        return [rows + columns * 0.0, columns + rows * 0.0]

    def _position(self, kind: str, axis: int) -> Value:
        size, shape = (self.height, self.width)[axis], ((1, 1, -1, 1), (1, 1, 1, -1))[axis]
        index, last = self.graph.range(0, size).to(np.float32).shaped(*shape), (size - 1).to(np.float32)
        if kind == "relative":
            return -(index / self.graph.add("Max", last, 1.0)) + 1.0
        zero = last / 2.0 if self.origin is None else self.origin[axis]
        return (index - zero) / PIXELS_PER_UNIT


def mirrored(index: Value, size: Value) -> Value:
    """Return the row or column that stands at each number, which may lie beyond an edge that reflects."""
    graph, last = index.graph, (size - 1) * 2
    around = graph.add("Mod", index, graph.add("Max", last, 1))
    return graph.add("Min", around, last - around)
