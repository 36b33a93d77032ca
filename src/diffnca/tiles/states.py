"""States on disk: the image between two sweeps, in zarr arrays.

A sweep reads one state and writes the next. A state is the noisy image and, for a sampler with memory, its
last estimate. Each chunk is a file, written in one piece, the estimate before the image. So a chunk of the
image that exists is finished, with its estimate. Nothing else records progress.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.canvas.region import Canvas, Region
from diffnca.files import remove_partials
from diffnca.formats import stores
from diffnca.formats.ome_zarr import OWN as OF_AN_IMAGE
from diffnca.formats.shards import WRITE_ALL, place_of
from diffnca.formats.stores import zarr

IMAGE, ESTIMATE, CONTEXT = "image", "estimate", "context"
OWN = rf"zarr\.json|({IMAGE}|{ESTIMATE}|{CONTEXT})-\d{{4,}}"

OF_WORK = {"": r"states|image\.ome\.zarr", "/states": OWN, "/image.ome.zarr": OF_AN_IMAGE}
"""Patterns of the names in the folder in which an image is made, and in its subfolders."""


@dataclass(frozen=True)
class States:
    """The states of one image, at `url`: a folder, or any address of fsspec.

    A tile is a union of chunks of `chunk_px`. `has_estimates` tells whether the sampler has a memory.
    """

    url: str
    canvas: Canvas
    channels: int
    chunk_px: int
    has_estimates: bool

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "store"}

    @cached_property
    def store(self) -> Any:
        """The open store of zarr."""
        return stores.opened(self.url)

    def begin(self, facts: dict[str, str]) -> None:
        """Note the facts of the image, unless facts are noted; refuse states without facts."""
        if stores.facts_of(self.url) is not None:
            return
        if self.steps():
            raise ValueError(f"{self.url}: does not say of which image it is; {self.remedy}")
        if stores.exists(self.store, "zarr.json"):
            zarr.open_group(self.store, mode="r+").update_attributes({"diffnca": facts})
        else:
            zarr.create_group(self.store, attributes={"diffnca": facts})

    def create(self, step: int) -> None:
        """Create the arrays of the state before `step`, unless they exist."""
        if stores.exists(self.store, f"{IMAGE}-{step:04d}/zarr.json"):
            return
        for name in (ESTIMATE, IMAGE) if self.has_estimates else (IMAGE,):
            zarr.create_array(
                self.store,
                name=f"{name}-{step:04d}",
                shape=(self.channels, self.canvas.height, self.canvas.width),
                chunks=(self.channels, self.chunk_px, self.chunk_px),
                dtype="float32",
                compressors=(stores.Crc32cCodec(),),
                fill_value=float("nan"),
                overwrite=True,
                config=WRITE_ALL,
            )

    def steps(self) -> list[int]:
        """Return the steps that have a state, complete or not."""
        matches = [re.fullmatch(rf"{IMAGE}-(\d{{4,}})", name) for name in stores.listed(self.store, "")]
        found = [int(match[1]) for match in matches if match is not None]
        return sorted(step for step in found if stores.exists(self.store, f"{IMAGE}-{step:04d}/zarr.json"))

    def delete(self, step: int) -> None:
        """Remove the state before `step`."""
        for name in (IMAGE, ESTIMATE, CONTEXT):
            stores.delete_folder(self.store, f"{name}-{step:04d}")

    def missing(self, step: int, tiles: list[Region]) -> list[Region]:
        """Return the tiles that are not finished up to `step`."""
        prefix = f"{IMAGE}-{step:04d}/c/0/"
        there = {
            (int(row), int(column))
            for row in stores.listed(self.store, prefix)
            if row.isdigit()
            for column in stores.listed(self.store, f"{prefix}{row}/")
            if column.isdigit()
        }
        return [tile for tile in tiles if not there.issuperset(self._chunks(tile))]

    def read_image(self, step: int, region: Region) -> Float[Tensor, "1 c h w"]:
        """Return the image before `step` on `region`, which may hang over a circular edge."""
        return self._read(IMAGE, step, region)

    def read_estimate(self, step: int, region: Region) -> Float[Tensor, "1 c h w"] | None:
        """Return the estimate that belongs to the image; `None` if the sampler has no memory."""
        return self._read(ESTIMATE, step, region) if self.has_estimates else None

    def write(self, step: int, tile: Region, image: Tensor, estimate: Tensor) -> None:
        """Write the state of a tile, the image last: an image that exists is complete."""
        if self.has_estimates:
            self._write(ESTIMATE, step, tile, estimate)
        self._write(IMAGE, step, tile, image)

    def write_context(self, step: int, context: Tensor) -> None:
        """Write the context before `step`."""
        data, name = context.numpy(), f"{CONTEXT}-{step:04d}"
        zarr.create_array(self.store, name=name, data=data, chunks=data.shape, overwrite=True)

    def read_context(self, step: int) -> Tensor | None:
        """Return the context before `step`; `None` if it is not summed up yet."""
        name = f"{CONTEXT}-{step:04d}"
        if not stores.exists(self.store, f"{name}/c/" + "/".join("0" * 4)):
            return None
        with stores.undamaged(f"{self.url}/{name}", self.remedy):
            return torch.from_numpy(np.asarray(zarr.open_array(self.store, path=name, mode="r")[...]))

    def _chunks(self, tile: Region) -> Iterator[tuple[int, int]]:
        size = self.chunk_px
        for row in range(tile.top // size, -(-(tile.top + tile.height) // size)):
            for column in range(tile.left // size, -(-(tile.left + tile.width) // size)):
                yield row, column

    def _read(self, name: str, step: int, region: Region) -> Float[Tensor, "1 c h w"]:
        name = f"{name}-{step:04d}"
        array = self._array(name, "r")
        values = np.empty((self.channels, region.height, region.width), np.float32)
        for into_y, rows in spans(region.top, region.height, self.canvas.height):
            for into_x, columns in spans(region.left, region.width, self.canvas.width):
                height, width = rows.stop - rows.start, columns.stop - columns.start
                part = Region(rows.start, columns.start, height, width, self.canvas)
                try:
                    values[:, into_y, into_x] = array[:, rows, columns]
                except ValueError:  # a wrong checksum or length; zarr does not name the chunk
                    self._check_chunks(array, name, part)
                    raise
                if np.isnan(values[:, into_y, into_x]).any():  # NaN is never written
                    self._check_chunks(array, name, part)
        return torch.from_numpy(values)[None]

    def _array(self, name: str, mode: Any) -> Any:
        with stores.undamaged(f"{self.url}/{name}/zarr.json", self.remedy):
            array: Any = zarr.open_array(self.store, path=name, mode=mode)
            there = array.shape, array.chunks, str(array.dtype)
        chunk = (self.channels, self.chunk_px, self.chunk_px)
        mine = (self.channels, self.canvas.height, self.canvas.width), chunk, "float32"
        if there != mine:
            facts = f"shape, chunks and type {there}, not {mine}"
            raise ValueError(f"{self.url}/{name}: holds {facts}; {self.remedy}")
        return array

    def _check_chunks(self, array: Any, name: str, region: Region) -> None:
        size = self.chunk_px
        for row, column in self._chunks(region):
            key = f"{name}/c/0/{row}/{column}"
            if not stores.exists(self.store, key):
                raise ValueError(f"{self.url}/{key}: is missing; {self.remedy}")
            with stores.undamaged(f"{self.url}/{key}", self.remedy):
                array[:, row * size : (row + 1) * size, column * size : (column + 1) * size]

    @property
    def remedy(self) -> str:
        """What a user can do when a part of a state is lost; the state before it no longer exists."""
        return f"delete {self.url}, then the same command begins again"

    def _write(self, name: str, step: int, tile: Region, values: Float[Tensor, "1 c h w"]) -> None:
        if torch.isnan(values).any():
            remedy = "take another --sampler or more --steps"
            raise ValueError(f"the model gives values that are no numbers in step {step}; {remedy}")
        array = self._array(f"{name}-{step:04d}", "r+")
        array[place_of(tile)] = values[0].cpu().numpy()


def check_work(url: str) -> None:
    """Refuse a folder that holds other things, and name them."""
    if not stores.is_remote(url) and Path(url).is_file():
        raise ValueError(f"{url}: is a file; move it away, or give another --out")
    for folder, own in OF_WORK.items():
        others = stores.others_in(f"{url}{folder}", own)
        if others:
            remedy = "move it away, or give another --out"
            raise ValueError(f"{url}{folder}: holds {others[0]}, which diffnca did not make; {remedy}")


def remove_work(url: str) -> None:
    """Remove the files of an unfinished image, and the folder if it is then empty."""
    for folder in ("/states", "/image.ome.zarr"):
        stores.remove_own(f"{url}{folder}", OF_WORK[folder])
    if not stores.is_remote(url):
        remove_partials(Path(url))
        with suppress(OSError):  # the folder is missing, or holds other files
            Path(url).rmdir()


def spans(start: int, length: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of a span on an axis, around its edge, as (place in the span, place on the axis)."""
    done = 0
    while done < length:
        first = (start + done) % size
        count = min(length - done, size - first)
        yield slice(done, done + count), slice(first, first + count)
        done += count
