"""A look at a set of images before training: shades, background, near-duplicates, scale of the detail."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from diffnca.data.decoding import NEARLY_WHITE, Pixels
from diffnca.data.images import ImageSet, open_images
from diffnca.data.layouts import Layouts

MOST_MEASURED = 16
"""Images whose shades, background and spectrum are measured; they lie evenly among all images."""

MOST_COMPARED = 2_000
"""Images that are compared with each other."""

MOST_LOST = 0.005
"""Largest share of the variance that lies above the finest frequency of a reduced image."""

LARGEST_REDUCTION = 8
WINDOW_PX = 512
HASH_SIDE = 16
MOST_BITS_APART = 12
"""Of 256 bits; two photographs of different places differ in about half of their bits."""


@dataclass(frozen=True)
class Survey:
    """Facts about a set of images.

    Attributes:
        is_gray: whether all measured images have equal channels.
        background: mean share of pixels that are white or nearly white, in [0, 1].
        duplicates: pairs of names of images that look alike.
        classes: share of each class among all pixels of the maps, and the number of images that show it; none
            for images without maps.
    """

    is_gray: bool
    background: float
    duplicates: tuple[tuple[str, str], ...]
    classes: tuple[tuple[float, int], ...] = ()


def survey(images: ImageSet) -> Survey:
    """Return facts about images."""
    measured = [images[index] for index in _evenly(len(images), MOST_MEASURED)]
    return Survey(
        all(is_gray(each) for each in measured),
        float(np.mean([(each >= NEARLY_WHITE).all(axis=2).mean() for each in measured])),
        near_duplicates(images),
        class_shares(images),
    )


def class_shares(images: ImageSet) -> tuple[tuple[float, int], ...]:
    """Return the share of each class among all pixels of the maps, and the number of images that show it."""
    chosen = _evenly(len(images), MOST_COMPARED)
    maps = (images.labelled(index)[..., images.channels :] for index in chosen)
    sums = np.array([each.sum(axis=(0, 1), dtype=np.int64) for each in maps])
    all_of_them = 255 * images.sizes[chosen].prod(axis=1).sum()
    return tuple((float(each.sum() / all_of_them), int((each > 0).sum())) for each in sums.T)


def glance(
    paths: tuple[Path, ...], microns_per_px: float | None = None, layouts: Layouts | None = None
) -> list[Pixels]:
    """Return some images in full colour, before a training opens all of them; none if these are unusable."""
    try:
        return list(open_images(paths, at_most=MOST_MEASURED, microns_per_px=microns_per_px, layouts=layouts))
    except ValueError:
        return []  # the training that opens all images says what is wrong


def is_gray(image: Pixels) -> bool:
    """Return whether all channels are equal."""
    return bool((image == image[..., :1]).all())


def reduction_of(images: list[Pixels], smallest_side: int) -> int:
    """Return the largest factor, from 1 to 8, that keeps the detail of most images.

    A smaller image has no frequencies above its own limit. A photo that is soft, or much enlarged, holds
    almost nothing there: cells would learn its softness in place of its content. No shorter side falls below
    `smallest_side` px.
    """
    best = 1
    room = min((min(image.shape[:2]) // max(smallest_side, 1) for image in images), default=1)
    spectra = [_spectrum(image) for image in images]
    for factor in range(2, min(LARGEST_REDUCTION, room) + 1):
        lost = float(np.median([power[frequency > 0.5 / factor].sum() for power, frequency in spectra]))
        if lost > MOST_LOST:
            break
        best = factor
    return best


def _spectrum(image: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the variance at each frequency, and its larger component in cycles per px."""
    height, width = (min(side, WINDOW_PX) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    gray = image[top : top + height, left : left + width].mean(axis=2)
    taper = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.fft2((gray - gray.mean()) * taper)) ** 2
    frequency = np.maximum(np.abs(np.fft.fftfreq(height))[:, None], np.abs(np.fft.fftfreq(width)))
    total = power.sum()
    return (power / total if total > 0 else power), frequency


def near_duplicates(images: ImageSet) -> tuple[tuple[str, str], ...]:
    """Return pairs of names of images whose coarse outlines are nearly equal."""
    chosen, names = _evenly(len(images), MOST_COMPARED), images.names
    outlines = np.array([_outline(images[index]) for index in chosen])
    packed = np.packbits(outlines, axis=1)
    pairs = []
    for row, outline in enumerate(packed[:-1]):
        apart = np.bitwise_count(packed[row + 1 :] ^ outline).sum(axis=1)
        pairs += [(row, row + 1 + int(other)) for other in np.flatnonzero(apart <= MOST_BITS_APART)]
    return tuple((names[chosen[one]], names[chosen[other]]) for one, other in pairs)


def _outline(image: Pixels) -> Bool[np.ndarray, " bits"]:
    """Return where a small gray copy grows brighter to the right (a difference hash)."""
    gray: UInt8[np.ndarray, "h w"] = image.mean(axis=2).astype(np.uint8)
    small = Image.fromarray(gray).resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    return (np.diff(np.asarray(small, np.int16), axis=1) > 0).reshape(-1)


def _evenly(count: int, most: int) -> list[int]:
    """Return up to `most` indices, evenly spread below `count`."""
    return (np.arange(min(count, most)) * count // min(count, most)).tolist() if count else []
