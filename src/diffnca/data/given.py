"""The files that are given to be edited: images and masks."""

from __future__ import annotations

import logging
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from diffnca.canvas.pixels import to_model
from diffnca.data.decoding import Picture, flat, picture_in, to_array
from diffnca.data.refusals import UnusableImageError
from diffnca.data.sources import IMAGE_SUFFIXES, content_of, folder_listed, summary

WHITE = 128
"""Masks say fill from here on."""


@dataclass(frozen=True)
class Given:
    """An image to edit.

    Attributes:
        path: its file.
        pixels: 8 bits, in the channels of the model, upright as its EXIF orientation says.
        holes: where it is not opaque; `None` if it is everywhere.
        notes: what a user should know, each for itself.
    """

    path: Path
    pixels: UInt8[np.ndarray, "h w c"]
    holes: Bool[Tensor, "h w"] | None
    notes: tuple[str, ...] = ()

    @property
    def image(self) -> Tensor:
        """The pixels as a model sees them: 1 c h w."""
        return to_model(self.pixels)[None]


def read_image(path: Path, channels: int) -> Given:
    """Read an image whose pixels shall be kept: exactly, if they have 8 bits.

    Args:
        path: its file. Gray becomes colour for a model of colour images.
        channels: of the model's images.

    Raises:
        ValueError: it cannot be used, or is in colour for a gray model.
    """
    with _picture_in(path) as picture:
        colours = to_array(picture.image.convert("RGB"))
        if channels == 1 and (colours != colours[..., :1]).any():
            raise UnusableImageError("is in colour, the model makes gray images; convert it to gray first")
        is_opaque = picture.image.mode != "RGBA"
        holes = None if is_opaque else torch.from_numpy(np.asarray(picture.image.getchannel("A")) < 255)
        return Given(path, colours[..., :channels].copy(), holes, picture.notes)


def read_mask(path: Path) -> Bool[Tensor, "h w"]:
    """Read a mask: true where it is white, and not transparent.

    Raises:
        ValueError: it cannot be used.
    """
    with _picture_in(path) as picture:
        return torch.from_numpy(np.asarray(flat(picture.image, 1, "black")) >= WHITE)


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder, by name; what looks like one and is none is logged.

    Raises:
        ValueError: there are none.
    """
    listing = folder_listed(folder, is_deep=False)
    for line in summary(listing.left_out):
        logging.getLogger(__name__).warning("left out %s", line)
    paths = [folder / file.name for file in listing.files]
    if not paths:
        raise ValueError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}); give another folder")
    return paths


def mask_of(image: Path, masks: Path) -> Path:
    """Return the mask of an image: the one for all, or that of the same name in a folder.

    Names are equal in any normal form of Unicode.

    Raises:
        ValueError: there is none.
    """
    if not masks.is_dir():
        return masks
    name = unicodedata.normalize("NFC", image.stem)
    paths = [masks / file.name for file in folder_listed(masks, is_deep=False).files]
    found = [path for path in paths if unicodedata.normalize("NFC", path.stem) == name]
    if not found:
        raise ValueError(f"{masks}: holds no mask for {image.name}; it must have the same name")
    kinds = {suffix: number for number, suffix in enumerate(IMAGE_SUFFIXES)}
    return min(found, key=lambda path: (kinds.get(path.suffix.lower(), len(kinds)), path))


@contextmanager
def _picture_in(path: Path) -> Iterator[Picture]:
    """Within the block, the picture of a file; every refusal names the file.

    Raises:
        ValueError: it cannot be used.
    """
    try:
        with warnings.catch_warnings(action="ignore"), picture_in(content_of(path)) as picture:
            yield picture
    except UnusableImageError as error:
        raise ValueError(f"{path}: {error}") from None
