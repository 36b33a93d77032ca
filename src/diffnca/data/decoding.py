"""From the bytes of a picture to its pixels, for training, editing, viewer and evaluation alike.

The first picture of a file is kept and turned as its EXIF orientation says. 16-bit gray is divided by 65535,
also where the camera used fewer bits; 16-bit colour keeps its upper 8 bits. For training, transparent pixels
are laid over white, the background of slides. Colour profiles and broken metadata are ignored.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

from diffnca.data import tiff
from diffnca.data.refusals import UnusableImageError, refusing, require_content, require_decodable_size

NEARLY_WHITE = 220
"""A pixel all of whose channels are at least so bright is white: glass, background."""

OPAQUE = 250
"""Alpha from this value on counts as opaque: some programs store 254 everywhere."""

_LARGEST_PARTLY_CLEAR_SHARE = 0.5
"""In a TIFF file; another band that is marked as alpha is partly clear nearly everywhere."""
_LARGEST_12_BIT = 4095
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGE_PX = 1 << 25
_one_large_image = threading.Lock()

Pixels = UInt8[np.ndarray, "h w c"]


class Decoded(NamedTuple):
    """Pixels, and what a user should know of their file."""

    pixels: Pixels
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A picture in memory.

    Attributes:
        image: upright, 8 bits a sample, in any mode of Pillow; `RGBA` if and only if it is not opaque.
        notes: what a user should know.
        microns_per_px: width of a pixel; `None` if unknown.
        is_deep: whether the file has more than 8 bits a sample.
    """

    image: Image.Image
    notes: tuple[str, ...]
    texts: dict[str, str]
    microns_per_px: float | None
    is_deep: bool = False


def decode(encoded: bytes, *, channels: int, reduce: int = 1) -> Decoded:
    """Decode an image file to gray (1 channel) or RGB (3), smaller by the integer factor `reduce` (Lanczos).

    Rows at the bottom and columns at the right that do not fill a reduced pixel are dropped.
    """
    with picture_in(encoded) as picture:
        image = flat(picture.image, channels)
        width, height = image.width // reduce, image.height // reduce
        if min(width, height) < 1:
            raise UnusableImageError(
                f"too small: {image.width}x{image.height} px cannot be reduced by {reduce}"
            )
        if reduce > 1:
            box = (0.0, 0.0, float(width * reduce), float(height * reduce))
            image = image.resize((width, height), Image.Resampling.LANCZOS, box)
        return Decoded(to_array(image), picture.notes)


@contextmanager
def picture_in(encoded: bytes) -> Iterator[Picture]:
    """Within the block, the picture of a file, one large one at a time; any error is `UnusableImageError`."""
    require_content(encoded[:256])
    with refusing("unreadable"), ExitStack() as opened:
        image, notes = _image_in(encoded)
        opened.enter_context(image)
        require_decodable_size(*image.size)
        if image.width * image.height > _LARGE_PX:
            opened.enter_context(_one_large_image)
        yield _loaded(image, encoded, notes)


