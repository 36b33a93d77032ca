"""Write a finished OME-Zarr image as pyramidal OME-TIFF: BigTIFF, tiled, with the levels as SubIFDs.

OME-XML and resolution tags both hold the pixel size, because some readers use only the tags. The writer holds
one row of tiles in memory and replaces the file atomically. Equal images of equal names give equal bytes.
"""

import itertools
import logging
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from diffnca.canvas.region import Canvas
from diffnca.errors import one_line
from diffnca.files import check_target, replace_atomically
from diffnca.formats.ome_zarr import Progress, check_finished
from diffnca.formats.pyramid import microns_of
from diffnca.formats.shards import read_region
from diffnca.progress import unseen

try:
    import imagecodecs  # noqa: F401
    import tifffile
except ImportError:
    raise ImportError("TIFF files need tifffile and imagecodecs: pip install 'diffnca[tiff]'") from None

TILE_PX = 256
JPEG_QUALITY = 90
CENTIMETRE_UM = 10_000.0

ENDING = r"(?i:(\.ome)?\.tiff?)$"
"""Pattern of the end of the name of a file, which is no part of the name of the image."""


def write_ome_tiff(
    source_url: str,
    path: Path,
    compression: Literal["jpeg", "deflate"] = "jpeg",
    progress: Progress = unseen,
) -> None:
    """Write an OME-TIFF file of a finished OME-Zarr image; refuse a source with missing or damaged shards.

    The name of the file ends in .tif or .tiff. `progress` counts tiles.
    """
    check_tiff(path, compression)
    attributes, levels = check_finished(source_url)
    microns, counted = microns_of(attributes["ome"]["multiscales"][0]), itertools.count(1)
    total = sum(-(-level.shape[1] // TILE_PX) * -(-level.shape[2] // TILE_PX) for level in levels)

    def tiles(number: int) -> Iterator[UInt8[np.ndarray, "..."]]:
        for tile in _tiles(source_url, levels[number]):
            yield tile
            progress(next(counted), total)

    with replace_atomically(path) as partial, tifffile.TiffWriter(partial, bigtiff=True, ome=True) as tiff:
        for number, level in enumerate(levels):
            channels, height, width = level.shape
            metadata = _metadata(path, levels[0].shape, attributes["diffnca"], microns, compression)
            first = {"subifds": len(levels) - 1, "metadata": metadata}
            tiff.write(
                tiles(number),
                dtype=np.uint8,
                shape=(height, width, channels) if channels > 1 else (height, width),
                tile=(TILE_PX, TILE_PX),
                photometric="rgb" if channels == 3 else "minisblack",
                compression=compression,
                compressionargs={"level": JPEG_QUALITY} if compression == "jpeg" else None,
                software=False if number else None,
                **_resolution(microns, 2**number),
                **({"subfiletype": 1} if number else first),
            )


def check_tiff(path: Path, compression: str) -> None:
    """Refuse a path like `check_target`, another ending, and an unknown compression."""
    check_target(path, (".tif", ".tiff"))
    if compression not in ("jpeg", "deflate"):
        raise ValueError(f"compression={compression!r}: must be 'jpeg' or 'deflate'; choose one of them")


def read_ome_tiff_text(path: Path) -> dict[str, str]:
    """Return the metadata that `write_ome_tiff` wrote; for a file of other software, an empty dictionary.

    Raises:
        ValueError: the file is no TIFF file, is cut short, or its metadata are damaged.
    """
    complaints: list[str] = []
    try:
        with _heard(complaints), tifffile.TiffFile(path) as tiff:
            xml = tiff.ome_metadata
            is_cut = _end(tiff) > path.stat().st_size
        found = [] if xml is None else list(ElementTree.fromstring(xml).iter())
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        reason = "no TIFF file" if isinstance(error, tifffile.TiffFileError) else "damaged"
        raise ValueError(
            f"{path}: is there, and {reason} ({one_line(error)}); delete it, or give another name"
        ) from None
    if is_cut or complaints:
        raise ValueError(f"{path}: is there, and cut short or damaged; delete it, or give another name")
    return {str(item.get("K")): item.text or "" for item in found if item.tag.rpartition("}")[2] == "M"}


@contextmanager
def _heard(complaints: list[str]) -> Iterator[None]:
    """Collect errors that tifffile logs in the block: it leaves out damaged parts and raises nothing."""

    def hear(record: logging.LogRecord) -> bool:
        complaints.extend([record.getMessage()] * (record.levelno >= logging.ERROR))
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(hear)
    try:
        yield
    finally:
        logger.removeFilter(hear)


def _end(tiff: Any) -> int:
    """Return the offset in bytes at which the last tile of all levels ends."""
    pages = [page for first in tiff.pages for page in (first, *(first.pages or ()))]
    return max(
        int(offset + length)
        for page in pages
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True)
    )


def _metadata(
    path: Path, shape: tuple[int, ...], text: Mapping[str, str], microns: float | None, compression: str
) -> dict[str, Any]:
    name, text = re.sub(ENDING, "", path.name), dict(text)
    content = f"{name} {shape} {microns} {compression} {text}"
    sizes = {f"PhysicalSize{key}": "µm" if key[1:] else microns for key in ("X", "XUnit", "Y", "YUnit")}
    return {
        "axes": "YXS" if shape[0] > 1 else "YX",
        "Name": name,
        "Creator": text.get("Software", "diffnca"),
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, content)),  # equal images have equal bytes
        **({} if microns is None else sizes),
        **({"MapAnnotation": text} if text else {}),
    }


def _resolution(microns: float | None, factor: int) -> dict[str, Any]:
    if microns is None:
        return {}
    per_centimetre = CENTIMETRE_UM / (microns * factor)
    return {"resolution": (per_centimetre, per_centimetre), "resolutionunit": "CENTIMETER"}


def _tiles(source_url: str, level: Any) -> Iterator[UInt8[np.ndarray, "h w c"]]:
    """Yield the tiles of a level, row by row; repeat the edge in the last tiles."""
    channels, height, width = level.shape
    for rows in Canvas(height, width).whole.tiles(TILE_PX, width):
        band = np.moveaxis(read_region(source_url, level.path, level, rows), 0, -1)
        fill = [(0, TILE_PX - band.shape[0]), (0, -width % TILE_PX), (0, 0)]
        band = np.pad(band, fill, mode="edge")
        for left in range(0, width, TILE_PX):
            tile = band[:, left : left + TILE_PX]
            yield np.ascontiguousarray(tile if channels > 1 else tile[..., 0])
