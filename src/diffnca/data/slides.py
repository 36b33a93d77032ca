"""Whole slides: the tiles that hold tissue, each an image at a chosen scale.

A slide is read with tiffslide (the extra `slides`), from the level just finer than the chosen scale, and
resized with Lanczos. Where tissue is, a small overview tells.
"""

import threading
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from diffnca.data.decoding import (
    LARGEST_IMAGE_PX,
    Pixels,
    UnusableImageError,
    first_line,
    from_16_bit,
    lanczos,
    to_array,
    to_plain,
)
from diffnca.data.sources import File, ZipMember
from diffnca.data.tissue import tissue

SMALLEST_TISSUE_SHARE = 0.5
_TILE_PX = 512
_OVERVIEW_FACTOR = 32
_LARGEST_UM = 100.0
"""Coarser scales come from a default such as 72 dots per inch and mean that the scale is unknown."""
_LANCZOS_RADIUS = 3


class Slide:
    """A slide at a chosen scale.

    Attributes:
        height: in pixels at this scale.
        width: in pixels at this scale.
    """

    def __init__(self, path: Path, microns_per_px: float) -> None:
        """Open the slide.

        Raises:
            UnusableImageError: it cannot be read, or its resolution is unknown or coarser than the scale.
        """
        self._slide = _open(path)
        weakref.finalize(self, self._slide.close)
        um_x, um_y = _resolution(self._slide)
        if microns_per_px < 0.99 * max(um_x, um_y):
            raise UnusableImageError(
                f"its pixels are {max(um_x, um_y):.4g} um wide; microns_per_px={microns_per_px} would "
                f"enlarge them; take {max(um_x, um_y):.4g} or more"
            )
        base_width, base_height = self._slide.dimensions
        self.width = floor(base_width * um_x / microns_per_px)
        self.height = floor(base_height * um_y / microns_per_px)
        self._microns_per_px = microns_per_px
        self._um = um_y, um_x
        self._lock = threading.Lock()

    def read(self, top: int, left: int, height: int, width: int, *, channels: int) -> Pixels:
        """Return a region, in pixels at the chosen scale; it is a crop of the whole slide resized at once."""
        level, scale_y, scale_x = self._level(1.0)
        level_width, level_height = self._slide.level_dimensions[level]
        margin_y, margin_x = ceil(_LANCZOS_RADIUS * scale_y) + 1, ceil(_LANCZOS_RADIUS * scale_x) + 1
        first_row = max(floor(top * scale_y) - margin_y, 0)
        first_column = max(floor(left * scale_x) - margin_x, 0)
        end_row = min(ceil((top + height) * scale_y) + margin_y, level_height)
        end_column = min(ceil((left + width) * scale_x) + margin_x, level_width)
        image = self._read_level(level, first_row, first_column, end_row, end_column, channels)
        box = (
            left * scale_x - first_column,
            top * scale_y - first_row,
            min((left + width) * scale_x, level_width) - first_column,
            min((top + height) * scale_y, level_height) - first_row,
        )
        return to_array(lanczos(image, width, height, box))

    def overview(self) -> Pixels:
        """Return the whole slide in RGB, 32 times smaller than at the chosen scale.

        Raises:
            UnusableImageError: the slide has no level that is small enough to be read as a whole.
        """
        level, _, _ = self._level(float(_OVERVIEW_FACTOR))
        level_width, level_height = self._slide.level_dimensions[level]
        if level_width * level_height > LARGEST_IMAGE_PX:
            raise UnusableImageError("has no small levels for an overview; save it as a pyramid first")
        image = self._read_level(level, 0, 0, level_height, level_width, channels=3)
        size = ceil(self.width / _OVERVIEW_FACTOR), ceil(self.height / _OVERVIEW_FACTOR)
        return to_array(image.resize(size, Image.Resampling.BOX))

    def _level(self, factor: float) -> tuple[int, float, float]:
        """Return the coarsest level finer than `factor` pixels, and its pixels per pixel (y, x)."""
        wanted = [factor * self._microns_per_px / um for um in self._um]
        level = self._slide.get_best_level_for_downsample(1.01 * min(wanted))
        width, height = self._slide.level_dimensions[level]
        base_width, base_height = self._slide.dimensions
        return level, wanted[0] * height / base_height, wanted[1] * width / base_width

    def _read_level(
        self, level: int, top: int, left: int, bottom: int, right: int, channels: int
    ) -> Image.Image:
        """Read a box in the pixels of a level."""
        downsample = self._slide.level_downsamples[level]
        # tiffslide wants the corner in pixels of level 0, divides again and rounds down
        corner = [place if level == 0 else ceil(place * downsample + 1e-6) for place in (left, top)]
        try:
            with self._lock:
                samples = self._slide.read_region(corner, level, (right - left, bottom - top), as_array=True)
            return _to_image(np.asarray(samples), channels)
        except UnusableImageError:
            raise
        except Exception as error:  # codecs raise whatever they like on damaged tiles
            raise UnusableImageError(f"unreadable at level {level}: {first_line(error)}") from None


