"""The images to be scored: whole pictures of equal size, or crops of larger pictures.

`crops` remembers the picture of each crop, because crops of one picture are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from diffnca.data.images import ImageSet

Picture = UInt8[np.ndarray, "_h _w _c"]  # pictures may differ in size
Pictures = Sequence[Picture] | ImageSet


@dataclass(frozen=True)
class Selection:
    """Images of equal size, and the picture that each image is taken from."""

    images: UInt8[Tensor, "n c h w"]
    pictures: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)


def whole(pictures: Pictures) -> Selection:
    """Select pictures of equal size and channels as they are."""
    shapes = sorted(set(map(tuple, _shapes(pictures).tolist())))
    if len(shapes) > 1:
        raise ValueError(
            f"the images have {len(shapes)} shapes (h, w, c), such as {shapes[0]} and {shapes[-1]}: "
            "bring them to one size, or take crops"
        )
    return Selection(_stack(pictures), torch.arange(len(pictures)))


def crops(pictures: Pictures, n: int, side_px: int = 64, seed: int | None = None) -> Selection:
    """Select `n` different square crops of larger pictures of any sizes.

    `seed=None` takes disjoint crops on the grid of each picture, spread evenly over all pictures. A number
    draws positions, all equally likely; these crops can overlap.

    Raises:
        ValueError: there are no pictures, their channels differ, or they hold fewer than `n` crops.
    """
    channels = sorted(set(_shapes(pictures)[:, 2].tolist()))
    if len(channels) > 1:
        raise ValueError(f"the images have {channels} channels: bring them to one number of channels")
    step = side_px if seed is None else 1
    rows, columns = _grids(pictures, side_px, step)
    ends = np.cumsum(rows * columns)
    chosen = _choose(n, int(ends[-1]), side_px, seed)
    origin = np.searchsorted(ends, chosen, side="right")
    within = chosen - (ends - rows * columns)[origin]
    tops, lefts = within // columns[origin] * step, within % columns[origin] * step
    cut = [
        pictures[k][top : top + side_px, left : left + side_px].copy()  # frees the memory of the picture
        for k, top, left in zip(origin.tolist(), tops, lefts, strict=True)
    ]
    return Selection(_stack(cut), torch.from_numpy(origin))


def count_crops(pictures: Pictures, side_px: int = 64) -> int:
    """Return how many disjoint crops the regular grids of the pictures hold."""
    rows, columns = _grids(pictures, side_px, side_px)
    return int((rows * columns).sum())


def _shapes(pictures: Pictures) -> Int64[np.ndarray, "n 3"]:
    if not len(pictures):
        raise ValueError("there are no images to score: give at least 2")
    return np.array([picture.shape for picture in pictures])


def _stack(pictures: Pictures) -> UInt8[Tensor, "n c h w"]:
    return torch.from_numpy(np.stack(list(pictures))).movedim(3, 1)


def _grids(
    pictures: Pictures, side_px: int, step: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    if side_px < 1:
        raise ValueError(f"side_px is {side_px}: a crop has a side of 1 px or more")
    shapes = _shapes(pictures)
    rows, columns = (np.maximum((shapes[:, axis] - side_px) // step + 1, 0) for axis in (0, 1))
    return rows, columns


def _choose(n: int, available: int, side_px: int, seed: int | None) -> Int64[np.ndarray, " n"]:
    if not 1 <= n <= available:
        raise ValueError(
            f"{n} crops of {side_px}x{side_px} px are asked for, but the images hold {available}: "
            "ask for fewer or smaller ones, or give more images"
        )
    if seed is None:
        return np.arange(n) * available // n
    return np.sort(np.random.default_rng(seed).choice(available, n, replace=False))