def _image_in(encoded: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    """Return an image, which may be loaded later, and the notes on it that its reader has."""
    try:
        image = Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        if encoded.startswith(tiff.SIGNATURES):
            return tiff.read_with_tifffile(encoded)
        raise
    except ValueError:  # text that is larger than Pillow allows
        return Image.open(io.BytesIO(_without_text(encoded))), ()
    if isinstance(image, TiffImageFile) and tiff.is_misread(image):
        return tiff.read_with_tifffile(encoded)
    return image, ()


def _loaded(image: Image.Image, encoded: bytes, notes: tuple[str, ...]) -> Picture:
    microns, merged = None, None
    is_16_bit = _is_deep(image)
    if isinstance(image, TiffImageFile):
        tiff.require_unsigned(image)
        microns = tiff.microns_of_tags(image.tag_v2)
        merged = tiff.channels_in_pages(image, _to_8_bits)
        notes += tiff.notes_on(image) if merged is None else ("three pages are red, green and blue",)
    elif getattr(image, "is_animated", False):
        notes += ("holds several pictures; the first is read",)
    try:
        image.load()
    except ValueError:
        if not encoded.startswith(_PNG_SIGNATURE):
            raise
        image = Image.open(io.BytesIO(_without_text(encoded)))  # text may also stand after the pixels
        image.load()
    if is_16_bit:
        notes += ("of 16-bit samples 8 bits are kept", *_darkness(image))
    texts = {str(key): value for key, value in image.info.items() if isinstance(value, str)}
    reduced = _to_8_bits(image) if merged is None else merged
    if is_16_bit and isinstance(image, PngImageFile) and "transparency" in image.info:
        reduced = _with_alpha_of_16_bits(reduced, image, encoded)
    upright = _upright(reduced)
    is_tiff = encoded.startswith(tiff.SIGNATURES)
    return Picture(_opaque_or_rgba(upright, is_tiff), notes, texts, microns, is_16_bit)


def _without_text(encoded: bytes) -> bytes:
    if not encoded.startswith(_PNG_SIGNATURE):
        return encoded
    kept, place = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while place + 12 <= len(encoded):
        end = place + 12 + int.from_bytes(encoded[place : place + 4])
        if encoded[place + 4 : place + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(encoded[place:end])
        place = end
    return b"".join(kept)


def _is_deep(image: Image.Image) -> bool:
    """Return whether an undecoded image has more than 8 bits a sample, which Pillow tells of gray only."""
    if isinstance(image, TiffImageFile):
        return max(tiff.bits_of(image)) > 8
    if isinstance(image, PngImageFile):
        return any("16" in str(tile.args) for tile in image.tile)
    if isinstance(image, PpmImageFile) and isinstance(image.tile[0].args, tuple):  # the mode and the most
        return bool(image.tile[0].args[1] > 255)
    return image.mode.startswith(("I", "F")) or image.info.get("bits", 8) > 8  # `bits` is set for tifffile


def _darkness(image: Image.Image) -> tuple[str, ...]:
    samples = np.asarray(image)
    most = _LARGEST_12_BIT if samples.dtype != np.uint8 else _LARGEST_12_BIT >> 8
    if samples.max() > most or tiff.bits_of(image) == (12,):
        return ()
    return (f"its 16-bit samples are {_LARGEST_12_BIT:,} or less: nearly black; multiply them, say by 16",)


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        gray = tiff.image_of(np.asarray(image)[..., None], 12 if tiff.bits_of(image) == (12,) else 16)
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == 0:  # white; Pillow inverts 8 bits
            gray = ImageOps.invert(gray)
        gray.info = dict(image.info)  # with its EXIF
        return gray
    if image.mode in ("I", "F"):
        raise UnusableImageError("32-bit samples, whose range is unknown; save it with 8 or 16 bits")
    return image


def _with_alpha_of_16_bits(reduced: Image.Image, image: PngImageFile, encoded: bytes) -> Image.Image:
    """Return 8-bit pixels of a PNG file whose transparent colour has 16 bits, with the alpha of 16 bits."""
    clear, samples = np.asarray(image.info["transparency"]), np.asarray(image)
    if clear.ndim == 0:
        is_clear = samples == clear
    else:  # Pillow keeps the upper half of each sample of a colour; read as little-endian, the lower half
        lower = Image.open(io.BytesIO(_without_text(encoded)))
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        is_clear = ((samples == clear >> 8) & (np.asarray(lower) == clear & 255)).all(axis=2)
    alpha = Image.fromarray(np.where(is_clear, 0, 255).astype(np.uint8))
    merged = Image.merge(f"{reduced.mode}A", (*reduced.split(), alpha))
    merged.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return merged


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # the readers of EXIF and XMP raise anything
        return image


def _opaque_or_rgba(image: Image.Image, is_tiff: bool) -> Image.Image:
    """Return an image, `RGBA` only if it is not opaque; refuse a TIFF file whose alpha is another band."""
    if not image.has_transparency_data:
        return image
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    image = image.convert(straight).convert("RGBA")
    alpha = image.getchannel("A").point(lambda value: 255 if value >= OPAQUE else value)
    if alpha.getextrema()[0] == 255:
        return image.convert("RGB")
    values = np.asarray(alpha)
    share = float(((values > 0) & (values < 255)).mean())
    if is_tiff and share > _LARGEST_PARTLY_CLEAR_SHARE:
        raise UnusableImageError(
            f"its last channel is marked as alpha, and {share:.0%} of it is partly clear, as of another band "
            "(near infrared?); save it without this channel"
        )
    image.putalpha(alpha)
    return image


def flat(image: Image.Image, channels: int, colour: str = "white") -> Image.Image:
    """Return the image of a picture as gray (1 channel) or RGB (3), laid over a colour."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, colour), image)
    return image.convert("L" if channels == 1 else "RGB")


def of_samples(samples: np.ndarray, channels: int) -> Image.Image:
    """Return samples `h w c` of 8 or 16 bits, gray, RGB or RGBA, as gray (1) or RGB (3) over white."""
    if samples.dtype not in (np.uint8, np.uint16) or samples.shape[2] not in (1, 3, 4):
        raise UnusableImageError(
            f"{samples.shape[2]} channels of {samples.dtype}; must be gray or RGB, of 8 or 16 unsigned bits"
        )
    image = tiff.image_of(samples, 8 * samples.dtype.itemsize)
    return flat(_opaque_or_rgba(image, is_tiff=True), channels)


def to_array(image: Image.Image) -> Pixels:
    """Return the pixels of an image."""
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
