"""Slides: the tiles that hold tissue, each an image at a chosen scale.

tiffslide (the extra `slides`) reads the level just finer than the chosen scale; Lanczos resizes it.

[1] Otsu (1979), A threshold selection method from gray-level histograms.
"""

import threading
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from diffnca.data.decoding import Decoded, Pixels, of_samples, to_array
from diffnca.data.refusals import LARGEST_IMAGE_PX, UnusableImageError, refusing, require_content
from diffnca.data.sources import File
from diffnca.data.tiff import microns_in, positive

SMALLEST_TISSUE_SHARE = 0.5
_TILE_PX = 512
_OVERVIEW_FACTOR = 32
_LANCZOS_RADIUS = 3
_DARK, _BLACK = 150, 10
_COLOURED = (10, 30)
"""Bounds of the least saturation (largest minus smallest channel) of coloured pixels."""


class Levels:
    """The levels of a tiled pyramid in a TIFF file.

    Attributes:
        sizes: height and width of each level, the finest first.
        microns: height and width of a pixel of the finest level; `None` if unknown.
        channels: 1 for gray, 3 for RGB.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; raises `UnusableImageError`, and `ValueError` if tiffslide is missing."""
        try:
            import tiffslide  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            raise ValueError(f"{path}: slides need tiffslide: pip install 'diffnca[slides]'") from None
        with refusing("unreadable as a slide"), warnings.catch_warnings(action="ignore"):
            with path.open("rb") as file:
                require_content(file.read(256))
            self._slide: Any = tiffslide.TiffSlide(path)
            weakref.finalize(self, self._slide.close)
            self.sizes = tuple((int(h), int(w)) for w, h in self._slide.level_dimensions)
            self.microns = _microns_of(self._slide.properties)
            series = self._slide.ts_tifffile.series[self._slide.properties["tiffslide.series-index"]]
            self._pages: list[Any] = [level.keyframe for level in series.levels]
            self._has_gaps = [0 in page.databytecounts for page in self._pages]
            is_alpha = self._pages[0].extrasamples[:1] in ((1,), (2,))
            self._kept = 4 if is_alpha or self._pages[0].samplesperpixel < 4 else 3
            corner = self._slide.read_region((0, 0), len(self.sizes) - 1, (1, 1), as_array=True)
            of_samples(np.asarray(corner)[..., : self._kept], 3)
            self.channels = 1 if corner.shape[2] == 1 else 3
        self._lock = threading.Lock()

    def read(self, level: int, rows: slice, columns: slice, channels: int) -> Image.Image:
        """Read a box in pixels of a level as gray (1 channel) or RGB (3), by one thread at a time."""
        factor = self._slide.level_downsamples[level]
        # tiffslide wants the corner in pixels of level 0, divides again and rounds down
        corner = [at if level == 0 else ceil(at * factor + 1e-6) for at in (columns.start, rows.start)]
        size = (columns.stop - columns.start, rows.stop - rows.start)
        with refusing(f"unreadable at level {level}"):
            with self._lock:
                samples = np.asarray(self._slide.read_region(corner, level, size, as_array=True))
            if self._has_gaps[level]:
                samples = self._without_gaps(samples, level, rows, columns)
            return of_samples(samples[..., : self._kept], channels)

    def finer_than(self, factor: float) -> int:
        """Return the coarsest level whose pixels are at most `factor` pixels of the finest level wide."""
        return int(self._slide.get_best_level_for_downsample(factor))

    def _without_gaps(self, samples: np.ndarray, level: int, rows: slice, columns: slice) -> np.ndarray:
        """Make white what was not scanned: tiles without a byte, which tiffslide reads as black."""
        page, samples = self._pages[level], samples.copy()
        height, width = page.rowsperstrip, page.imagewidth
        if page.is_tiled:
            height, width = page.tilelength, page.tilewidth
        across = -(-page.imagewidth // width)
        for row in range(rows.start // height, -(-rows.stop // height)):
            for column in range(columns.start // width, -(-columns.stop // width)):
                if page.databytecounts[row * across + column] == 0:
                    top, left = max(row * height - rows.start, 0), max(column * width - columns.start, 0)
                    bottom, right = (row + 1) * height - rows.start, (column + 1) * width - columns.start
                    samples[top:bottom, left:right] = np.iinfo(samples.dtype).max
        return samples


def _microns_of(properties: Any) -> tuple[float, float] | None:
    y, x = (positive(properties.get(f"tiffslide.mpp-{axis}")) for axis in "yx")
    if x is None or y is None:
        return microns_in(str(properties.get("tiff.ImageDescription") or ""))
    return y, x


class Slide:
    """A slide at a chosen scale; its `height` and `width` are in pixels at this scale."""

    def __init__(self, path: Path, microns_per_px: float) -> None:
        """Open the slide; raises `UnusableImageError`, also where the slide is coarser than the scale."""
        self._levels = Levels(path)
        if self._levels.microns is None:
            raise UnusableImageError(
                "its resolution is unknown; write it into the file (the TIFF tags XResolution, YResolution "
                "and ResolutionUnit), or export regions of it as PNG and train on those"
            )
        um_y, um_x = self._um = self._levels.microns
        if microns_per_px < 0.99 * max(um_x, um_y):
            raise UnusableImageError(
                f"its pixels are {max(um_x, um_y):.4g} um wide; microns_per_px={microns_per_px} would "
                f"enlarge them; take {max(um_x, um_y):.4g} or more"
            )
        base_height, base_width = self._levels.sizes[0]
        self.width = floor(base_width * um_x / microns_per_px)
        self.height = floor(base_height * um_y / microns_per_px)
        if min(self.height, self.width) < 1:
            raise UnusableImageError(f"too small: less than a pixel at microns_per_px={microns_per_px}")
        self._microns_per_px = microns_per_px

    def read(self, top: int, left: int, height: int, width: int, *, channels: int) -> Pixels:
        """Return a region in pixels at the chosen scale: a crop of the slide resized at once."""
        level, scale_y, scale_x = self._level(1.0)
        level_height, level_width = self._levels.sizes[level]
        rows, upper, lower = _span(top, top + height, scale_y, level_height)
        columns, near, far = _span(left, left + width, scale_x, level_width)
        image = self._levels.read(level, rows, columns, channels)
        box = (near, upper, far, lower)
        return to_array(image.resize((width, height), Image.Resampling.LANCZOS, box))

    def overview(self) -> Pixels:
        """Return the slide in RGB, 32 times smaller than at the chosen scale."""
        level, _, _ = self._level(float(_OVERVIEW_FACTOR))
        height, width = self._levels.sizes[level]
        if height * width > LARGEST_IMAGE_PX:
            raise UnusableImageError("has no small levels for an overview; save it as a pyramid first")
        image = self._levels.read(level, slice(0, height), slice(0, width), channels=3)
        size = ceil(self.width / _OVERVIEW_FACTOR), ceil(self.height / _OVERVIEW_FACTOR)
        return to_array(image.resize(size, Image.Resampling.BOX))

    def _level(self, factor: float) -> tuple[int, float, float]:
        """Return the coarsest level finer than `factor` pixels, and its pixels per pixel (y, x)."""
        wanted = [factor * self._microns_per_px / um for um in self._um]
        level = self._levels.finer_than(1.01 * min(wanted))
        (height, width), (base_height, base_width) = self._levels.sizes[level], self._levels.sizes[0]
        return level, wanted[0] * height / base_height, wanted[1] * width / base_width


def _span(start: int, stop: int, scale: float, length: int) -> tuple[slice, float, float]:
    margin = ceil(_LANCZOS_RADIUS * scale) + 1
    first = max(floor(start * scale) - margin, 0)
    last = min(ceil(stop * scale) + margin, length)
    return slice(first, last), start * scale - first, min(stop * scale, length) - first


@dataclass(frozen=True)
class SlideTile:
    """A part of a slide, as one image."""

    path: Path
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

    def read(self, *, channels: int, reduce: int) -> Decoded:
        """Read the tile; `reduce` is for images without a scale and has no effect on slides."""
        return Decoded(self.slide.read(self.top, self.left, self.height, self.width, channels=channels))


def tiles_of(
    file: File, microns_per_px: float | None, background_level: int, min_size: int
) -> Iterator[SlideTile]:
    """Yield tiles of a slide that do not overlap; at least half of each tile is tissue."""
    if file.member is not None:
        raise UnusableImageError("slides are not read from zip files; unpack it")
    if microns_per_px is None:
        raise ValueError(
            f"{file.name}: a slide needs a scale; give it, for example --scale 1um to look and to train, "
            "else microns_per_px=1.0"
        )
    slide = Slide(file.path, microns_per_px)
    is_tissue = tissue(slide.overview(), background_level)
    side = max(_TILE_PX, 4 * min_size)
    has_tiles = False
    for top, left in product(range(0, slide.height, side), range(0, slide.width, side)):
        height, width = min(side, slide.height - top), min(side, slide.width - left)
        rows = slice(top // _OVERVIEW_FACTOR, ceil((top + height) / _OVERVIEW_FACTOR))
        columns = slice(left // _OVERVIEW_FACTOR, ceil((left + width) / _OVERVIEW_FACTOR))
        if min(height, width) >= min_size and is_tissue[rows, columns].mean() >= SMALLEST_TISSUE_SHARE:
            has_tiles = True
            yield SlideTile(file.path, file.name, slide, top, left, height, width, file.num_bytes)
    if not has_tiles:
        raise UnusableImageError(f"holds no tile of at least {min_size} px of which half is tissue")


def tissue(overview: UInt8[np.ndarray, "h w 3"], background_level: int) -> Bool[np.ndarray, "h w"]:
    """Tell which pixels of an RGB overview are tissue: coloured or dark, but not black or background.

    Otsu's method [1] finds the least saturation, within bounds, as a slide may hold only tissue.
    """
    brightest, darkest = overview.max(axis=2), overview.min(axis=2)
    saturation = brightest - darkest
    coloured = saturation >= np.clip(_otsu(saturation), *_COLOURED)
    dark = overview.mean(axis=2) < _DARK
    result: Bool[np.ndarray, "h w"] = (coloured | dark) & (brightest > _BLACK) & (darkest < background_level)
    return result


def _otsu(values: UInt8[np.ndarray, "h w"]) -> int:
    histogram = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(histogram)
    total_below = np.cumsum(histogram * np.arange(256))
    above, total_above = below[-1] - below, total_below[-1] - total_below
    with np.errstate(invalid="ignore", divide="ignore"):
        # [1] Eq. 18, times a constant
        separation = below * above * (total_below / below - total_above / above) ** 2
    return int(np.nanargmax(np.where(below * above > 0, separation, 0.0))) + 1
