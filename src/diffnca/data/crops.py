"""Batches of random crops, each a pure function of (seed, step): a resumed run sees equal batches."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from diffnca.canvas.pixels import to_model
from diffnca.data.images import ImageSet

_LOWER_BITS = np.uint64(2**53 - 1)
"""Bits of a drawn number that say whether the layout of a crop is dropped."""

_LOW_BITS = np.uint64(11)
"""Bits of another number that say nothing of whether the label of a crop is dropped: 53 others do."""


def crops(
    image_set: ImageSet,
    *,
    size: int,
    batch: int,
    seed: int,
    step: int,
    flips: bool = True,
    quarter_turns: bool = True,
    dropped: float = 0.0,
    unlabelled: float = 0.0,
) -> Float32[Tensor, "b c size size"]:
    """Return batch number `step` of random square crops, in [-1, 1].

    The planes of layouts follow the channels of their images, in [0, 1], and then constant planes: of labels,
    and of the styles of complete images. A share `dropped` of the crops has zeros instead of its layout, a
    share `unlabelled` instead of its label.

    Every position in any image is equally likely, so large images are drawn more often. `flips` mirrors half
    of the crops left-right, `quarter_turns` turns crops by 0, 90, 180 or 270 degrees, both in place.
    """
    if min(seed, step) < 0 or min(size, batch) < 1:
        raise ValueError(f"size={size}, batch={batch} must be >= 1 and seed={seed}, step={step} must be >= 0")
    last_of_image = np.cumsum((image_set.sizes - size + 1).clip(min=0).prod(axis=1))
    if len(image_set) == 0 or last_of_image[-1] == 0:
        raise ValueError(
            f"crops of {size} px: none of {len(image_set)} images is as large; take smaller crops"
        )
    # All versions of numpy draw equal raw numbers from a bit generator; numbers of a Generator may differ.
    numbers = np.random.PCG64([seed, step]).random_raw((batch, 2))
    positions = (numbers[:, 0] % np.uint64(last_of_image[-1])).astype(np.int64)
    images = np.searchsorted(last_of_image, positions, side="right")
    channels = image_set.channels
    chosen = np.empty((batch, size, size, channels + image_set.planes), dtype=np.uint8)
    for row in np.argsort(images, kind="stable"):  # an image that is not cached is decoded once per batch
        index = int(images[row])
        columns = int(image_set.sizes[index, 1]) - size + 1
        top, left = divmod(int(last_of_image[index] - 1 - positions[row]), columns)
        crop = image_set.labelled(index)[top : top + size, left : left + size]
        orientation = int(numbers[row, 1] >> np.uint64(61))  # three bits
        if flips and orientation & 4:
            crop = crop[:, ::-1]
        chosen[row] = np.rot90(crop, orientation & 3) if quarter_turns else crop
    # numpy only: threads of torch would slow down training, and training would slow them down
    pictures = np.stack([to_model(crop[..., :channels]).numpy() for crop in chosen])
    is_shown = (numbers[:, 1] & _LOWER_BITS) >= dropped * 2.0**53  # the upper bits turn the crop
    shares = np.moveaxis(chosen[..., channels:], -1, 1) / np.float32(255) * is_shown[:, None, None, None]
    is_labelled = (numbers[:, 0] >> _LOW_BITS) >= unlabelled * 2.0**53
    labels = image_set.labels[images] * is_labelled[:, None]
    constants = np.concatenate([labels, image_set.styles[images]], axis=1)[:, :, None, None]
    constants = np.broadcast_to(constants, (*constants.shape[:2], size, size))
    return torch.from_numpy(np.concatenate([pictures, shares, constants], axis=1))
