"""The style of a picture: the colours of its stain or its light, and its texture, as a few numbers.

| number | of a picture | unit |
|---|---|---|
| `red`, `green`, `blue`, or `gray` | the mean of a channel | from -1 (black) to 1, as models see pixels |
| `fine` | how much brightness differs between neighbouring pixels | log2(1 + levels of 8 bits) |
| `coarse` | how much brightness differs between neighbouring squares of 8 px | log2(1 + levels of 8 bits) |
| `hues` | how much colours besides brightness differ between these squares | log2(1 + levels of 8 bits) |

Brightness is the mean of the channels; a difference is the root of the mean square over all pairs. Each
number is a mean over places, so none depends on the size of the picture, in expectation. (The deviation of
all pixels would grow with it.) Pixels are as the model sees them: after `data.reduce`.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64

from diffnca.data.decoding import Pixels

Style = tuple[float, ...]
"""The numbers of a style, in the order of `LayoutConfig.style_numbers`."""

SQUARE_PX = 8

BAND_PX = 512
"""Rows that are measured at once, so that a large picture takes little memory."""

DIGITS = 4

MOST_KEPT = 64
"""Number of training images whose styles a model keeps."""


def style_of(pixels: Pixels, known: Bool[np.ndarray, "h w"] | None = None) -> Style | None:
    """Return the style of a picture, or of its known pixels.

    Return `None` for a picture without two known squares side by side.
    """
    known = np.ones(pixels.shape[:2], dtype=bool) if known is None else known
    bands = [slice(first, first + BAND_PX) for first in range(0, len(pixels), BAND_PX)]
    sums = np.sum([_sums(pixels[band], known[band]) for band in bands], axis=0)
    if not sums[:, 1].all():
        return None
    means, colours = sums[:, 0] / sums[:, 1], pixels.shape[2]
    tones, differences = means[:colours] / 127.5 - 1.0, np.log2(1.0 + np.sqrt(means[colours:]))
    return tuple(round(float(each), DIGITS) for each in (*tones, *differences))


def _sums(pixels: Pixels, known: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "s 2"]:
    """Return sums over the known places, and their number: of channels, and of squared differences."""
    seen = known.astype(np.float32)
    planes = np.moveaxis(pixels, 2, 0).astype(np.float32)
    squares, seen_squares = _in_squares(planes), (_in_squares(seen[None])[0] == 1.0).astype(np.float32)
    brightness, bright_squares = (each.mean(axis=0, keepdims=True) for each in (planes, squares))
    tones = [(_total(plane * seen), _total(seen)) for plane in planes]
    differences = [_squared(brightness, seen), _squared(bright_squares, seen_squares)]
    if len(planes) > 1:
        differences.append(_squared(squares - bright_squares, seen_squares))
    return np.array([*tones, *differences])


def _in_squares(planes: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c y x"]:
    """Return the means over squares; a rest at the bottom and at the right is dropped."""
    height, width = (side // SQUARE_PX for side in planes.shape[1:])
    whole = planes[:, : height * SQUARE_PX, : width * SQUARE_PX]
    rows = whole.reshape(len(planes), height, SQUARE_PX, width * SQUARE_PX).mean(axis=2)
    squares: Float32[np.ndarray, "c y x"] = rows.reshape(len(planes), height, width, SQUARE_PX).mean(axis=3)
    return squares


def _squared(planes: Float32[np.ndarray, "c h w"], seen: Float32[np.ndarray, "h w"]) -> tuple[float, float]:
    """Return the sum of squared differences between seen neighbours, and the number of these pairs."""
    total, count = 0.0, 0.0
    for axis in (0, 1):
        later, sooner = (slice(1, None), slice(None, -1)) if axis == 0 else (np.s_[:, 1:], np.s_[:, :-1])
        pairs = seen[later] * seen[sooner]
        total += sum(_total(np.square(plane[later] - plane[sooner]) * pairs) for plane in planes)
        count += _total(pairs) * len(planes)
    return total, count


def _total(values: Float32[np.ndarray, "h w"]) -> float:
    return float(values.sum(dtype=np.float64))


def kept(styles: Float32[np.ndarray, "n s"]) -> tuple[float, ...]:
    """Return what a model keeps of the styles of its images: of some, evenly spread, all numbers in a row."""
    count = min(len(styles), MOST_KEPT)
    some = styles[[number * len(styles) // count for number in range(count)]]
    return tuple(round(float(each), DIGITS) for each in some.ravel())
