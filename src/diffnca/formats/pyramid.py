"""Levels of a pyramid: each level has the means of 2x2 pixels of the level before; what OME says of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

UNFINISHED = "is not finished; the command that makes it goes on with it"


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return height and width of each level, the image first, down to 256 px; halves are rounded up."""
    shapes = [(height, width)]
    while max(shapes[-1]) > 256:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def halved(pixels: UInt8[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "c y x"]:
    """Return the means of 2x2 pixels, rounded half up; at an odd edge, the means of the existing pixels."""
    padded = np.pad(pixels, [(0, 0), (0, pixels.shape[1] % 2), (0, pixels.shape[2] % 2)], mode="edge")
    sums = padded.astype(np.uint16)
    sums = sums[:, ::2] + sums[:, 1::2]
    sums = sums[:, :, ::2] + sums[:, :, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


def microns_of(multiscale: Mapping[str, Any]) -> float | None:
    """Return the width of a pixel of the first level (NGFF 0.5); `None` if it is not given in micrometres."""
    if multiscale["axes"][-1].get("unit") != "micrometer":
        return None
    microns = 1.0
    for part in (multiscale["datasets"][0], multiscale):
        for transformation in part.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale":
                microns *= float(transformation["scale"][-1])
    return microns if microns > 0.0 else None
