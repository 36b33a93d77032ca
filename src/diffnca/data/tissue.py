"""Where a slide holds tissue.

[1] Otsu (1979), A threshold selection method from gray-level histograms.
"""

import numpy as np
from jaxtyping import Bool, UInt8

_DARK, _BLACK = 150, 10
_COLOURED = (10, 30)
"""Bounds of the least saturation (largest minus smallest channel) of coloured pixels."""


def tissue(overview: UInt8[np.ndarray, "h w 3"], background_level: int) -> Bool[np.ndarray, "h w"]:
    """Tell which pixels of an RGB overview are tissue: coloured or dark pixels.

    Otsu's method [1] finds the saturation of coloured pixels within narrow bounds, as a slide may hold only
    tissue. Black pixels and pixels as bright as `background_level` are no tissue.
    """
    brightest, darkest = overview.max(axis=2), overview.min(axis=2)
    saturation = brightest - darkest
    coloured = saturation >= np.clip(_otsu(saturation), *_COLOURED)
    dark = overview.mean(axis=2) < _DARK
    result: Bool[np.ndarray, "h w"] = (coloured | dark) & (brightest > _BLACK) & (darkest < background_level)
    return result


def _otsu(values: UInt8[np.ndarray, "h w"]) -> int:
    """Return the value at which the upper class begins in the best separation of `values`."""
    histogram = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(histogram)
    total_below = np.cumsum(histogram * np.arange(256))
    above, total_above = below[-1] - below, total_below[-1] - total_below
    with np.errstate(invalid="ignore", divide="ignore"):
        # [1] Eq. 18, times a constant
        separation = below * above * (total_below / below - total_above / above) ** 2
    return int(np.nanargmax(np.where(below * above > 0, separation, 0.0))) + 1
