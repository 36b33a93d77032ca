"""OME-Zarr images of any size: NGFF 0.5 [1] on zarr 3 [2], sharded, with checksums and a pyramid of levels.

A shard is one file, written as a whole by one writer; the pyramid is made level from level when the image is
closed, and the metadata that make an image of it come last. So an image that was begun is no image to any
reader, and what is there of it is right.

References:
    [1] OME-NGFF 0.5, section "multiscales".
    [2] Zarr version 3 and its sharding codec (ZEP 2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffnca.errors import one_line
from diffnca.files import check_place
from diffnca.formats.stores import (  # or a hint
    attributes_of,
    exists,
    facts_in,
    is_remote,
    opened,
    others_in,
    remove_leftovers,
    undamaged,
)

# isort: split
import numpy as np
import zarr
from jaxtyping import UInt8
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import StorePath

from diffnca.canvas.region import Canvas, Region
from diffnca.formats.pyramid import halved, level_shapes

NGFF_VERSION = "0.5"
COLOURS = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"))

WRITE_ALL: Any = {"write_empty_chunks": True}
"""Black shards too, so that a missing one is a fault."""

UNFINISHED = "is not finished; the command that makes it goes on with it"
REMEDY = "delete it, then the command that makes the image makes it again"
"""What a user can do when a file is damaged."""

OWN = r"zarr\.json|\d+"
"""Names in the folder of an image."""

Progress = Callable[[int, int], object]
"""Is told how many shards of how many are done."""


def unseen(done: int, total: int) -> None:
    """Be a `Progress` where nobody watches."""


@dataclass(frozen=True)
class OmeZarrWriter:
    """Takes the regions of a canvas, in any order, from any number of processes, and makes an OME-Zarr image.

    Attributes:
        url: a folder or an address of fsspec, ending in .zarr.
        microns_per_px: physical size of a pixel; `None` if it has none.
        shard_px: side of the shards, the files; a multiple of `chunk_px`.
        chunk_px: side of the chunks, the parts of a file that a reader takes.
    """

    url: str
    microns_per_px: float | None = None
    shard_px: int = 512
    chunk_px: int = 256

    def __post_init__(self) -> None:
        """Refuse what cannot be written.

        Raises:
            ValueError: the name, the pixel size or the sides of shards and chunks are not allowed.
        """
        if not self.url.endswith(".zarr"):
            raise ValueError(f"{self.url}: the name of the image must end in .ome.zarr")
        if self.microns_per_px is not None and not 0.0 < self.microns_per_px < math.inf:
            raise ValueError(
                f"microns_per_px={self.microns_per_px}: must be a positive number of micrometres; "
                "give None if it is not known"
            )
        if self.chunk_px < 1 or self.shard_px < 1 or self.shard_px % self.chunk_px:
            raise ValueError(f"shard={self.shard_px} px: must be a multiple of the chunk, {self.chunk_px} px")

    @property
    def store(self) -> Store:
        """Where the image lies."""
        return opened(self.url)

    def open(self, canvas: Canvas, channels: int, text: Mapping[str, str]) -> None:
        """Start an image of `channels` (1: gray, 3: RGB) with the metadata `text`, or take it up again.

        Raises:
            ValueError: the folder around it does not exist, a file lies there, or an image of another shape.
            OSError: nothing can be written there.
        """
        if not is_remote(self.url):
            check_place(Path(self.url))
            if Path(self.url).is_file():
                raise ValueError(f"{self.url}: is a file; give another name, or delete it")
        store = self.store
        if exists(store, "0/zarr.json"):
            self._check(_level(self.url, 0), (channels, canvas.height, canvas.width))
        else:
            self._create(store, 0, (channels, canvas.height, canvas.width), dict(text))

    def write(self, region: Region, pixels: UInt8[np.ndarray, "h w c"]) -> None:
        """Put the pixels of `region`, a union of whole shards, in their place.

        Raises:
            ValueError: it is no such union, and two writers of one shard would lose pixels; it hangs over an
                edge; or the pixels are not as many.
        """
        canvas = region.canvas
        if not (0 <= region.top <= canvas.height - region.height) or not (
            0 <= region.left <= canvas.width - region.width
        ):
            raise ValueError(f"{region}: must lie within the canvas; cut it at the edge")
        bottom, right = region.top + region.height, region.left + region.width
        bottom, right = bottom % canvas.height, right % canvas.width  # 0 at the edges
        if any(cut % self.shard_px for cut in (region.top, region.left, bottom, right)):
            raise ValueError(f"{region}: must be a union of shards of {self.shard_px} px; choose such tiles")
        array = _level(self.url, 0, "r+")
        shape = (region.height, region.width, array.shape[0])
        if pixels.shape != shape:
            raise ValueError(f"pixels of shape {pixels.shape}: must be {shape}, as their region; crop them")
        array[_place(region)] = np.moveaxis(pixels, -1, 0)

    def is_written(self, region: Region) -> bool:
        """Return whether all shards of `region` are there."""
        store = self.store
        shards = region.tiles(self.shard_px, self.shard_px)
        return all(exists(store, _key(0, shard, self.shard_px)) for shard in shards)

    def close(self, progress: Progress = unseen) -> None:
        """Make the pyramid, and then an image of it all.

        Raises:
            ValueError: some of its shards are not written.
        """
        store = self.store
        first = _level(self.url, 0)
        self._check_whole(store, first.shape[1:])
        shapes = level_shapes(*first.shape[1:])
        counts = [sum(1 for _ in self._shards(shape)) for shape in shapes[1:]]
        done = 0
        for level, shape in enumerate(shapes[1:], start=1):
            if not exists(store, f"{level}/zarr.json"):
                self._create(store, level, (first.shape[0], *shape), {})
            for shard in self._shards(shape):
                self._halve(store, level, shard)
                done += 1
                progress(done, sum(counts))
        remove_leftovers(self.url)
        text = first.attrs.get("diffnca", {})
        attributes = {"ome": self._ngff(len(shapes), first.shape[0]), "diffnca": text}
        zarr.open_group(store, mode="a").update_attributes(attributes)

    @property
    def is_finished(self) -> bool:
        """Whether it is an image with all its levels."""
        return "ome" in (attributes_of(self.url) or {})

    @property
    def is_foreign(self) -> bool:
        """Whether something lies there that this class has not made."""
        if self.read_text() is not None:
            return False
        # a process that was killed right at the start may have left a group without attributes
        is_level = exists(self.store, "0/zarr.json")
        return is_level or bool(attributes_of(self.url)) or bool(others_in(self.url, r"zarr\.json|0"))

    def read_text(self) -> dict[str, str] | None:
        """Return the metadata that an image was opened with, finished or not; `None` if there is none.

        Raises:
            ValueError: the metadata are damaged.
        """
        return facts_in(attributes_of(self.url, "0"), self.url)

    def _create(self, store: Store, level: int, shape: tuple[int, int, int], text: dict[str, str]) -> None:
        """Make the array of a level."""
        zarr.create_array(
            StorePath(store, str(level)),
            shape=shape,
            dtype="uint8",
            chunks=(shape[0], self.chunk_px, self.chunk_px),
            shards=(shape[0], self.shard_px, self.shard_px),
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
            dimension_names=("c", "y", "x"),
            attributes={} if level else {"diffnca": text},
            config=WRITE_ALL,
        )

    def _check(self, array: Any, shape: tuple[int, int, int]) -> None:
        """Refuse to go on with another image."""
        there = array.shape, array.shards, array.chunks
        mine = shape, (shape[0], self.shard_px, self.shard_px), (shape[0], self.chunk_px, self.chunk_px)
        if there != mine:
            raise ValueError(
                f"{self.url}: holds an image of shape, shards and chunks {there}, not {mine}; "
                "give another name, or delete it"
            )

    def _check_whole(self, store: Store, shape: tuple[int, int]) -> None:
        """Refuse to make an image with holes: zarr reads what is missing as black."""
        keys = [_key(0, shard, self.shard_px) for shard in self._shards(shape)]
        missing = [key for key in keys if not exists(store, key)]
        if missing:
            raise ValueError(
                f"{self.url}: {len(missing)} of {len(keys)} shards are missing, the first is {missing[0]}; "
                "write them before closing"
            )

    def _shards(self, shape: tuple[int, int]) -> Iterator[Region]:
        """Yield the shards of a level."""
        return Canvas(*shape).whole.tiles(self.shard_px, self.shard_px)

    def _halve(self, store: Store, level: int, shard: Region) -> None:
        """Make a shard of a level from the level before, unless it is there."""
        if not exists(store, _key(level, shard, self.shard_px)):
            array = _level(self.url, level - 1)
            height, width = array.shape[1:]
            top, left = 2 * shard.top, 2 * shard.left
            rows, columns = min(2 * shard.height, height - top), min(2 * shard.width, width - left)
            below = Region(top, left, rows, columns, Canvas(height, width))
            pixels = halved(read_region(self.url, str(level - 1), array, below))
            _level(self.url, level, "r+")[_place(shard)] = pixels

    def _ngff(self, count: int, channels: int) -> dict[str, Any]:
        """Return the metadata of an image with so many levels ([1])."""
        unit = {} if self.microns_per_px is None else {"unit": "micrometer"}
        names = COLOURS if channels == 3 else tuple((f"Channel {n}", "FFFFFF") for n in range(channels))
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        return {
            "version": NGFF_VERSION,
            "multiscales": [
                {
                    "name": Path(self.url).name.removesuffix(".ome.zarr"),
                    "type": "mean of 2x2 pixels",
                    "axes": [
                        {"name": "c", "type": "channel"},
                        {"name": "y", "type": "space", **unit},
                        {"name": "x", "type": "space", **unit},
                    ],
                    "datasets": [
                        {"path": str(level), "coordinateTransformations": self._transformations(level)}
                        for level in range(count)
                    ],
                }
            ],
            "omero": {
                "channels": [
                    {"label": name, "color": colour, "window": window, "active": True}
                    for name, colour in names
                ],
                "rdefs": {"model": "color" if channels == 3 else "greyscale"},
            },
        }

    def _transformations(self, level: int) -> list[dict[str, Any]]:
        """Return where the pixels of a level lie: the centre of its first one moves half a pixel inwards."""
        first = self.microns_per_px or 1.0
        step, shift = first * 2**level, first * (2**level - 1) / 2
        scale = {"type": "scale", "scale": [1.0, step, step]}
        return [scale, {"type": "translation", "translation": [0.0, shift, shift]}] if level else [scale]


def read_pixels(url: str) -> UInt8[np.ndarray, "h w c"]:
    """Return all pixels of an image that fits in memory.

    Raises:
        ValueError: a shard is missing or damaged; the message names it.
    """
    array = _level(url, 0)
    return np.moveaxis(read_region(url, "0", array, Canvas(*array.shape[1:]).whole), 0, -1)


def read_region(url: str, path: str, array: Any, region: Region) -> UInt8[np.ndarray, "c h w"]:
    """Return the pixels of a part of a level.

    Args:
        url: the image.
        path: of the level.
        array: of the level.
        region: the part.

    Raises:
        ValueError: a shard is missing or damaged; the message names it.
    """
    side = array.shards[1]
    pixels = np.empty((array.shape[0], region.height, region.width), np.uint8)
    for top, height in _spans(region.top, region.height, side):
        for left, width in _spans(region.left, region.width, side):
            part = Region(top, left, height, width, region.canvas)
            key = _key(path, part, side)
            with undamaged(f"{url}/{key}", REMEDY):
                values = array[_place(part)]
            if not values.any() and not exists(array.store, key):  # zarr reads it as black
                raise ValueError(f"{url}/{key}: is missing; {REMEDY}")
            rows = slice(top - region.top, top - region.top + height)
            pixels[:, rows, left - region.left : left - region.left + width] = values
    return pixels


def _spans(start: int, length: int, side: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of the part of a span in each shard."""
    stop = start + length
    while start < stop:
        end = min(stop, start - start % side + side)
        yield start, end - start
        start = end


