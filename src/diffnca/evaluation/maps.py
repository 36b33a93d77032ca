"""The maps of real images, in pieces of the size of generated images: which of them a sample follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diffnca.data.images import ImageSet
from diffnca.sampling.layouts import shown_layout

GOLDEN = 0.618_034
"""The golden ratio: multiples of it, without their whole parts, lie evenly from the first on."""


@dataclass(frozen=True)
class Maps:
    """Disjoint pieces, `height` x `width` px, of the maps of images.

    The first pieces are of different images, and of different places in them.
    """

    images: ImageSet
    height: int
    width: int

    def __post_init__(self) -> None:
        if not len(self.places):
            raise ValueError(
                f"--layouts: must hold maps of {self.height}x{self.width} px, the size of the generated "
                "images, or larger ones; give a smaller --height and --width"
            )

    @cached_property
    def places(self) -> Int64[np.ndarray, "n 3"]:
        """The image, the top and the left of each piece."""
        found = []
        for image, (height, width) in enumerate(self.images.sizes.tolist()):
            columns = width // self.width
            for place in range(height // self.height * columns):
                top, left = divmod(place, columns)
                found.append((place * GOLDEN % 1, image, top * self.height, left * self.width))
        return np.array([piece for _, *piece in sorted(found)], dtype=np.int64).reshape(-1, 3)

    def numbers(self, indices: Sequence[int]) -> Int64[Tensor, "b y x"]:
        """Return the classes of pieces, -1 where unknown; the pieces follow each other in turn."""
        pieces = [self._planes(*self.places[index % len(self.places)].tolist()) for index in indices]
        return shown_layout(torch.from_numpy(np.stack(pieces)).movedim(-1, 1) / 255.0).signed

    def _planes(self, image: int, top: int, left: int) -> np.ndarray:
        planes = self.images.labelled(image)[..., self.images.channels :]
        piece: np.ndarray = planes[top : top + self.height, left : left + self.width]
        return piece
