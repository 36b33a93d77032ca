"""Pyramidal OME-TIFF files: BigTIFF, tiled, the levels as SubIFDs, from a finished OME-Zarr image.

The pixel size stands in the OME-XML and in the resolution tags: some readers look only there. The file is
written tile by tile, under another name, and renamed when it is whole. The same image gives the same bytes.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from diffnca.formats.ome_zarr import REMEDY, level_fault, shards_of
from diffnca.formats.stores import exists, opened, undamaged, zarr

try:
    import imagecodecs  # noqa: F401
    import tifffile
except ImportError:
    raise ImportError("TIFF files need tifffile and imagecodecs: pip install 'diffnca[tiff]'") from None

TILE_PX = 256
JPEG_QUALITY = 90
CENTIMETRE_UM = 10_000.0

Compression = Literal["jpeg", "deflate"]
"""JPEG of quality 90, or deflate, which loses nothing."""

Progress = Callable[[int, int], object]
"""Is told how many tiles of how many are written."""


def write_ome_tiff(
    source_url: str,
    path: Path,
    compression: Compression = "jpeg",
    progress: Progress | None = None,
) -> None:
    """Write an OME-TIFF file.

    Args:
        source_url: a finished OME-Zarr image.
        path: the file, ending in .tif or .tiff; it appears whole or not at all.
        compression: `"jpeg"` of quality 90, or `"deflate"`, which loses nothing.
        progress: told after each tile.

    Raises:
        ValueError: the source is not finished, lacks shards or is damaged, or no such file can be written.
    """
    check_target(path, compression)
    attributes, levels = _source(source_url)
    microns = _microns(attributes["ome"])
    told = _Told(sum(_count(level) for level in levels), progress)
    partial = path.with_name(path.name + ".partial")
    try:
        with tifffile.TiffWriter(partial, bigtiff=True, ome=True) as tiff:
            for number, level in enumerate(levels):
                own = {
                    "subifds": len(levels) - 1,
                    "metadata": _metadata(levels, attributes, microns, compression),
                }
                tiff.write(
                    told.each(_tiles(level, f"{source_url}: a shard of level {number}")),
                    dtype=np.uint8,
                    shape=(*level.shape[1:], level.shape[0]) if level.shape[0] > 1 else level.shape[1:],
                    tile=(TILE_PX, TILE_PX),
                    photometric="rgb" if level.shape[0] == 3 else "minisblack",
                    compression=compression,
                    compressionargs={"level": JPEG_QUALITY} if compression == "jpeg" else None,
                    software=False if number else None,
                    **_resolution(microns, 2**number),
                    **({"subfiletype": 1} if number else own),
                )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_target(path: Path, compression: str) -> None:
    """Refuse a file that cannot be written.

    Raises:
        ValueError: its name, its folder or its compression is not allowed.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"{path}: the name of the image must end in .tif or .tiff")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give a file name that ends in .tif")
    if compression not in ("jpeg", "deflate"):
        raise ValueError(f"compression={compression!r}: must be 'jpeg' or 'deflate'; choose one of them")


def _source(url: str) -> tuple[Any, list[Any]]:
    """Return the attributes and the levels of a finished image that lacks no shard."""
    store = opened(url)
    attributes: Any = zarr.open_group(store, mode="r").attrs.asdict() if exists(store, "zarr.json") else {}
    if "ome" not in attributes:
        raise ValueError(f"{url}: is not finished; the command that makes it goes on with it")
    levels: list[Any] = []
    for path in (dataset["path"] for dataset in attributes["ome"]["multiscales"][0]["datasets"]):
        fault = level_fault(store, path)
        if fault is None:
            levels.append(zarr.open_array(store, path=path, mode="r"))
            missing = (key for key, _ in shards_of(levels[-1], path) if not exists(store, key))
            fault = next((f"{key} is missing" for key in missing), None)  # zarr would read it as black
        if fault is not None:
            raise ValueError(f"{url}: {fault}; make the image again (`diffnca verify` names all faults)")
    return attributes, levels


def read_ome_tiff_text(path: Path) -> dict[str, str]:
    """Return the metadata of a file that `write_ome_tiff` wrote; nothing of others.

    Raises:
        ValueError: it is no TIFF file.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            xml = tiff.ome_metadata
    except tifffile.TiffFileError as error:
        raise ValueError(f"{path}: is there, and no TIFF file ({error}); give another name") from None
    if xml is None:
        return {}
    found = ElementTree.fromstring(xml).iter()
    return {str(item.get("K")): item.text or "" for item in found if item.tag.rpartition("}")[2] == "M"}


class _Told:
    """Counts tiles, and tells how many are written."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def each(self, tiles: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass the tiles on."""
        for tile in tiles:
            yield tile
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total)


def _metadata(levels: list[Any], attributes: Any, microns: float | None, compression: str) -> dict[str, Any]:
    """Return what the OME-XML says."""
    text = dict(attributes.get("diffnca", {}))
    name = f"{attributes['ome']['multiscales'][0]['name']} {levels[0].shape} {microns} {compression} {text}"
    size = (
        {}
        if microns is None
        else {
            "PhysicalSizeX": microns,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": microns,
            "PhysicalSizeYUnit": "µm",
        }
    )
    return {
        "axes": "YXS" if levels[0].shape[0] > 1 else "YX",
        "Name": attributes["ome"]["multiscales"][0]["name"],
        "Creator": text.get("Software", "diffnca"),
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),  # of what is in it, so that it is always the same
        **size,
        **({"MapAnnotation": text} if text else {}),
    }


def _resolution(microns: float | None, factor: int) -> dict[str, Any]:
    """Return the resolution tags of a level."""
    if microns is None:
        return {}
    per_centimetre = CENTIMETRE_UM / (microns * factor)
    return {"resolution": (per_centimetre, per_centimetre), "resolutionunit": "CENTIMETER"}


def _microns(ngff: Any) -> float | None:
    """Return the physical size of a pixel; `None` if there is none."""
    image = ngff["multiscales"][0]
    if image["axes"][-1].get("unit") != "micrometer":
        return None
    return float(image["datasets"][0]["coordinateTransformations"][0]["scale"][-1])


def _count(level: Any) -> int:
    """Return the number of tiles of a level."""
    return int(-(-level.shape[1] // TILE_PX) * -(-level.shape[2] // TILE_PX))


def _tiles(level: Any, name: str) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yield the tiles of a level row by row, those at the edges filled up, one row of them read at a time.

    Args:
        level: its array.
        name: what to say of it if it is damaged.
    """
    channels, height, width = level.shape
    for top in range(0, height, TILE_PX):
        with undamaged(name, f"`diffnca verify` names it; {REMEDY}"):
            band = np.moveaxis(np.asarray(level[:, top : top + TILE_PX, :]), 0, -1)
        fill = [(0, TILE_PX - band.shape[0]), (0, -width % TILE_PX), (0, 0)]
        band = np.pad(band, fill, mode="edge")
        for left in range(0, width, TILE_PX):
            tile = band[:, left : left + TILE_PX]
            yield np.ascontiguousarray(tile if channels > 1 else tile[..., 0])
