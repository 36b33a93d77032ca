"""Statistics of glands (or other things) in masks: how many there are, how large, how round."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from skimage import measure

from diffnca.evaluation.metrics.distances import PICTURES_FOR_AN_ERROR, with_error


@dataclass(frozen=True)
class Glands:
    """The things in the mask of one picture.

    Attributes:
        per_mm2: their number on a square millimetre.
        areas: square micrometres of each that does not touch an edge, holes filled.
        roundness: 4 pi area / perimeter^2 of each of these; 1 for a disc.
    """

    per_mm2: float
    areas: tuple[float, ...]
    roundness: tuple[float, ...]


def glands_in(mask: np.ndarray, microns_per_px: float, smallest_um2: float) -> Glands:
    """Return the connected parts of a mask of at least this area.

    Parts that touch the top or the left edge do not count for the number: pictures side by side then count
    each thing once.
    """
    height, width = mask.shape
    parts = [
        part
        for part in measure.regionprops(measure.label(mask, connectivity=1))
        if part.area * microns_per_px**2 >= smallest_um2
    ]
    counted = [part for part in parts if min(part.bbox[:2]) > 0]
    complete = [part for part in counted if part.bbox[2] < height and part.bbox[3] < width]
    return Glands(
        len(counted) / (height * width * microns_per_px**2 / 1e6),
        tuple(float(part.area_filled) * microns_per_px**2 for part in complete),
        tuple(_roundness(part.image_filled) for part in complete),
    )


def _roundness(part: np.ndarray) -> float:
    around = float(measure.perimeter_crofton(part, directions=4))
    return min(4.0 * math.pi * float(part.sum()) / around**2, 1.0)


def cells_of(pictures: Sequence[Sequence[Glands]]) -> list[str]:
    """Return number, area and roundness as cells of a table; a picture may have several masks."""
    return [
        mean_with_error([[each.per_mm2 for each in masks] for masks in pictures], 0),
        mean_with_error([[area for each in masks for area in each.areas] for masks in pictures], 0),
        mean_with_error([[value for each in masks for value in each.roundness] for masks in pictures], 2),
    ]


def mean_with_error(groups: Sequence[Sequence[float]], digits: int) -> str:
    """Return the mean of all numbers as text, with the error of a jackknife over their groups (pictures)."""
    sums, counts = (np.array([float(f(each)) for each in groups if len(each)]) for f in (sum, len))
    if not len(sums):
        return "-"
    mean, n = sums.sum() / counts.sum(), len(sums)
    if n < PICTURES_FOR_AN_ERROR:
        return with_error(mean, None, digits)
    without = (sums.sum() - sums) / (counts.sum() - counts)
    return with_error(mean, math.sqrt(((without - without.mean()) ** 2).sum() * (n - 1) / n), digits)
