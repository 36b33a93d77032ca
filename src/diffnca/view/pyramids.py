"""Images as pyramids of which any tile can be read: OME-Zarr, TIFF, and small pictures."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from diffnca.data.decoding import Pixels, picture_in, to_array
from diffnca.data.refusals import UnusableImageError, refusing
from diffnca.data.slides import Levels
from diffnca.data.sources import content_of, is_picture
from diffnca.data.tiff import SLIDE_SUFFIXES, is_tiled_pyramid
from diffnca.files import local
from diffnca.formats.pyramid import UNFINISHED, microns_of

TILE_PX = 256

LARGEST_OVERVIEW_PX = 2**26
"""A coarsest level with more pixels would be shown by thousands of tiles at once."""


@dataclass(frozen=True)
class Pyramid:
    """An image at several scales.

    Attributes:
        sizes: height and width of the levels, the finest first.
        read: returns rows and columns of a level; several threads may call it.
        microns_per_px: width of a pixel of the finest level; `None` if unknown.
        provenance: how the image was made; empty if unknown.
    """

    name: str
    sizes: tuple[tuple[int, int], ...]
    read: Callable[[int, slice, slice], Pixels]
    microns_per_px: float | None = None
    provenance: str = ""

    def tile(self, level: int, column: int, row: int) -> Pixels | None:
        """Return a tile, smaller at the right and lower edges; `None` if there is no such tile."""
        if level >= len(self.sizes):
            return None
        height, width = self.sizes[level]
        top, left = row * TILE_PX, column * TILE_PX
        if top >= height or left >= width:
            return None
        rows, columns = slice(top, min(top + TILE_PX, height)), slice(left, min(left + TILE_PX, width))
        return self.read(level, rows, columns)

    def facts(self) -> dict[str, Any]:
        """Return the facts that the page needs."""
        height, width = self.sizes[0]
        longer = int(width >= height)
        return {
            "name": self.name,
            "height": height,
            "width": width,
            "tile": TILE_PX,
            "levels": [
                {"height": size[0], "width": size[1], "scale": level_scale(max(height, width), size[longer])}
                for size in self.sizes
            ],
            "microns_per_px": self.microns_per_px,
            "provenance": self.provenance,
        }


def level_scale(side: int, level_side: int) -> float:
    """Return the pixels of a level per pixel of the image; exact if halving (rounding up) made the level.

    The sides are the longer ones: a short side may be 1 px in several levels.
    """
    factor = 1
    while ceil(side / factor) > level_side:
        factor *= 2
    return 1.0 / factor if ceil(side / factor) == level_side else level_side / side


def open_image(path: str | Path) -> Pyramid:
    """Open an OME-Zarr image (also at an address of fsspec), a slide, or a picture; raises `ValueError`."""
    text = local(str(path)).rstrip("/")
    is_local = "://" not in text
    try:
        if is_local and not Path(text).exists():
            raise UnusableImageError(UNFINISHED if Path(f"{text}.work").exists() else "does not exist")
        if text.endswith(".zarr") or (is_local and Path(text).is_dir()):
            pyramid = open_zarr(text)
        elif not is_picture(Path(text).name):
            raise UnusableImageError("must be an .ome.zarr, .tif, .png or .jpg image")
        elif Path(text).suffix.lower() in SLIDE_SUFFIXES or is_tiled_pyramid(Path(text)):
            pyramid = _open_tiff(Path(text))
        else:
            pyramid = _open_picture(Path(text))
        height, width = pyramid.sizes[-1]
        if height * width > LARGEST_OVERVIEW_PX:
            raise UnusableImageError(
                f"its smallest level has {height}x{width} px; save it as a pyramid with smaller levels"
            )
        return pyramid
    except UnusableImageError as error:
        raise ValueError(f"{text}: {error}") from None


def open_zarr(address: str) -> Pyramid:
    """Open an OME-Zarr image (NGFF 0.5; axes c, y, x; uint8); raises `UnusableImageError`."""
    try:
        from diffnca.formats.stores import exists, opened, zarr
    except ImportError:
        raise UnusableImageError("OME-Zarr needs zarr: pip install 'diffnca[giga]'") from None
    try:
        with refusing("damaged root metadata", OSError):
            root = zarr.open_group(opened(address), mode="r", zarr_format=3)
    except FileNotFoundError:
        is_begun = exists(opened(address), "0/zarr.json")
        raise UnusableImageError(
            UNFINISHED if is_begun else "is no OME-Zarr image, it has no zarr.json"
        ) from None
    if "ome" not in root.attrs and "0" in root:
        raise UnusableImageError(UNFINISHED)
    with refusing("is no OME-Zarr 0.5 image, metadata are missing or wrong", OSError):
        multiscale: Any = root.attrs["ome"]["multiscales"][0]  # type: ignore[index, call-overload, unused-ignore]
        axes = ", ".join(axis["name"] for axis in multiscale["axes"])
        levels: list[Any] = [root[dataset["path"]] for dataset in multiscale["datasets"]]
        sizes = tuple((int(level.shape[1]), int(level.shape[2])) for level in levels)
        kind, channels, microns = levels[0].dtype, levels[0].shape[0], microns_of(multiscale)
    if axes != "c, y, x":
        raise UnusableImageError(f"its axes are {axes}; must be c, y, x")
    shown = _shown_channels(root.attrs, channels)
    if kind != np.uint8 or shown == 2:
        raise UnusableImageError(
            f"{channels} channels of {kind}; must be gray, or colours and others, of uint8"
        )

    def read(level: int, rows: slice, columns: slice) -> Pixels:
        if "diffnca" in root.attrs:  # other programs may leave out black chunks
            _require_files(root.store, levels[level], rows, columns)
        return np.moveaxis(np.asarray(levels[level][:shown, rows, columns]), 0, -1)

    return Pyramid(
        Path(address).name or address, sizes, read, microns, _as_text(root.attrs.get("diffnca", ""))
    )


def _shown_channels(attributes: Any, channels: int) -> int:
    """Return how many channels are colours, as our images say; of others they are all, or the first three."""
    guess = channels if channels <= 4 else 3
    if "diffnca" not in attributes:
        return guess
    with suppress(KeyError, TypeError, AttributeError):  # the metadata are absent, or of another form
        active = sum(channel.get("active") is True for channel in attributes["ome"]["omero"]["channels"])
        return active if active in (1, 3) else guess
    return guess


def _require_files(store: Any, level: Any, rows: slice, columns: slice) -> None:
    """Refuse a region with a missing or empty file: zarr would read the file as black."""
    from diffnca.formats.stores import lack_of

    _, height, width = level.shards or level.chunks
    for row in range(rows.start // height, -(-rows.stop // height)):
        for column in range(columns.start // width, -(-columns.stop // width)):
            key = f"{level.path}/{level.metadata.encode_chunk_key((0, row, column))}"
            lack = lack_of(store, key)
            if lack is not None:
                raise ValueError(f"{key} {lack}; make the image again (`diffnca verify` names all faults)")


def _open_tiff(path: Path) -> Pyramid:
    levels = Levels(path)

    def read(level: int, rows: slice, columns: slice) -> Pixels:
        return to_array(levels.read(level, rows, columns, levels.channels))

    microns = None if levels.microns is None else levels.microns[1]
    texts: Mapping[str, str] = {}
    with suppress(ImportError, ValueError, SyntaxError):  # the last for OME-XML that does not parse
        from diffnca.formats.ome_tiff import read_ome_tiff_text

        texts = read_ome_tiff_text(path)
    return Pyramid(path.name, levels.sizes, read, microns, _as_text(texts))


def _open_picture(path: Path) -> Pyramid:
    """Open a picture: memory holds it, with smaller levels made of it."""
    with warnings.catch_warnings(action="ignore"), picture_in(content_of(path)) as picture:
        mode = picture.image.mode
        image = picture.image.convert({"1": "L", "L": "L", "RGBA": "RGBA"}.get(mode, "RGB"))
    levels = [image]
    while max(levels[-1].size) > TILE_PX:
        levels.append(levels[-1].reduce(2))
    arrays = [to_array(level) for level in levels]

    def read(level: int, rows: slice, columns: slice) -> Pixels:
        return arrays[level][rows, columns]

    sizes = tuple((level.height, level.width) for level in levels)
    return Pyramid(path.name, sizes, read, picture.microns_per_px, _as_text(picture.texts))


def _as_text(provenance: Any) -> str:
    """Return the provenance of an image as lines; long texts, such as XMP, are cut."""
    if isinstance(provenance, Mapping):
        return "\n".join(
            f"{str(key).removeprefix('diffnca:')}: {str(value)[:1000]}" for key, value in provenance.items()
        )
    return str(provenance)
