"""Planes that are constant over an image, after other given planes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.canvas.region import Region
from diffnca.diffusion.walk import Planes


@dataclass(frozen=True, eq=False)
class Constants:
    """Given planes on any canvas, the last of which are constant.

    Attributes:
        values: the values of the constant planes, of all images or of each image.
        before: the planes before them, as a function of the region; `None` for zeros.
        num_before: the number of planes before them; `before` may lack the last of these.
    """

    values: Float[Tensor, "b l"]
    before: Planes | None
    num_before: int

    def __call__(self, region: Region) -> Float[Tensor, "b k h w"]:
        """Return the planes on `region`."""
        sides = (region.height, region.width)
        known = torch.zeros(1, 0, *sides) if self.before is None else self.before(region)
        unknown = torch.zeros(1, self.num_before - known.shape[1], *sides)
        constant = self.values[:, :, None, None].expand(-1, -1, *sides)
        images = max(len(known), len(constant))
        return torch.cat([each.expand(images, -1, -1, -1) for each in (known, unknown, constant)], dim=1)
