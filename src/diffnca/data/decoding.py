"""The bytes of one image file to its pixels, uint8 `h w c`.

What is kept of a file: its first frame, turned as its EXIF orientation says. 16-bit gray is scaled by 65535,
also where the camera used fewer bits; of 16-bit colour Pillow keeps the upper 8 bits. Transparent pixels are
laid over white, the background of slides and drawings. Colour profiles are not applied, not even to CMYK.
"""

import io
import re
import threading
from contextlib import nullcontext

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile

LARGEST_IMAGE_PX = 178_956_970
"""Larger images are refused (a small file may unpack to any size). It is Pillow's own limit."""
LARGEST_FILE_BYTES = 2 << 30
WHITE_IS_ZERO = 0
_LARGE_PX = 1 << 25
_one_large_image = threading.Lock()

Pixels = UInt8[np.ndarray, "h w c"]


class UnusableImageError(ValueError):
    """An image that cannot be trained on; the message is the reason, without the name of the image."""


def decode(encoded: bytes, *, channels: int, reduce: int = 1) -> Pixels:
    """Decode an image file to gray (1 channel) or RGB (3), smaller by the whole factor `reduce` (Lanczos).

    Rows and columns that do not fill a whole reduced pixel are dropped at the bottom and at the right.

    Raises:
        UnusableImageError: it is damaged, truncated, gigantic, too small to be reduced, or of an odd kind.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            _require_decodable_size(image)
            is_large = image.width * image.height > _LARGE_PX
            with _one_large_image if is_large else nullcontext():
                image.load()
                plain = to_plain(image, channels)
                return to_array(_reduced(plain, reduce))
    except UnusableImageError:
        raise
    except Image.DecompressionBombError:
        raise UnusableImageError(_too_large("more")) from None
    except MemoryError:
        raise UnusableImageError("unreadable: there is not enough memory to decode it") from None
    except Exception as error:  # the decoders of a dozen formats raise whatever they like on damaged files
        raise UnusableImageError(f"unreadable: {first_line(error)}") from None


def lanczos(
    image: Image.Image, width: int, height: int, box: tuple[float, float, float, float]
) -> Image.Image:
    """Resize `box` (left, top, right, bottom) of `image`; the filter also sees what surrounds the box."""
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _require_decodable_size(image: Image.Image) -> None:
    if image.width * image.height > LARGEST_IMAGE_PX:
        raise UnusableImageError(_too_large(f"{image.width}x{image.height} px, more"))


def _too_large(size: str) -> str:
    return (
        f"gigantic: {size} than the {LARGEST_IMAGE_PX:,} pixels that are decoded; "
        "cut it into parts, or read a tiled pyramid as a slide with microns_per_px"
    )


def to_plain(image: Image.Image, channels: int) -> Image.Image:
    """Return `image` upright and opaque, as `L` (1 channel) or `RGB` (3)."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        samples = from_16_bit(np.asarray(image))
        if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
            samples = 255 - samples  # of 8 bits Pillow does so itself
        gray = Image.fromarray(samples)
        gray.getexif().update(image.getexif())
        image = gray
    if image.mode in ("I", "F"):
        raise UnusableImageError("32-bit samples, whose range is unknown; save it with 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def from_16_bit(samples: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Scale samples of 0 to 65535 to 0 to 255, rounding to the nearest."""
    return ((samples.astype(np.uint32) * 255 + 32_767) // 65_535).astype(np.uint8)


def _reduced(image: Image.Image, reduce: int) -> Image.Image:
    width, height = image.width // reduce, image.height // reduce
    if min(width, height) < 1:
        raise UnusableImageError(f"too small: {image.width}x{image.height} px cannot be reduced by {reduce}")
    if reduce == 1:
        return image
    return lanczos(image, width, height, (0.0, 0.0, float(width * reduce), float(height * reduce)))


def to_array(image: Image.Image) -> Pixels:
    """Return the pixels of a plain image."""
    pixels = np.array(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def first_line(error: Exception) -> str:
    """Return what a decoder complains of, in one line."""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", line).replace("image file image", "image")
