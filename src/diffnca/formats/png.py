"""PNG files for images that fit in memory; text chunks record how an image was made."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from diffnca.errors import one_line
from diffnca.files import check_own, check_target, replace_atomically

Pixels = UInt8[np.ndarray, "h w c"]

GAP_BETWEEN_SHEETS_PX = 12


def check_png(path: Path) -> None:
    """Refuse a path like `check_target`, another ending, and a file that this package has not made."""
    check_target(path, (".png",))
    check_own(path)


def read_png_text(path: Path) -> dict[str, str]:
    """Return the metadata of an image of any size; refuse a file that is no image or is damaged."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            text = {str(key): str(value) for key, value in image.info.items()}
            image.verify()  # compares the checksum of each chunk, decodes nothing
    except PermissionError:
        raise
    except Exception as error:  # damaged bytes can raise any error
        reason = "no image" if isinstance(error, UnidentifiedImageError) else f"damaged ({one_line(error)})"
        raise ValueError(f"{path}: is there, and {reason}; delete it, or give another name") from None
    return text


def write_png(path: Path, pixels: Pixels, text: Mapping[str, str]) -> None:
    """Write an image, gray or RGB, with the metadata `text`; the file appears complete or not at all."""
    _write(path, Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), text)


def write_numbers(
    path: Path,
    numbers: UInt8[np.ndarray, "h w"],
    colours: Sequence[tuple[int, int, int]],
    text: Mapping[str, str],
) -> None:
    """Write an image of numbers that viewers show in `colours`; numbers beyond these are transparent."""
    image = Image.fromarray(numbers)
    image.putpalette([value for colour in colours for value in colour])
    opaque = bytes(255 if number < len(colours) else 0 for number in range(256))
    is_known = int(numbers.max()) < len(colours)
    _write(path, image, text, **({} if is_known else {"transparency": opaque}))


def _write(path: Path, image: Image.Image, text: Mapping[str, str], **options: bytes) -> None:
    check_target(path, (".png",))
    information = PngImagePlugin.PngInfo()
    for key, value in text.items():
        information.add_itxt(key, value)
    with replace_atomically(path) as partial:
        image.save(partial, format="PNG", pnginfo=information, **options)


def contact_sheet(
    images: UInt8[np.ndarray, "b h w c"], columns: int | None = None, gap_px: int = 2
) -> UInt8[np.ndarray, "rows_px columns_px c"]:
    """Return the images on a white sheet, row by row; `None` columns make a nearly square sheet."""
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count))) if columns is None else columns
    rows = -(-count // columns)
    shape = (rows * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, channels)
    sheet = np.full(shape, 255, np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap_px), (index % columns) * (width + gap_px)
        sheet[top : top + height, left : left + width] = image
    return sheet


def side_by_side(*batches: UInt8[np.ndarray, "b h w _"]) -> UInt8[np.ndarray, "rows_px columns_px c"]:
    """Return the sheets of several batches of equal sizes, side by side; gray next to colours is RGB."""
    channels = max(each.shape[-1] for each in batches)
    parts = np.stack([contact_sheet(np.broadcast_to(each, (*each.shape[:-1], channels))) for each in batches])
    return contact_sheet(parts, columns=len(parts), gap_px=GAP_BETWEEN_SHEETS_PX)
