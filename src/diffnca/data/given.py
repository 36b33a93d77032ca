"""Files to edit: images and masks."""

import logging
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
from diffnca.config.layout import MOST_CLASSES
from diffnca.data.decoding import Picture, flat, picture_in, to_array
from diffnca.data.outlines import OUTLINE_SUFFIXES
from diffnca.data.refusals import UnusableImageError
from diffnca.data.sources import IMAGE_SUFFIXES, content_of, folder_listed, stem_of, summary
from diffnca.data.tiff import SLIDE_SUFFIXES

_log = logging.getLogger(__name__)

WHITE = 128


@dataclass(frozen=True)
class Given:
    """An image to edit, upright as its EXIF orientation says, in the channels of the model."""

    path: Path
    pixels: UInt8[np.ndarray, "h w c"]
    holes: Bool[Tensor, "h w"] | None
    """Where it is not opaque; `None` if it is opaque everywhere."""

    @property
    def image(self) -> Tensor:
        """The pixels as a model sees them: 1 c h w."""
        return to_model(self.pixels)[None]


def read_image(path: Path, channels: int) -> Given:
    """Read an image to edit with 8 bits a sample, in gray or colour; log what a user should know of it."""
    with _picture_in(path) as picture:
        colours = to_array(picture.image.convert("RGB"))
        if channels == 1 and (colours != colours[..., :1]).any():
            raise UnusableImageError("is in colour, the model makes gray images; convert it to gray first")
        is_opaque = picture.image.mode != "RGBA"
        holes = None if is_opaque else torch.from_numpy(np.asarray(picture.image.getchannel("A")) < 255)
        for note in picture.notes:
            _log.warning("%s: %s", path, note)
        return Given(path, colours[..., :channels].copy(), holes)


def read_drawing(path: Path, channels: int) -> Given:
    """Read an image that is drawn in the colours of a model; refuse polygons and class numbers."""
    if path.suffix.lower() in OUTLINE_SUFFIXES:
        raise ValueError(
            f"{path}: holds polygons, and the model knows no classes; draw in the colours of its images"
        )
    given = read_image(path, channels)
    pixels = given.pixels
    is_map = (pixels == pixels[..., :1]).all() if channels > 1 else pixels.max() < MOST_CLASSES
    if is_map:
        raise ValueError(
            f"{path}: holds class numbers, and the model knows no classes; draw in the colours of its images"
        )
    return given


def read_mask(path: Path) -> Bool[Tensor, "h w"]:
    """Read a mask: true where it is white, and not transparent."""
    with _picture_in(path) as picture:
        return torch.from_numpy(np.asarray(flat(picture.image, 1, "black")) >= WHITE)


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder, by name; pictures that are left out are logged."""
    listing = folder_listed(folder, is_recursive=False)
    for line in summary(listing.left_out):
        _log.warning("left out %s", line)
    paths = [folder / file.name for file in listing.files]
    if not paths:
        raise ValueError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)}); give another folder")
    return paths


def companion_of(image: Path, files: Path, kind: str) -> Path:
    """Return the mask or layout of an image: `files`, or the file in this folder with the image's name."""
    if not files.is_dir():
        return files
    paths = [files / file.name for file in folder_listed(files, is_recursive=False).files]
    namesakes = [path for path in paths if stem_of(path.name) == stem_of(image.name)]
    if not namesakes:
        raise ValueError(f"{files}: holds no {kind} for {image.name}; it must have the same name")
    suffixes = (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES)
    return min(namesakes, key=lambda path: (suffixes.index(path.suffix.lower()), path))


@contextmanager
def _picture_in(path: Path) -> Iterator[Picture]:
    try:
        with warnings.catch_warnings(action="ignore"), picture_in(content_of(path)) as picture:
            yield picture
    except UnusableImageError as error:
        raise ValueError(f"{path}: {error}") from None
