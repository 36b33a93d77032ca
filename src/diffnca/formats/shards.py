"""Shards, the files of a zarr image: their places, their pixels, their faults."""

from collections.abc import Iterator, Mapping
from typing import Any

from diffnca.errors import one_line
from diffnca.formats.stores import exists, lack_of, opened, undamaged, zarr  # or a hint

# isort: split
import numpy as np
from jaxtyping import UInt8
from zarr.abc.store import Store

from diffnca.canvas.region import Canvas, Region

WRITE_ALL: Any = {"write_empty_chunks": True}
"""Write black shards too, so that a missing shard is always a fault."""

REMEDY = "delete it, then the command that makes the image makes it again"


def read_region(url: str, path: str, array: Any, region: Region) -> UInt8[np.ndarray, "c h w"]:
    """Return the pixels of a region of a level; refuse missing, empty and damaged shards by name."""
    side = array.shards[1]
    pixels = np.empty((array.shape[0], region.height, region.width), np.uint8)
    for part in _parts(region, side):
        key = key_of(path, part, side)
        with undamaged(f"{url}/{key}", REMEDY):
            values = array[place_of(part)]
        lack = None if values.any() else lack_of(array.store, key)
        if lack is not None:
            raise ValueError(f"{url}/{key}: {lack}; {REMEDY}")
        top, left = part.top - region.top, part.left - region.left
        pixels[:, top : top + part.height, left : left + part.width] = values
    return pixels


def _parts(region: Region, side: int) -> Iterator[Region]:
    """Yield the parts of a region by the shards in which they lie."""
    bottom, right = region.top + region.height, region.left + region.width
    for row in range(region.top // side, -(-bottom // side)):
        top, below = max(region.top, row * side), min(bottom, (row + 1) * side)
        for column in range(region.left // side, -(-right // side)):
            left, beyond = max(region.left, column * side), min(right, (column + 1) * side)
            yield Region(top, left, below - top, beyond - left, region.canvas)


def shards_of(levels: Mapping[str, Any]) -> Iterator[tuple[Any, str, tuple[slice, slice, slice]]]:
    """Yield array, key and place of each shard of the levels, by path."""
    for path, array in levels.items():
        side = array.shards[1]
        for shard in Canvas(*array.shape[1:]).whole.tiles(side, side):
            yield array, key_of(path, shard, side), place_of(shard)


def key_of(level: int | str, shard: Region, shard_px: int) -> str:
    """Return the key of a shard, which is the name of its file."""
    return f"{level}/c/0/{shard.top // shard_px}/{shard.left // shard_px}"


def level_fault(store: Store, path: str) -> str | None:
    """Return the fault of the metadata of a level; `None` means no fault."""
    if not exists(store, f"{path}/zarr.json"):
        return f"level {path} is missing"
    try:
        array: Any = zarr.open_array(store, path=path, mode="r")
    except PermissionError:
        raise
    except Exception as error:  # damaged text can raise any error
        return f"{path}/zarr.json is damaged ({one_line(error)})"
    is_sharded = array.ndim == 3 and array.shards is not None and array.shards[1] == array.shards[2]
    if not is_sharded or array.dtype != np.uint8:
        return f"level {path} is not sharded c, y, x, as diffnca writes it"
    return None


def fault_of(array: Any, key: str, place: tuple[slice, slice, slice]) -> str | None:
    """Return the fault of a shard; `None` means no fault."""
    lack = lack_of(array.store, key)
    if lack is not None:
        return lack
    try:
        array[place]
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        return f"is damaged ({one_line(error)})"
    return None


def open_level(url: str, level: int, mode: Any = "r") -> Any:
    """Return the array of a level."""
    with undamaged(f"{url}/{level}/zarr.json", f"delete {url}, then the same command begins again"):
        array: Any = zarr.open_array(opened(url), path=str(level), mode=mode)
        return array.with_config(WRITE_ALL)


def place_of(region: Region) -> tuple[slice, slice, slice]:
    """Return the slices of a region in an array (c, y, x)."""
    rows = slice(region.top, region.top + region.height)
    return slice(None), rows, slice(region.left, region.left + region.width)
