"""The levels of a pyramid: each half as large as the one before, as means of 2x2 pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

SMALLEST_PX = 256
"""The last level is the first one whose longer side is at most this."""


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return height and width of each level, the image itself first; odd sides are rounded up."""
    shapes = [(height, width)]
    while max(shapes[-1]) > SMALLEST_PX:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def halved(pixels: UInt8[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "c y x"]:
    """Return the means of 2x2 pixels, halves rounded up; at an odd edge, of the pixels that are there."""
    padded = np.pad(pixels, [(0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)], mode="edge")
    sums = padded.astype(np.uint16)
    sums = sums[:, ::2] + sums[:, 1::2]
    sums = sums[:, :, ::2] + sums[:, :, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)
