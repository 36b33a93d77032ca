"""TIFF files: files that Pillow misreads, channels in pages, tiles, the size of a pixel."""

import io
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL import TiffImagePlugin as Tag
from PIL.TiffImagePlugin import TiffImageFile

from diffnca.data.refusals import UnusableImageError, require_decodable_size

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # remarks on odd files; errors raise

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 274
"""The tag that says how a picture is turned."""

SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".qptiff")
TIFF_SUFFIXES = (".tif", ".tiff")
LARGEST_UM = 100.0
"""Coarser pixels come from a default such as 72 dots per inch; the size is unknown."""
_SEPARATE_PLANES = 2
_SAMPLE_KINDS = {2: "signed", 3: "floating-point"}
_GRAYS, _RGB, _YCBCR = (0, 1), 2, 6
_UNIT_UM = {2: 25_400.0, 3: 10_000.0}
_UM_OF = {"nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "mm": 1e3, "cm": 1e4}


def bits_of(image: Image.Image) -> tuple[int, ...]:
    """Return the bits of the samples of a pixel; (1,) where no TIFF tag gives them."""
    return tuple(getattr(image, "tag_v2", {}).get(Tag.BITSPERSAMPLE, (1,)))


def is_misread(image: TiffImageFile) -> bool:
    """Tell whether Pillow gives wrong pixels: of separate planes it reads 8-bit RGB(A) only (#5178)."""
    bits = bits_of(image)
    is_separate = image.tag_v2.get(Tag.PLANAR_CONFIGURATION) == _SEPARATE_PLANES and len(bits) > 1
    return is_separate and not (set(bits) == {8} and image.mode == ("RGB" if len(bits) == 3 else "RGBA"))


def require_unsigned(image: TiffImageFile) -> None:
    """Refuse samples whose range is unknown."""
    kind = _SAMPLE_KINDS.get(max(image.tag_v2.get(Tag.SAMPLEFORMAT, (1,))), "unsigned")
    _require_range(max(bits_of(image)), kind)


def _require_range(bits: int, kind: str) -> None:
    if kind != "unsigned" or bits > 16:
        raise UnusableImageError(
            f"{bits}-bit {kind} samples, whose range is unknown; save it with 8 or 16 unsigned bits"
        )


LEFT_OUT = "channels beyond colour and alpha are left out"
PAGES = "holds several pages; the first is read"


def notes_on(image: TiffImageFile) -> tuple[str, ...]:
    """Return what is left out of a file: channels beyond colour and alpha, further pages of this size."""
    extra = image.tag_v2.get(Tag.EXTRASAMPLES, ())
    notes = [LEFT_OUT] if 0 in extra or len(extra) > 1 else []
    size = image.size
    with suppress(Exception):  # a damaged page makes Pillow raise anything
        image.seek(1)
        if image.size == size:
            notes.append(PAGES)
    image.seek(0)
    return tuple(notes)


def channels_in_pages(
    image: TiffImageFile, to_gray: Callable[[Image.Image], Image.Image]
) -> Image.Image | None:
    """Return the colours in three gray pages that OME-XML or ImageJ name as channels; `None` if not so."""
    description = str(image.tag_v2.get(Tag.IMAGEDESCRIPTION, ""))
    number = re.search(r'\bSizeC="(\d{1,9})"|^channels=(\d{1,9})', description, re.MULTILINE)
    count = int(number[1] or number[2]) if number else 1
    if count == 1 or len(bits_of(image)) > 1 or not image.is_animated:
        return None
    if count != 3 or image.n_frames != 3:
        raise UnusableImageError(
            f"{count} channels in {image.n_frames} pages; save it as RGB, or each channel as a gray image"
        )
    pages = []
    for page in range(3):
        image.seek(page)
        require_decodable_size(*image.size)
        pages.append(to_gray(image).convert("L"))
    return Image.merge("RGB", pages)


def read_with_tifffile(encoded: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """Read the first page of a file that Pillow cannot read: gray or RGB, alpha or not, of 1 to 16 bits.

    Return the notes on what is left out too.
    """
    try:
        import tifffile
    except ImportError:
        raise UnusableImageError("this kind of TIFF needs tifffile: pip install 'diffnca[tiff]'") from None
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page: Any = file.pages.first
        require_decodable_size(page.imagewidth, page.imagelength)
        colours = 1 if page.photometric in _GRAYS else 3
        is_known = page.photometric in (*_GRAYS, _RGB) or (page.photometric == _YCBCR and page.is_jfif)
        is_plain = page.axes in ("YX", "YXS", "SYX") and (colours == 3 or page.samplesperpixel <= 2)
        if not is_known or not is_plain:
            raise UnusableImageError(
                f"{page.samplesperpixel} channels of the kind {page.photometric}; save it as gray or RGB"
            )
        samples = np.asarray(page.asarray())
        samples = np.moveaxis(samples, 0, -1) if page.axes == "SYX" else np.atleast_3d(samples)
        kinds = {"b": "unsigned", "u": "unsigned", "i": "signed", "f": "floating-point"}
        _require_range(page.bitspersample, kinds.get(samples.dtype.kind, "complex"))
        alpha = [int(kind) for kind in page.extrasamples[:1] if kind in (1, 2)]
        read = colours + len(alpha)
        image = image_of(samples[..., :read], page.bitspersample)
        notes = [LEFT_OUT] if samples.shape[2] > read else []
        with suppress(Exception):  # a damaged page makes tifffile raise anything; a single page has no next
            if file.pages[1].shape[:2] == page.shape[:2]:
                notes.append(PAGES)
    if page.photometric == _GRAYS[0]:
        bands = image.split()
        image = Image.merge(image.mode, (ImageOps.invert(bands[0]), *bands[1:]))
    if alpha == [1] and colours == 3:  # premultiplied
        image = Image.frombytes("RGBa", image.size, image.tobytes()).convert("RGBA")
    image.info["bits"] = page.bitspersample
    if ORIENTATION in page.tags:
        image.getexif()[ORIENTATION] = page.tags[ORIENTATION].value
    return image, tuple(notes)


def image_of(samples: np.ndarray, bits: int) -> Image.Image:
    """Return samples `h w c` with 8 bits: deeper gray is rounded, deeper colour keeps its upper bits."""
    if bits > 8 and samples.shape[2] > 2:
        samples = samples >> (bits - 8)
    elif bits != 8:
        most = 2**bits - 1
        samples = (samples.astype(np.uint32) * 255 + most // 2) // most
    pixels = samples.astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def is_tiled_pyramid(path: Path) -> bool:
    """Tell whether a TIFF file stores tiles and is large (BigTIFF) or has several resolutions."""
    try:
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            header = file.read(8)
            is_big = 43 in header[2:4]  # the version of files that may exceed 4 GiB
            tags = Tag.ImageFileDirectory_v2(header + file.read(8) if is_big else header)
            file.seek(tags.next)
            tags.load(file)
            return Tag.TILEWIDTH in tags and (is_big or Tag.SUBIFD in tags or bool(tags.next))
    except Exception:  # a damaged file is no slide; decoding it shows what is wrong
        return False


def microns_in(description: str) -> tuple[float, float] | None:
    """Return height and width of a pixel in micrometres from OME-XML, sound or not; `None` if unknown."""
    sides = []
    for axis in "YX":
        size = re.search(rf'\bPhysicalSize{axis}\s*=\s*"([^"]{{1,40}})"', description)
        unit = re.search(rf'\bPhysicalSize{axis}Unit\s*=\s*"([^"]{{1,9}})"', description)
        scale = _UM_OF.get(unit[1].replace("&#181;", "µ") if unit else "µm")
        sides.append(None if size is None or scale is None else positive(size[1], scale))
    return None if sides[0] is None or sides[1] is None else (sides[0], sides[1])


def microns_of_tags(tags: Mapping[int, Any]) -> float | None:
    """Return the width of a pixel in micrometres from the tags of a page; `None` if it is unknown."""
    microns = microns_in(str(tags.get(Tag.IMAGEDESCRIPTION, "")))
    if microns is not None:
        return microns[1]
    unit = _UNIT_UM.get(tags.get(Tag.RESOLUTION_UNIT, 0))
    dots = positive(tags.get(Tag.X_RESOLUTION), 1.0, 1e9)
    return None if unit is None or dots is None else positive(unit / dots)


def positive(value: object, scale: float = 1.0, most: float = LARGEST_UM) -> float | None:
    """Return a number in metadata, also with a decimal comma, times `scale`, if it is in (0, `most`)."""
    try:
        number = float(str(value).strip().replace(",", ".")) * scale
    except ValueError:
        return None
    return number if 0.0 < number < most else None
