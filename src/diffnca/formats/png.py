"""PNG files for images that fit in memory; text chunks record how an image was made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from diffnca.canvas.region import Canvas, Region
from diffnca.errors import one_line
from diffnca.files import check_target, replace_atomically

Pixels = UInt8[np.ndarray, "h w c"]


class PngWriter:
    """Collect regions in memory, in any order and repeatedly, and write a PNG file at the end."""

    def __init__(self, path: Path) -> None:
        """Refuse a `path` like `check_target`."""
        check_target(path, (".png",))
        self.path = path

    def open(self, canvas: Canvas, channels: int, text: Mapping[str, str]) -> None:
        """Begin an image of `channels` (1: gray, 3: RGB) with the metadata `text`."""
        self.canvas = canvas
        self.text = dict(text)
        self.pixels = np.zeros((canvas.height, canvas.width, channels), np.uint8)

    def write(self, region: Region, pixels: Pixels) -> None:
        """Keep the pixels of `region`."""
        rows, columns = region.rows().numpy(), region.columns().numpy()
        self.pixels[np.ix_(rows, columns)] = pixels

    def close(self) -> None:
        """Write the file atomically."""
        information = PngImagePlugin.PngInfo()
        for key, value in self.text.items():
            information.add_itxt(key, value)
        gray = self.pixels.shape[2] == 1
        image = Image.fromarray(self.pixels[..., 0] if gray else self.pixels)
        with replace_atomically(self.path) as partial:
            image.save(partial, format="PNG", pnginfo=information)


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
    """Write a complete image."""
    writer = PngWriter(path)
    canvas = Canvas(pixels.shape[0], pixels.shape[1])
    writer.open(canvas, pixels.shape[2], text)
    writer.write(canvas.whole, pixels)
    writer.close()


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
