"""A set of images to train on, checked when it is opened so that nothing fails in the middle of a run."""

import itertools
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from diffnca.config.model import Config
from diffnca.data.decoding import NEARLY_WHITE, Pixels
from diffnca.data.labels import Labels
from diffnca.data.layouts import Layouts
from diffnca.data.refusals import UnusableImageError
from diffnca.data.slides import tiles_of
from diffnca.data.sources import File, Listing, Remark, Source, is_slide, listed
from diffnca.data.styles import Style, style_of
from diffnca.errors import require
from diffnca.progress import Report, unseen

MAX_DECODING_THREADS = 8


class Checked(NamedTuple):
    """An image: its height and width, `None` if it cannot be used; its style, if measured; and remarks."""

    source: Source
    size: tuple[int, int] | None
    style: Style
    remarks: list[Remark]


class ImageCache:
    """Decoded images within a budget (0 holds none), for threads; the least recently used leaves first."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes, self.used_bytes = budget_bytes, 0
        self._images: dict[Hashable, Pixels] = {}  # the most recently used image is the last
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Pixels | None:
        """Return the image, or `None` if it is not held."""
        with self._lock:
            image = self._images.pop(key, None)
            if image is not None:
                self._images[key] = image
            return image

    def put(self, key: Hashable, image: Pixels) -> None:
        """Hold `image`, read-only, unless it alone exceeds the budget; drop others until all fit."""
        image.flags.writeable = False
        with self._lock:
            self._drop(key)
            if image.nbytes > self.budget_bytes:
                return
            while self.used_bytes + image.nbytes > self.budget_bytes:
                self._drop(next(iter(self._images)))
            self._images[key] = image
            self.used_bytes += image.nbytes

    def _drop(self, key: Hashable) -> None:
        image = self._images.pop(key, None)
        self.used_bytes -= 0 if image is None else image.nbytes


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, uint8 `h w c`, read-only; images that the cache does not hold are decoded again.

    Attributes:
        sizes: height and width of each image.
        labels: what is known of each complete image: 1 for its label, 0 for all others; no columns for images
            without labels.
        styles: the style of each image; no columns for images whose style was not measured.
        channels: 1 for gray, 3 for RGB.
        planes: number of planes of the layouts of the images; 0 for images without layouts.
        skipped: what was found but cannot be used, and why; a split keeps these remarks.
        notes: what a user should know of the images that are used.
    """

    sources: tuple[Source, ...]
    sizes: Int64[np.ndarray, "n 2"]
    labels: Float32[np.ndarray, "n l"]
    styles: Float32[np.ndarray, "n s"]
    cache: ImageCache
    channels: int
    reduce: int
    skipped: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()
    planes: int = 0

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Pixels:
        """Return image `index`; raises `ValueError` if the file is no longer as it was at the start."""
        labelled = self.labelled(index)
        return labelled[..., : self.channels] if self.planes else labelled

    def labelled(self, index: int) -> Pixels:
        """Return image `index`, and after its channels the planes of its layout; raises as for the image."""
        source = self.sources[index]
        image = self.cache.get(source)
        if image is None:
            try:
                image, _ = source.read(channels=self.channels, reduce=self.reduce)
            except (OSError, UnusableImageError) as error:
                raise ValueError(
                    f"{source.name}: could be read at the start and cannot now ({error})"
                ) from None
            if image.shape[:2] != tuple(self.sizes[index].tolist()):
                raise ValueError(f"{source.name}: has changed its size since it was opened; start again")
            self.cache.put(source, image)
        return image

    def chosen(self, indices: Sequence[int]) -> "ImageSet":
        """Return some of the images."""
        sources, labels = tuple(self.sources[index] for index in indices), self.labels[indices]
        sizes, styles = self.sizes[indices], self.styles[indices]
        return replace(self, sources=sources, sizes=sizes, labels=labels, styles=styles)

    def __iter__(self) -> Iterator[Pixels]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image: its path inside the folder or zip file."""
        return tuple(source.name for source in self.sources)

    @property
    def fingerprint(self) -> str:
        """A hash of names, stored bytes, sizes and labels; it does not depend on where the data lie."""
        told = (f"\0{row.argmax()}" if row.size else "" for row in self.labels)
        lines = (
            f"{source.name}\0{source.num_bytes}\0{height}x{width}{label}\n"
            for source, (height, width), label in zip(self.sources, self.sizes, told, strict=True)
        )
        return sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def images_for(
    config: Config,
    paths: Sequence[Path],
    *,
    layouts: Sequence[Path] = (),
    labels: str | None = None,
    strict: bool = False,
    report: Report = unseen,
) -> ImageSet:
    """Open images, and the layouts and labels that belong to them, as the training of `config` sees them."""
    data = config.data
    return open_images(
        paths,
        reduce=data.reduce,
        cache_bytes=data.cache_bytes,
        max_background=data.max_background,
        min_size=data.crop,
        strict=strict,
        channels=config.model.image_channels,
        microns_per_px=data.microns_per_px,
        layouts=Layouts(layouts, config.layout) if layouts else None,
        labels=None if labels is None else Labels.of(labels, paths, config.layout.labels),
        has_style=config.layout.style,
        report=report,
    )


def open_images(
    paths: Sequence[str | Path],
    *,
    reduce: int = 1,
    cache_bytes: int = 2 << 30,
    max_background: float = 1.0,
    background_level: int = NEARLY_WHITE,
    min_size: int = 1,
    strict: bool = False,
    channels: int = 3,
    microns_per_px: float | None = None,
    at_most: int | None = None,
    layouts: Layouts | None = None,
    labels: Labels | None = None,
    has_style: bool = False,
    report: Report = unseen,
) -> ImageSet:
    """Find, decode and check images, once, so that damaged images show now and not in the middle of a run.

    Args:
        paths: folders (searched recursively), zip files, images, slides.
        reduce: integer factor by which images (not slides) are made smaller.
        cache_bytes: memory for decoded images; others are decoded whenever they are needed.
        max_background: images with a larger share of background pixels, in [0, 1], are skipped.
        background_level: a pixel is background if all its channels are at least this bright, 0 to 255.
        min_size: smallest side of an image after the reduction, at least the side of the crops.
        strict: stop at the first image that cannot be used, instead of skipping it.
        channels: 1 for gray, 3 for RGB; images of the other kind are converted.
        microns_per_px: scale of slides; with a scale, tiled TIFF pyramids are slides too.
        at_most: number of images to open, evenly spread among all; `None` opens all.
        layouts: label images; an image without one is skipped. `None` for images alone.
        labels: labels of complete images; an image without one is skipped. `None` for images alone.
        has_style: measure the style of each image; an image that is too small for that is skipped.
        report: is called with the number of decoded images.
    """
    _check_choices(reduce, max_background, channels, microns_per_px)
    cache = ImageCache(cache_bytes)

    def check(source: Source) -> Checked:
        try:
            pixels, notes = source.read(channels=channels, reduce=reduce)
            _require_usable(pixels[..., :channels], min_size, max_background, background_level)
            style = _style_of(pixels[..., :channels]) if has_style else ()
        except (OSError, UnusableImageError) as error:
            return Checked(source, None, (), [_refusal(source.name, error, strict)])
        cache.put(source, pixels)
        return Checked(source, pixels.shape[:2], style, [Remark(source.name, note) for note in notes])

    places = [Path(path) for path in paths]
    listing = listed(places)
    sources = _sources(listing, microns_per_px, background_level, min_size, strict)
    sources = _with_layouts(sources, layouts, listing, strict)
    sources = _some(_with_labels(sources, labels, listing, strict), at_most)
    checked = _in_threads(check, sources, report)
    skipped = _skipped(places, listing, checked)
    used, sizes, styles, remarks = zip(*(each for each in checked if each.size), strict=True)
    planes = 0 if layouts is None else len(layouts.legend.classes)
    told = np.zeros((len(used), 0), np.float32) if labels is None else labels.shares(used)
    known, notes = (np.array(sizes), told, np.array(styles, np.float32)), tuple(itertools.chain(*remarks))
    return ImageSet(used, *known, cache, channels, reduce, skipped, notes, planes)


def _check_choices(reduce: int, max_background: float, channels: int, microns_per_px: float | None) -> None:
    require(reduce >= 1, "reduce", reduce, "an integer >= 1")
    require(0.0 <= max_background <= 1.0, "max_background", max_background, "a share in [0, 1]")
    require(channels in (1, 3), "channels", channels, "1 (gray) or 3 (RGB)")
    is_scale = microns_per_px is None or 0.0 < microns_per_px < float("inf")
    require(is_scale, "microns_per_px", microns_per_px, "> 0, for example 1.0")


def _refusal(name: str, error: Exception, strict: bool) -> Remark:
    if strict:
        raise ValueError(f"{name}: {error}") from None
    return Remark(name, str(error))


def _require_usable(image: Pixels, min_size: int, max_background: float, background_level: int) -> None:
    height, width, _ = image.shape
    if min(height, width) < min_size:
        raise UnusableImageError(
            f"too small: {width}x{height} px after any reduction; at least {min_size} are needed"
        )
    if max_background < 1.0:
        share = float((image >= background_level).all(axis=2).mean())
        if share > max_background:
            raise UnusableImageError(
                f"mostly background: {share:.1%} of it is as bright as {background_level}; "
                f"at most {max_background:.1%} is allowed"
            )


def _style_of(image: Pixels) -> Style:
    """Return the style of an image; refuse one that is too small."""
    style = style_of(image)
    if style is None:
        height, width, _ = image.shape
        raise UnusableImageError(f"too small: {width}x{height} px have no style; at least 16x16 are needed")
    return style


def _sources(
    listing: Listing, microns_per_px: float | None, background_level: int, min_size: int, strict: bool
) -> list[Source]:
    """Return the images of a listing, a slide being many; add slides that cannot be used to its left-out."""
    sources: list[Source] = []
    for file in listing.files:
        try:
            is_many = is_slide(file, microns_per_px)
            sources += tiles_of(file, microns_per_px, background_level, min_size) if is_many else [file]
        except UnusableImageError as error:
            listing.left_out.append(_refusal(file.name, error, strict))
    return sources


def _with_layouts(
    sources: list[Source], layouts: Layouts | None, listing: Listing, strict: bool
) -> list[Source]:
    """Return the images with their layouts; add images without one to what the listing has left out."""
    if layouts is None:
        return sources
    files = [source for source in sources if isinstance(source, File)]
    if len(files) < len(sources):
        raise ValueError("--layouts: must be of images, not of slides; export parts of the slides as images")
    files, labelled = layouts.without_own(files), list[Source]()
    for file, found in zip(files, layouts.of(files), strict=True):
        if isinstance(found, UnusableImageError):
            listing.left_out.append(_refusal(file.name, found, strict))
        else:
            labelled.append(found)
    return labelled


def _with_labels(
    sources: list[Source], labels: Labels | None, listing: Listing, strict: bool
) -> list[Source]:
    """Return the images with a label; add images without one to what the listing has left out."""
    if labels is None:
        return sources
    for name in dict.fromkeys(source.picture for source in sources if not labels.has(source)):
        listing.left_out.append(_refusal(name, UnusableImageError(labels.missing), strict))
    return [source for source in sources if labels.has(source)]


def _some(sources: list[Source], at_most: int | None) -> list[Source]:
    if at_most is None or len(sources) <= at_most:
        return sources
    return [sources[number * len(sources) // at_most] for number in range(at_most)]


def _in_threads(
    check: Callable[[Source], Checked], sources: Sequence[Source], report: Report
) -> list[Checked]:
    results: list[Checked] = []
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_DECODING_THREADS))
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's remarks on odd files; what matters raises
            for result in pool.map(check, sources):
                results.append(result)
                report("decoding images", float(len(results)), float(len(sources)))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _skipped(paths: Sequence[Path], listing: Listing, checked: Sequence[Checked]) -> tuple[Remark, ...]:
    """Return what was found but cannot be used; refuse a set without images."""
    refused = (remark for each in checked if not each.size for remark in each.remarks)
    skipped = (*listing.left_out, *refused)
    if not any(each.size for each in checked):
        raise ValueError(_nothing_left(paths, skipped))
    return skipped


def _nothing_left(paths: Sequence[Path], skipped: Sequence[Remark]) -> str:
    where = ", ".join(str(path) for path in paths) or "(no path)"
    if not skipped:
        return f"{where}: no images found; give a folder, a zip file, images (PNG, JPEG, TIFF) or slides"
    first = skipped[0]
    return f"{where}: none of {len(skipped)} images can be used; the first, {first.name}: {first.text}"
