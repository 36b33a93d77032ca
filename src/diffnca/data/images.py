"""A set of images to train on, checked when it is opened so that nothing fails in the middle of a run."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from diffnca.data.cache import ImageCache
from diffnca.data.decoding import Decoded, Pixels
from diffnca.data.refusals import UnusableImageError
from diffnca.data.slides import SlideTile, tiles_of
from diffnca.data.sources import File, Listing, Remark, is_slide, listed
from diffnca.progress import Report, unseen

MAX_DECODING_THREADS = 8

Source = File | SlideTile
"""One image, not yet read."""


@dataclass(frozen=True)
class Filter:
    """Which images are used.

    Attributes:
        min_size: smallest side in pixels, after the reduction.
        max_background: largest share of background pixels, in [0, 1].
        background_level: a pixel is background if all its channels are at least this bright, 0 to 255.
    """

    min_size: int = 1
    max_background: float = 1.0
    background_level: int = 220

    def require(self, image: Pixels) -> None:
        """Raise `UnusableImageError` with the reason if `image` is not to be used."""
        height, width, _ = image.shape
        if min(height, width) < self.min_size:
            raise UnusableImageError(
                f"too small: {width}x{height} px after any reduction; at least {self.min_size} are needed"
            )
        if self.max_background < 1.0:
            share = float((image >= self.background_level).all(axis=2).mean())
            if share > self.max_background:
                raise UnusableImageError(
                    f"mostly background: {share:.1%} of it is as bright as {self.background_level}; "
                    f"at most {self.max_background:.1%} is allowed"
                )


class ImageSet:
    """Images, uint8 `h w c`, read-only; decoded again where the cache does not hold them.

    Attributes:
        sizes: height and width of each image.
        channels: 1 for gray, 3 for RGB.
        skipped: what was found but is not used, and why.
        notes: what a user should know of images that are used.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        sizes: Int64[np.ndarray, "n 2"],
        read: Callable[[Source], Decoded],
        cache: ImageCache,
        channels: int,
        skipped: Sequence[Remark] = (),
        notes: Sequence[Remark] = (),
    ) -> None:
        """Make a set of `sources` with heights and widths `sizes`."""
        self._sources = tuple(sources)
        self._read = read
        self._cache = cache
        self.sizes = sizes
        self.channels = channels
        self.skipped, self.notes = tuple(skipped), tuple(notes)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._sources)

    def __getitem__(self, index: int) -> Pixels:
        """Return image `index`.

        Raises:
            ValueError: the image has been changed or removed since the set was opened.
        """
        source = self._sources[index]
        image = self._cache.get(source)
        if image is None:
            image = self._read_again(source, tuple(self.sizes[index].tolist()))
            self._cache.put(source, image)
        return image

    def __iter__(self) -> Iterator[Pixels]:
        """Yield the images one after the other."""
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each image: its path inside the folder or zip file."""
        return tuple(source.name for source in self._sources)

    @property
    def fingerprint(self) -> str:
        """A hash of names, stored bytes and sizes: it changes with the data, not with their place."""
        digest = hashlib.sha256()
        for source, (height, width) in zip(self._sources, self.sizes, strict=True):
            line = f"{source.name}\0{source.num_bytes}\0{height}x{width}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def split(self, validation_fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
        """Hold out whole images, and whole slides: return the training and the validation set.

        Names are ranked by a hash of `seed` and the name, so that a few more images hardly change which ones
        are held out.
        A fraction above 0 holds out one image at least.

        Raises:
            ValueError: the fraction is outside [0, 1), nothing would be left to train on, or two images have
                one name, so that nobody could tell later which one was held out.
        """
        if not 0.0 <= validation_fraction < 1.0:
            raise ValueError(f"validation fraction {validation_fraction}: must lie in [0, 1)")
        pictures = {source.picture for source in self._sources}
        count = max(round(len(pictures) * validation_fraction), int(validation_fraction > 0))
        if count >= len(pictures):
            raise ValueError(
                f"validation fraction {validation_fraction} of {len(pictures)} image(s) leaves none to train "
                "on; give more images or a fraction of 0"
            )
        if count:
            self._require_own_names()
        held_out = set(sorted(pictures, key=lambda name: _rank(seed, name))[:count])
        is_held_out = [source.picture in held_out for source in self._sources]
        return (
            self._subset([k for k, is_it in enumerate(is_held_out) if not is_it]),
            self._subset([k for k, is_it in enumerate(is_held_out) if is_it]),
        )

    def _require_own_names(self) -> None:
        for name, count in Counter(self.names).items():
            if count > 1:
                raise ValueError(
                    f"{name}: {count} images have this name, so they cannot be told apart when some are held "
                    "out; give the folder above them, or hold out none"
                )

    def _subset(self, indices: Sequence[int]) -> ImageSet:
        """Return some of the images, with the same cache."""
        return ImageSet(
            [self._sources[i] for i in indices],
            self.sizes[np.asarray(indices, dtype=np.int64)],
            self._read,
            self._cache,
            self.channels,
        )

    def _read_again(self, source: Source, size: tuple[int, ...]) -> Pixels:
        try:
            image, _ = self._read(source)
        except (OSError, UnusableImageError) as error:
            raise ValueError(f"{source.name}: could be read at the start and cannot now ({error})") from None
        if image.shape[:2] != size:
            raise ValueError(f"{source.name}: has changed its size since it was opened; start again")
        return image


def open_images(
    paths: Sequence[str | Path],
    *,
    reduce: int = 1,
    cache_bytes: int = 2 << 30,
    max_background: float = 1.0,
    background_level: int = 220,
    min_size: int = 1,
    strict: bool = False,
    channels: int = 3,
    microns_per_px: float | None = None,
    report: Report = unseen,
) -> ImageSet:
    """Find, decode and check the images of folders, zip files, image files and slides.

    Every image is decoded once, in threads, so that damaged ones show now and not in the middle of a run.

    Args:
        paths: folders (searched recursively), zip files, images, slides.
        reduce: whole factor by which images (not slides) are made smaller.
        cache_bytes: memory for decoded images; what does not fit is decoded again whenever it is needed.
        max_background: images with a larger share of background pixels are skipped.
        background_level: brightness, 0 to 255, from which on (in all channels) a pixel is background.
        min_size: smallest side of an image after the reduction, at least the side of the crops.
        strict: stop at the first image that cannot be used, instead of skipping it.
        channels: 1 for gray, 3 for RGB; images of the other kind are converted.
        microns_per_px: scale at which slides are read; with it, tiled pyramids in TIFF files are slides too.
        report: is told how many images are decoded.

    Raises:
        ValueError: a path or an option is unusable, no image is left, or (`strict`) an image cannot be used.
    """
    _require_options(reduce, max_background, channels, microns_per_px)
    wanted = Filter(min_size, max_background, background_level)

    def read(source: Source) -> Decoded:
        return source.read(channels=channels, reduce=reduce)

    places = [Path(path) for path in paths]
    listing = listed(places)
    sources, unusable = _sources(listing, microns_per_px, wanted)
    cache = ImageCache(cache_bytes)
    found = [] if strict and unusable else list(_checked(sources, read, wanted, cache, strict, report))
    unusable += [remark for _, size, remarks in found if size is None for remark in remarks]
    notes = [remark for _, size, remarks in found if size is not None for remark in remarks]
    used = [(source, size) for source, size, _ in found if size is not None]
    if strict and unusable:
        raise ValueError(f"{unusable[0].name}: {unusable[0].text}")
    skipped = [*listing.left_out, *unusable]
    if not used:
        raise ValueError(_nothing_left(places, skipped))
    sizes = np.array([size for _, size in used], np.int64)
    return ImageSet([source for source, _ in used], sizes, read, cache, channels, skipped, notes)


def _require_options(reduce: int, max_background: float, channels: int, microns_per_px: float | None) -> None:
    if reduce < 1:
        raise ValueError(f"reduce={reduce}: must be a whole factor >= 1")
    if not 0.0 <= max_background <= 1.0:
        raise ValueError(f"max_background={max_background}: must be a share in [0, 1]")
    if channels not in (1, 3):
        raise ValueError(f"channels={channels}: images are read as gray (1) or RGB (3)")
    if microns_per_px is not None and not 0.0 < microns_per_px < float("inf"):
        raise ValueError(f"microns_per_px={microns_per_px}: must be > 0, for example 1.0")


def _sources(
    listing: Listing, microns_per_px: float | None, wanted: Filter
) -> tuple[list[Source], list[Remark]]:
    """Return the images of a listing, a slide being many, and the slides that cannot be opened."""
    sources: list[Source] = []
    unusable: list[Remark] = []
    for file in listing.files:
        if not is_slide(file, microns_per_px):
            sources.append(file)
            continue
        try:
            sources += tiles_of(file, microns_per_px, wanted.background_level, wanted.min_size)
        except UnusableImageError as error:
            unusable.append(Remark(file.name, str(error)))
    return sources, unusable


def _checked(
    sources: Sequence[Source],
    read: Callable[[Source], Decoded],
    wanted: Filter,
    cache: ImageCache,
    strict: bool,
    report: Report,
) -> Iterator[tuple[Source, tuple[int, int] | None, list[Remark]]]:
    """Decode images once, in threads: yield each with its size and notes, or the reason against it.

    If `strict`, the first that cannot be used is the last.
    """

    def check(source: Source) -> tuple[Source, tuple[int, int] | None, list[Remark]]:
        try:
            pixels, notes = read(source)
            wanted.require(pixels)
        except (OSError, UnusableImageError) as error:
            return source, None, [Remark(source.name, str(error))]
        cache.put(source, pixels)
        return source, pixels.shape[:2], [Remark(source.name, note) for note in notes]

    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_DECODING_THREADS))
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's remarks on odd files; what matters raises
            for done, result in enumerate(pool.map(check, sources), start=1):
                report("decoding images", float(done), float(len(sources)))
                yield result
                if strict and result[1] is None:
                    break
    finally:
        pool.shutdown(cancel_futures=True)


def _nothing_left(paths: Sequence[Path], skipped: Sequence[Remark]) -> str:
    where = ", ".join(str(path) for path in paths) or "(no path)"
    if not skipped:
        return f"{where}: no images found; give a folder, a zip file, images (PNG, JPEG, TIFF) or slides"
    first = skipped[0]
    return f"{where}: none of {len(skipped)} images can be used; the first, {first.name}: {first.text}"


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()
