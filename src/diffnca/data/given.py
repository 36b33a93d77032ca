"""The files that are given to be edited: images exactly as they are, and masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from torch import Tensor

from diffnca.canvas.pixels import to_model
from diffnca.data.decoding import LARGEST_IMAGE_PX, first_line, to_array

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
"""Endings of the images that are taken from a folder."""

WHITE = 128
"""Masks say fill from here on."""


@dataclass(frozen=True)
class Given:
    """An image to edit.

    Attributes:
        path: its file.
        pixels: 8 bits, in the channels of the model, upright as its EXIF orientation says.
        holes: where it is not opaque; `None` if it is everywhere.
    """

    path: Path
    pixels: UInt8[np.ndarray, "h w c"]
    holes: Bool[Tensor, "h w"] | None

    @property
    def image(self) -> Tensor:
        """The pixels as a model sees them: 1 c h w."""
        return to_model(self.pixels)[None]


def read_image(path: Path, channels: int) -> Given:
    """Read an image whose pixels shall be kept exactly.

    Args:
        path: its file. Gray becomes colour for a model of colour images.
        channels: of the model's images.

    Raises:
        ValueError: it is no image, or not one of 8 bits and one frame, or in colour for a gray model.
    """
    with _opened(path) as opened:
        has_transparency = opened.has_transparency_data
        image = ImageOps.exif_transpose(opened)
        if has_transparency:
            image = image.convert("RGBA")
        if channels == 1 and not _is_gray(image):
            raise ValueError(f"{path}: is in colour, the model makes gray images; convert it to gray first")
        plain = image.convert("L" if channels == 1 else "RGB")
        alpha = np.asarray(image.getchannel("A")) if has_transparency else None
    holes = None if alpha is None or int(alpha.min()) == 255 else torch.from_numpy(alpha < 255)
    return Given(path, to_array(plain), holes)


def read_mask(path: Path) -> Bool[Tensor, "h w"]:
    """Read a mask: true where it is white, and not transparent.

    Raises:
        ValueError: it is no image of 8 bits and one frame.
    """
    with _opened(path) as opened:
        has_transparency = opened.has_transparency_data
        image = ImageOps.exif_transpose(opened)
        if has_transparency:
            black = Image.new("RGBA", image.size, "black")
            image = Image.alpha_composite(black, image.convert("RGBA"))
        return torch.from_numpy(np.asarray(image.convert("L")) >= WHITE)


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder, by name.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(path for path in folder.iterdir() if is_image(path))
    if not paths:
        raise ValueError(f"{folder}: holds no image ({', '.join(SUFFIXES)}); give another folder")
    return paths


def mask_of(image: Path, masks: Path) -> Path:
    """Return the mask of an image: the one for all, or that of the same name in a folder.

    Raises:
        ValueError: there is none.
    """
    if not masks.is_dir():
        return masks
    found = [path for path in masks.iterdir() if path.stem == image.stem and is_image(path)]
    if not found:
        raise ValueError(f"{masks}: holds no mask for {image.name}; it must have the same name")
    return min(found, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path))


def is_image(path: Path) -> bool:
    """Return whether a file is an image by its name."""
    return path.suffix.lower() in SUFFIXES


def _opened(path: Path) -> Image.Image:
    """Open an image of one frame and 8 bits.

    Raises:
        ValueError: it is none.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give an image")
    try:
        image = Image.open(path)
        if image.width * image.height > LARGEST_IMAGE_PX:
            raise ValueError(f"has more than {LARGEST_IMAGE_PX:,} pixels; cut it into parts")
        num_frames = getattr(image, "n_frames", 1)
        if num_frames > 1:
            raise ValueError(f"has {num_frames} frames; save one of them as an image")
        if is_deep(image):
            raise ValueError("has samples of more than 8 bits; save it with 8 bits")
        image.load()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # the decoders of a dozen formats raise whatever they like on damaged files
        raise ValueError(f"{path}: unreadable: {first_line(error)}") from None
    return image


def is_deep(image: Image.Image) -> bool:
    """Return whether an image that is not decoded yet has samples of more than 8 bits.

    Pillow has modes for gray ones only, and cuts the samples of colour images to 8 bits.
    """
    if isinstance(image, TiffImageFile):
        return bool(max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8)
    if isinstance(image, PngImageFile):
        return any("16" in str(tile.args) for tile in image.tile)
    if isinstance(image, PpmImageFile) and isinstance(image.tile[0].args, tuple):  # the mode and the most
        return bool(image.tile[0].args[1] > 255)
    return image.mode.startswith(("I", "F"))


def _is_gray(image: Image.Image) -> bool:
    """Return whether an image has no colour, whatever its mode."""
    if image.mode in ("1", "L", "LA"):
        return True
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    return bool((red == green).all() and (green == blue).all())
