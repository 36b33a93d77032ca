"""Batches of random crops, each a pure function of (seed, step): a resumed run sees equal batches."""

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt64
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

    Each label is equally likely: a model learns a rare one as well as the others. Every position in any image
    of a label, or in any image without labels, is equally likely, so large images are drawn more often.
    `flips` mirrors half of the crops left-right, `quarter_turns` turns crops by 0, 90, 180 or 270 degrees,
    both in place.
    """
    if min(seed, step) < 0 or min(size, batch) < 1:
        raise ValueError(f"size={size}, batch={batch} must be >= 1 and seed={seed}, step={step} must be >= 0")
    # All versions of numpy draw equal raw numbers from a bit generator; numbers of a Generator may differ.
    generator = np.random.PCG64([seed, step])
    numbers = generator.random_raw((batch, 2))
    images, positions = _places(image_set, size, numbers[:, 0], generator.random_raw(batch))
    channels = image_set.channels
    chosen = np.empty((batch, size, size, channels + image_set.planes), dtype=np.uint8)
    for row in np.argsort(images, kind="stable"):  # an image that is not cached is decoded once per batch
        index = int(images[row])
        columns = int(image_set.sizes[index, 1]) - size + 1
        top, left = divmod(int(positions[row]), columns)
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


def _places(
    image_set: ImageSet, size: int, numbers: UInt64[np.ndarray, " b"], of_labels: UInt64[np.ndarray, " b"]
) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
    """Return the image of each crop, and which of the positions in this image it has."""
    room = (image_set.sizes - size + 1).clip(min=0).prod(axis=1)
    if room.sum() == 0:
        raise ValueError(
            f"crops of {size} px: none of {len(image_set)} images is as large; take smaller crops"
        )
    has_labels = image_set.labels.shape[1] > 0
    own = image_set.labels.argmax(axis=1) if has_labels else np.zeros(len(image_set), np.int64)
    order = np.argsort(own, kind="stable")  # the images of a label follow each other
    ends, labels = np.cumsum(room[order]), np.unique(own[room > 0])
    rooms = np.array([room[own == label].sum() for label in labels], np.uint64)
    drawn = (of_labels % np.uint64(len(labels))).astype(np.int64)
    before = np.cumsum(rooms) - rooms
    positions = (before[drawn] + numbers % rooms[drawn]).astype(np.int64)
    places = np.searchsorted(ends, positions, side="right")
    return order[places], ends[places] - 1 - positions