@dataclass(frozen=True)
class SlideTile:
    """A part of a slide, as one image."""

    picture: str
    slide: Slide
    top: int
    left: int
    height: int
    width: int
    num_bytes: int

    @property
    def name(self) -> str:
        """The slide and the place."""
        return f"{self.picture}[{self.top},{self.left}]"

    def read(self, *, channels: int, reduce: int) -> Pixels:
        """Read the tile; `reduce` is for images without a scale and has no effect here."""
        return self.slide.read(self.top, self.left, self.height, self.width, channels=channels)


def tiles_of(
    file: File | ZipMember, microns_per_px: float | None, background_level: int, min_size: int
) -> Iterator[SlideTile]:
    """Yield the tiles of a slide of which at least half is tissue; they do not overlap.

    Raises:
        ValueError: `microns_per_px` is missing, or tiffslide.
        UnusableImageError: the slide cannot be read, or holds no tissue.
    """
    if isinstance(file, ZipMember):
        raise UnusableImageError("slides are not read from zip files; unpack it")
    if microns_per_px is None:
        raise ValueError(
            f"{file.name}: a slide needs a scale; give microns_per_px, for example 1.0 (--microns-per-px; to "
            "train, --data.microns-per-px)"
        )
    slide = Slide(file.path, microns_per_px)
    is_tissue = tissue(slide.overview(), background_level)
    side = max(_TILE_PX, 4 * min_size)
    found = False
    for top in range(0, slide.height, side):
        for left in range(0, slide.width, side):
            height, width = min(side, slide.height - top), min(side, slide.width - left)
            share = _share(is_tissue, top, left, height, width)
            if min(height, width) < min_size or share < SMALLEST_TISSUE_SHARE:
                continue
            found = True
            yield SlideTile(file.name, slide, top, left, height, width, file.num_bytes)
    if not found:
        raise UnusableImageError(f"holds no tile of at least {min_size} px of which half is tissue")


def _share(is_tissue: Bool[np.ndarray, "h w"], top: int, left: int, height: int, width: int) -> float:
    """Return the share of tissue in a region given in pixels of the slide's scale."""
    rows = slice(top // _OVERVIEW_FACTOR, ceil((top + height) / _OVERVIEW_FACTOR))
    columns = slice(left // _OVERVIEW_FACTOR, ceil((left + width) / _OVERVIEW_FACTOR))
    return float(is_tissue[rows, columns].mean())


def _open(path: Path) -> Any:
    try:
        import tiffslide  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ValueError(f"{path.name}: slides need tiffslide: pip install 'diffnca[slides]'") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            slide = tiffslide.TiffSlide(path)
            slide.properties  # noqa: B018  # parsed on first use
            return slide
    except Exception as error:  # tifffile raises whatever it likes on damaged files
        raise UnusableImageError(f"unreadable as a slide: {first_line(error)}") from None


def _resolution(slide: Any) -> tuple[float, float]:
    """Return the width and height of a pixel in micrometres."""
    values = [slide.properties.get(f"tiffslide.mpp-{axis}") for axis in "xy"]
    if any(value is None or not 0.0 < float(value) < _LARGEST_UM for value in values):
        raise UnusableImageError(
            "its resolution is unknown; write it into the file (the TIFF tags XResolution, YResolution and "
            "ResolutionUnit), or export regions of it as PNG and train on those"
        )
    return float(values[0]), float(values[1])


def _to_image(samples: np.ndarray, channels: int) -> Image.Image:
    """Turn samples `h w c` of 8 or 16 bits, gray, RGB or RGBA, into a plain image."""
    if samples.dtype == np.uint16:
        samples = from_16_bit(samples)
    if samples.dtype != np.uint8 or samples.shape[2] not in (1, 3, 4):
        raise UnusableImageError(
            f"{samples.shape[2]} channels of {samples.dtype}; slides must be gray or RGB, of 8 or 16 bits"
        )
    return to_plain(Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples), channels)