def check_finished(url: str) -> tuple[dict[str, Any], list[Any]]:
    """Return the attributes and the levels of an image.

    Raises:
        ValueError: it is not finished, its metadata are damaged, or a shard is missing.
    """
    attributes, levels, fault = _levels(url)
    for path, level in levels.items() if fault is None else ():
        missing = (key for key, _ in shards_of(level, path) if not exists(level.store, key))
        fault = fault or next((f"{key} is missing" for key in missing), None)
    if fault is not None:
        again = "" if fault == UNFINISHED else "; make the image again (`diffnca verify` names all faults)"
        raise ValueError(f"{url}: {fault}{again}")
    return attributes | {"diffnca": facts_in(attributes, url) or {}}, list(levels.values())


def verify(url: str, progress: Progress = unseen) -> list[str]:
    """Return what is wrong with a finished image; nothing if it is whole.

    Every shard is read, and so every checksum compared.

    Raises:
        OSError: it cannot be read, and may be whole.
    """
    _, levels, fault = _levels(url)
    if fault is not None:
        return [fault]
    arrays = list(levels.values())
    shapes, expected = [array.shape[1:] for array in arrays], level_shapes(*arrays[0].shape[1:])
    problems = [] if shapes == expected else [f"its levels are of {shapes} px, not {expected}"]
    total = sum(1 for path, array in levels.items() for _ in shards_of(array, path))
    shards = ((array, *shard) for path, array in levels.items() for shard in shards_of(array, path))
    for done, (array, key, place) in enumerate(shards, start=1):
        fault = _fault(array, place) if exists(array.store, key) else "is missing"
        problems += [] if fault is None else [f"{key} {fault}"]
        progress(done, total)
    return problems


