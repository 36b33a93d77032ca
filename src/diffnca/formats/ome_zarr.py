"""OME-Zarr images of any size: NGFF 0.5 [1] on zarr 3 [2], sharded, with checksums and a pyramid of levels.

One writer writes each shard, which is one file. `close` makes each level from the level before, and then the
NGFF metadata. So no reader takes an unfinished image for an image, and all shards on disk are complete.

References:
    [1] OME-NGFF 0.5, section "multiscales".
    [2] Zarr version 3 and its sharding codec (ZEP 2).
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffnca.errors import one_line, require
from diffnca.files import check_place
from diffnca.formats import shards, stores  # or a hint

# isort: split
import numpy as np
import torch
import zarr
from jaxtyping import UInt8
from torch import Tensor
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import StorePath

from diffnca.canvas.region import Canvas, Region
from diffnca.formats.pyramid import UNFINISHED, halved, level_shapes
from diffnca.progress import unseen

COLOURS = (("Red", "FF0000"), ("Green", "00FF00"), ("Blue", "0000FF"))

OWN = r"zarr\.json|\d+"
"""Pattern of the names in the folder of an image."""

Progress = Callable[[int, int], object]
"""Takes the number of finished shards, and the number of all shards."""


@dataclass(frozen=True)
class OmeZarrWriter:
    """Make an OME-Zarr image of regions, in any order, from any number of processes.

    Attributes:
        url: a folder or an address of fsspec; the name ends in .zarr.
        microns_per_px: size of a pixel in micrometres; `None` if unknown.
        shard_px: side in pixels of the shards (files), a multiple of `chunk_px`.
        chunk_px: side in pixels of the chunks, the smallest parts that a reader reads.
        planes: names of the channels that follow the colours, such as the classes of a map.
    """

    url: str
    microns_per_px: float | None = None
    shard_px: int = 512
    chunk_px: int = 256
    planes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.url.endswith(".zarr"):
            raise ValueError(f"{self.url}: the name of the image must end in .ome.zarr")
        microns = self.microns_per_px
        allowed = "a positive number of micrometres; give None if it is not known"
        require(microns is None or 0.0 < microns < math.inf, "microns_per_px", microns, allowed)
        if self.chunk_px < 1 or self.shard_px < 1 or self.shard_px % self.chunk_px:
            raise ValueError(f"shard={self.shard_px} px: must be a multiple of the chunk, {self.chunk_px} px")

    def open(self, canvas: Canvas, channels: int, text: Mapping[str, str]) -> None:
        """Begin an image with the metadata `text`, or continue it; `channels` are gray, or RGB and others.

        Raises:
            ValueError: the parent folder does not exist, or `url` is a file or an image of another shape.
            OSError: the folder takes no file.
        """
        if not stores.is_remote(self.url):
            check_place(Path(self.url))
            if Path(self.url).is_file():
                raise ValueError(f"{self.url}: is a file; give another name, or delete it")
        store = stores.opened(self.url)
        if stores.exists(store, "0/zarr.json"):
            self._check(shards.open_level(self.url, 0), (channels, canvas.height, canvas.width))
        else:
            self._create(store, 0, (channels, canvas.height, canvas.width), dict(text))

    def write(self, region: Region, pixels: UInt8[np.ndarray, "h w c"]) -> None:
        """Write the pixels of `region`, a union of whole shards: two writers of a shard would lose pixels.

        Raises:
            ValueError: the region is no union of shards or exceeds the canvas, or `pixels` has another shape.
        """
        canvas, bottom, right = region.canvas, region.top + region.height, region.left + region.width
        if min(region.top, region.left) < 0 or bottom > canvas.height or right > canvas.width:
            raise ValueError(f"{region}: must lie within the canvas; cut it at the edge")
        cuts = (region.top, region.left, bottom % canvas.height, right % canvas.width)  # 0 at the edges
        if any(cut % self.shard_px for cut in cuts):
            raise ValueError(f"{region}: must be a union of shards of {self.shard_px} px; choose such tiles")
        array = shards.open_level(self.url, 0, "r+")
        shape = (region.height, region.width, array.shape[0])
        if pixels.shape != shape:
            raise ValueError(f"pixels of shape {pixels.shape}: must be {shape}, as their region; crop them")
        array[shards.place_of(region)] = np.moveaxis(pixels, -1, 0)

    def is_written(self, region: Region) -> bool:
        """Return whether all shards of `region` are there."""
        store = stores.opened(self.url)
        parts = region.tiles(self.shard_px, self.shard_px)
        lacks = (stores.lack_of(store, shards.key_of(0, shard, self.shard_px)) for shard in parts)
        return all(lack is None for lack in lacks)

    def close(self, progress: Progress = unseen) -> None:
        """Make the pyramid, then the NGFF metadata that finish the image.

        Raises:
            ValueError: shards are missing or empty.
        """
        store = stores.opened(self.url)
        first = shards.open_level(self.url, 0)
        self._check_whole(store, first.shape[1:])
        shapes = level_shapes(*first.shape[1:])
        total, counted = sum(1 for shape in shapes[1:] for _ in self._shards(shape)), itertools.count(1)
        for level, shape in enumerate(shapes[1:], start=1):
            if not stores.exists(store, f"{level}/zarr.json"):
                self._create(store, level, (first.shape[0], *shape), {})
            for shard in self._shards(shape):
                self._halve(store, level, shard)
                progress(next(counted), total)
        stores.remove_leftovers(self.url)
        text = first.attrs.get("diffnca", {})
        attributes = {"ome": self._ngff(len(shapes), first.shape[0]), "diffnca": text}
        zarr.open_group(store, mode="a").update_attributes(attributes)

    @property
    def is_finished(self) -> bool:
        """Whether the image is complete with all levels."""
        return "ome" in (stores.attributes_of(self.url) or {})

    @property
    def is_foreign(self) -> bool:
        """Whether `url` holds something that this class did not make."""
        if self.read_text() is not None:
            return False
        # a process that was killed at the start can leave a group without attributes
        is_level = stores.exists(stores.opened(self.url), "0/zarr.json")
        others = stores.others_in(self.url, r"zarr\.json|0")
        return is_level or bool(stores.attributes_of(self.url)) or bool(others)

    def read_text(self) -> dict[str, str] | None:
        """Return the metadata `text` of the image, finished or not; `None` if there is no image.

        Raises:
            ValueError: the metadata are damaged.
        """
        return stores.facts_of(self.url, "0")

    def _create(self, store: Store, level: int, shape: tuple[int, int, int], text: dict[str, str]) -> None:
        zarr.create_array(
            StorePath(store, str(level)),
            shape=shape,
            dtype="uint8",
            chunks=(shape[0], self.chunk_px, self.chunk_px),
            shards=(shape[0], self.shard_px, self.shard_px),
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
            dimension_names=("c", "y", "x"),
            attributes={} if level else {"diffnca": text},
            config=shards.WRITE_ALL,
        )

    def _check(self, array: Any, shape: tuple[int, int, int]) -> None:
        there = array.shape, array.shards, array.chunks
        mine = shape, (shape[0], self.shard_px, self.shard_px), (shape[0], self.chunk_px, self.chunk_px)
        if there != mine:
            raise ValueError(
                f"{self.url}: holds an image of shape, shards and chunks {there}, not {mine}; "
                "give another name, or delete it"
            )

    def _check_whole(self, store: Store, shape: tuple[int, int]) -> None:
        """Refuse an image with missing or empty shards: zarr reads them as black."""
        keys = [shards.key_of(0, shard, self.shard_px) for shard in self._shards(shape)]
        missing = [key for key in keys if stores.lack_of(store, key) is not None]
        if missing:
            raise ValueError(
                f"{self.url}: {len(missing)} of {len(keys)} shards are missing or empty, the first is "
                f"{missing[0]}; write them before closing"
            )

    def _shards(self, shape: tuple[int, int]) -> Iterator[Region]:
        return Canvas(*shape).whole.tiles(self.shard_px, self.shard_px)

    def _halve(self, store: Store, level: int, shard: Region) -> None:
        """Make a shard of a level from the level before, unless the shard is there."""
        if stores.lack_of(store, shards.key_of(level, shard, self.shard_px)) is not None:
            array = shards.open_level(self.url, level - 1)
            height, width = array.shape[1:]
            top, left = 2 * shard.top, 2 * shard.left
            rows, columns = min(2 * shard.height, height - top), min(2 * shard.width, width - left)
            below = Region(top, left, rows, columns, Canvas(height, width))
            pixels = halved(shards.read_region(self.url, str(level - 1), array, below))
            shards.open_level(self.url, level, "r+")[shards.place_of(shard)] = pixels

    def _ngff(self, count: int, channels: int) -> dict[str, Any]:
        """Return the NGFF metadata of an image with `count` levels ([1])."""
        unit = {} if self.microns_per_px is None else {"unit": "micrometer"}
        own = channels - len(self.planes)
        shown, colours = min(own, 3), COLOURS if own >= 3 else ()
        others = (*(f"Channel {n}" for n in range(len(colours), own)), *self.planes)
        names = (*colours, *((name, "FFFFFF") for name in others))
        window, is_colour = {"min": 0, "max": 255, "start": 0, "end": 255}, bool(colours)
        image = {
            "name": Path(self.url).name.removesuffix(".ome.zarr"),
            "type": "mean of 2x2 pixels",
            "axes": [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", **unit} for n in "yx")],
            "datasets": [
                {"path": str(level), "coordinateTransformations": self._transformations(level)}
                for level in range(count)
            ],
        }
        omero = {
            "channels": [
                {"label": name, "color": colour, "window": window, "active": n < shown}
                for n, (name, colour) in enumerate(names)
            ],
            "rdefs": {"model": "color" if is_colour else "greyscale"},
        }
        return {"version": "0.5", "multiscales": [image], "omero": omero}

    def _transformations(self, level: int) -> list[dict[str, Any]]:
        """Return scale and translation of a level: the centre of its first pixel lies further inwards."""
        first = self.microns_per_px or 1.0
        step, shift = first * 2**level, first * (2**level - 1) / 2
        scale = {"type": "scale", "scale": [1.0, step, step]}
        return [scale, {"type": "translation", "translation": [0.0, shift, shift]}] if level else [scale]


@dataclass(frozen=True)
class StoredPixels:
    """The pixels of a finished image as a function of the region; other processes can take it."""

    url: str

    def __call__(self, region: Region) -> UInt8[Tensor, "1 c h w"]:
        """Return the pixels of a region, which may hang over the edge of a circular axis."""
        places = region.rows().numpy(), region.columns().numpy()
        with stores.undamaged(self.url, shards.REMEDY):
            values = shards.open_level(self.url, 0).oindex[:, *places]
        return torch.from_numpy(values)[None]


def read_pixels(url: str) -> UInt8[np.ndarray, "h w c"]:
    """Return all pixels of an image that fits in memory; refuse missing, empty and damaged shards."""
    array = shards.open_level(url, 0)
    return np.moveaxis(shards.read_region(url, "0", array, Canvas(*array.shape[1:]).whole), 0, -1)


def check_finished(url: str) -> tuple[dict[str, Any], list[Any]]:
    """Return attributes and levels of a finished image; refuse damaged metadata, missing and empty shards."""
    attributes, levels, fault = _levels(url)
    lacks = ((key, stores.lack_of(array.store, key)) for array, key, _ in shards.shards_of(levels))
    fault = fault or next((f"{key} {lack}" for key, lack in lacks if lack is not None), None)
    if fault is not None:
        remedy = "; delete it and make it again (`diffnca verify` names all faults)"
        raise ValueError(f"{url}: {fault}{'' if fault == UNFINISHED else remedy}")
    return attributes | {"diffnca": stores.facts_of(url) or {}}, list(levels.values())


def verify(url: str, progress: Progress = unseen) -> list[str]:
    """Return all faults of a finished image; read every shard and compare every checksum.

    Raises:
        OSError: a file cannot be read, so its state is unknown.
    """
    _, levels, fault = _levels(url)
    if fault is not None:
        return [fault]
    arrays = list(levels.values())
    shapes, expected = [array.shape[1:] for array in arrays], level_shapes(*arrays[0].shape[1:])
    problems = [] if shapes == expected else [f"its levels are of {shapes} px, not {expected}"]
    total = sum(1 for _ in shards.shards_of(levels))
    for done, (array, key, place) in enumerate(shards.shards_of(levels), start=1):
        fault = shards.fault_of(array, key, place)
        problems += [] if fault is None else [f"{key} {fault}"]
        progress(done, total)
    return problems


def _levels(url: str) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Return attributes, levels by path, and the fault of the metadata; `None` means no fault."""
    store = stores.opened(url)
    try:
        attributes = stores.attributes_of(url)
    except ValueError as error:
        return {}, {}, f"zarr.json is damaged ({one_line(error.__cause__ or error)})"
    if attributes is None or "ome" not in attributes:
        is_begun = stores.exists(store, "0/zarr.json")
        return {}, {}, UNFINISHED if is_begun else "is no OME-Zarr image that diffnca has made"
    try:
        paths = [str(dataset["path"]) for dataset in attributes["ome"]["multiscales"][0]["datasets"]]
    except (KeyError, IndexError, TypeError):
        paths = []
    if not paths:
        return {}, {}, "zarr.json names no levels of OME-NGFF"
    faults = [fault for path in paths if (fault := shards.level_fault(store, path)) is not None]
    if faults:
        return {}, {}, faults[0]
    return attributes, {path: zarr.open_array(store, path=path, mode="r") for path in paths}, None
