"""Maps of classes, stretched to any canvas: the class of each pixel, as a function of the region."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from diffnca.canvas.region import Region
from diffnca.data.layouts import UNKNOWN
from diffnca.data.outlines import Outline
from diffnca.data.refusals import UnusableImageError
from diffnca.errors import require
from diffnca.sampling.blocks import Axis


@dataclass(frozen=True, eq=False)
class Raster:
    """A map that is an image: the class of each place, 255 where it is unknown.

    A pixel of a canvas has the class with the largest share after linear interpolation between the four
    places around it. Of equal shares, the smaller number counts; unknown is a class of its own. On a canvas
    that is smaller than the map, the pixel sees only these four places too.
    """

    numbers: UInt8[Tensor, "b y x"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the map."""
        height, width = self.numbers.shape[1:]
        return height, width

    @property
    def content(self) -> Iterator[bytes]:
        """What tells the map from others of its size."""
        yield self.numbers.numpy().tobytes()

    @property
    def leaves_free(self) -> bool:
        """Whether a class is unknown."""
        return bool((self.numbers == UNKNOWN).any())

    @property
    def signed(self) -> Int64[Tensor, "b y x"]:
        """The numbers as `generate` takes them: -1 where a class is unknown."""
        return self.numbers.long().where(self.numbers != UNKNOWN, -1)

    def on(self, region: Region) -> UInt8[Tensor, "b h w"]:
        """Return the class of each pixel on `region`."""
        (boundary_y, boundary_x), canvas, (height, width) = region.canvas.boundary, region.canvas, self.size
        rows = Axis(region.top, region.height, canvas.height, height, boundary_y).interpolated()
        columns = Axis(region.left, region.width, canvas.width, width, boundary_x).interpolated()
        pairs = tuple(product(rows, columns))
        corners = torch.stack([self.numbers[:, y[:, None], x] for (y, _), (x, _) in pairs])
        shares = torch.stack([v[:, None] * u for (_, v), (_, u) in pairs])[:, None].expand(corners.shape)
        numbers = corners[0].clone()
        is_mixed = (corners != numbers).any(dim=0)
        numbers[is_mixed] = _largest(corners[:, is_mixed], shares[:, is_mixed])
        return numbers


@dataclass(frozen=True, eq=False)
class Outlines:
    """A map of polygons, which stretch with it: class 0 where no polygon lies, else that of the last one."""

    outlines: tuple[Outline, ...]
    size: tuple[int, int]

    @classmethod
    def of(cls, outlines: tuple[Outline, ...], height: int | None, width: int | None) -> "Outlines":
        """Return a map with these sides; a side of `None` is the smallest that holds all polygons."""
        for name, side in (("height", height), ("width", width)):
            require(side is None or side >= 1, name, side, "1 px or more")
        _, right, _, bottom = np.stack([outline.box for outline in outlines]).max(axis=0)
        if max(right, 0.0) * max(bottom, 0.0) == 0.0:
            raise UnusableImageError("has no polygon in the image: x and y must be pixels above 0")
        size = (math.ceil(bottom) if height is None else height, math.ceil(right) if width is None else width)
        return cls(outlines, size)

    @cached_property
    def boxes(self) -> Float64[np.ndarray, "n 4"]:
        """The box of each polygon."""
        return np.stack([outline.box for outline in self.outlines])

    @property
    def leaves_free(self) -> bool:
        """Whether a polygon makes a place unknown."""
        return any(outline.number == UNKNOWN for outline in self.outlines)

    @property
    def content(self) -> Iterator[bytes]:
        """What tells the map from others of its size."""
        for outline in self.outlines:
            yield bytes([outline.number]) + outline.edges.tobytes()

    def on(self, region: Region) -> UInt8[Tensor, "1 h w"]:
        """Return the class of each pixel on `region`: that of its middle."""
        rows, row = np.unique(region.rows().numpy(), return_inverse=True)
        columns, column = np.unique(region.columns().numpy(), return_inverse=True)
        y = (rows + 0.5) * (self.size[0] / region.canvas.height)
        x = (columns + 0.5) * (self.size[1] / region.canvas.width)
        numbers = np.zeros((len(y), len(x)), dtype=np.uint8)
        left, right, top, bottom = self.boxes.T
        is_near = (left <= x[-1]) & (right >= x[0]) & (top <= y[-1]) & (bottom >= y[0])
        for index in np.flatnonzero(is_near):
            outline = self.outlines[index]
            left, right, top, bottom = outline.box
            part = slice(*np.searchsorted(y, (top, bottom))), slice(*np.searchsorted(x, (left, right)))
            numbers[part][outline.covers(y[part[0]], x[part[1]])] = outline.number
        return torch.from_numpy(numbers[row[:, None], column])[None]


def _largest(numbers: UInt8[Tensor, "4 n"], shares: Float64[Tensor, "4 n"]) -> UInt8[Tensor, " n"]:
    """Return the number with the largest sum of shares in each column."""
    largest, best = torch.zeros_like(numbers[0]), torch.zeros_like(shares[0])
    for number in numbers.unique():
        of_number = shares * (numbers == number)
        share = of_number[0] + of_number[1] + of_number[2] + of_number[3]  # in this order for any region
        largest, best = torch.where(share > best, number, largest), torch.maximum(share, best)
    return largest


def sides_of(own: tuple[int, int], height: int | None, width: int | None) -> tuple[int, int]:
    """Return height and width: those asked for; a single one in proportion; or those of a map itself."""
    own_height, own_width = own
    if height is None and width is None:
        return own
    if height is None:
        assert width is not None
        return max(round(own_height * width / own_width), 1), width
    return height, max(round(own_width * height / own_height), 1) if width is None else width