def _levels(url: str) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Return attributes and levels of an image, by their paths, and what is wrong with its metadata."""
    store = opened(url)
    try:
        attributes = attributes_of(url)
    except ValueError as error:
        return {}, {}, f"zarr.json is damaged ({one_line(error.__cause__ or error)})"
    if attributes is None or "ome" not in attributes:
        is_begun = exists(store, "0/zarr.json")
        return {}, {}, UNFINISHED if is_begun else "is no OME-Zarr image that diffnca has made"
    try:
        paths = [str(dataset["path"]) for dataset in attributes["ome"]["multiscales"][0]["datasets"]]
    except (KeyError, IndexError, TypeError):
        paths = []
    if not paths:
        return {}, {}, "zarr.json names no levels of OME-NGFF"
    faults = [fault for path in paths if (fault := level_fault(store, path)) is not None]
    if faults:
        return {}, {}, faults[0]
    return attributes, {path: zarr.open_array(store, path=path, mode="r") for path in paths}, None


def shards_of(array: Any, path: str) -> Iterator[tuple[str, tuple[slice, slice, slice]]]:
    """Yield key and place of each shard of the level at `path`."""
    side = array.shards[1]
    for shard in Canvas(*array.shape[1:]).whole.tiles(side, side):
        yield _key(path, shard, side), _place(shard)


def _key(level: int | str, shard: Region, shard_px: int) -> str:
    """Return the name of a shard's file."""
    return f"{level}/c/0/{shard.top // shard_px}/{shard.left // shard_px}"


