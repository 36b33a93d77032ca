"""Maps of classes, stretched to any canvas: the class of each pixel, as a function of the region."""

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from diffnca.canvas.region import Region
from diffnca.data.layouts import UNKNOWN
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


def _largest(numbers: UInt8[Tensor, "4 n"], shares: Float64[Tensor, "4 n"]) -> UInt8[Tensor, " n"]:
    """Return the number with the largest sum of shares in each column."""
    largest, best = torch.zeros_like(numbers[0]), torch.zeros_like(shares[0])
    for number in numbers.unique():
        of_number = shares * (numbers == number)
        share = of_number[0] + of_number[1] + of_number[2] + of_number[3]  # in this order for any region
        largest, best = torch.where(share > best, number, largest), torch.maximum(share, best)
    return largest