def level_fault(store: Store, path: str) -> str | None:
    """Return what is wrong with the metadata of a level."""
    if not exists(store, f"{path}/zarr.json"):
        return f"level {path} is missing"
    try:
        array: Any = zarr.open_array(store, path=path, mode="r")
    except PermissionError:
        raise
    except Exception as error:  # whatever readers say of damaged text
        return f"{path}/zarr.json is damaged ({one_line(error)})"
    is_sharded = array.ndim == 3 and array.shards is not None and array.shards[1] == array.shards[2]
    if not is_sharded or array.dtype != np.uint8:
        return f"level {path} is not sharded c, y, x, as diffnca writes it"
    return None


def _fault(array: Any, place: tuple[slice, slice, slice]) -> str | None:
    """Return what is wrong with a shard that is there."""
    try:
        array[place]
    except OSError:
        raise
    except Exception as error:  # whatever decoders say of damaged bytes
        return f"is damaged ({one_line(error)})"
    return None


def _level(url: str, level: int, mode: Any = "r") -> Any:
    """Return the array of a level."""
    with undamaged(f"{url}/{level}/zarr.json", f"delete {url}, then the same command begins again"):
        array: Any = zarr.open_array(opened(url), path=str(level), mode=mode)
        return array.with_config(WRITE_ALL)


def _place(region: Region) -> tuple[slice, slice, slice]:
    """Return where the pixels of a region are in an array."""
    rows = slice(region.top, region.top + region.height)
    return slice(None), rows, slice(region.left, region.left + region.width)
