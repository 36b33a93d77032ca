"""Images that models make of maps, and sheets of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from diffnca import generate, vary
from diffnca.canvas.pixels import to_model
from diffnca.config.layout import LayoutConfig
from diffnca.data.layouts import Labelled, coloured
from diffnca.formats.png import contact_sheet
from diffnca.models.build import Generator
from diffnca.models.file import find_model

OUTLINE = (0, 220, 60)
HEADER_PX = 14

Make = Callable[[np.ndarray, int], Tensor]
"""Makes an image, 1 c h w in [-1, 1], of the numbers of a map and a seed."""


def scale_of(model: Generator, reduce: int) -> int:
    """Return how many px of the real images are one px of a model; refuse what cannot be reduced further."""
    scale = model.config.data.reduce
    if reduce % scale:
        raise SystemExit(
            f"--reduce {reduce}: must be a multiple of {scale}, the scale of {model.config.name}"
        )
    return scale


def legend_of(model: Generator, classes: Sequence[str]) -> LayoutConfig:
    """Return the legend of a model; these classes for a model that knows no layouts."""
    return model.config.layout if model.config.layout.classes else LayoutConfig(tuple(classes))


def numbers_of(source: Labelled, legend: LayoutConfig, scale: int) -> np.ndarray:
    """Return the class that has most of each pixel, for an image made smaller by `scale`."""
    labelled = replace(source, legend=legend).read(channels=3, reduce=scale).pixels
    return labelled[..., 3:].argmax(axis=2).astype(np.uint8)


def ways_of(
    model: Generator, legend: LayoutConfig, obey: Sequence[float], strengths: Sequence[float]
) -> Iterator[tuple[str, Make]]:
    """Yield the ways in which a model makes images of maps, with their titles; the first ignores the map."""
    yield (
        "no map",
        lambda numbers, seed: generate(model, height=numbers.shape[0], width=numbers.shape[1], seed=seed),
    )
    if model.config.layout.classes:
        for each in obey:
            yield f"map, obey {each:g}", lambda numbers, seed, each=each: followed(model, numbers, seed, each)
    else:
        for each in strengths:
            yield (
                f"drawing, strength {each:g}",
                lambda numbers, seed, each=each: varied(model, coloured(numbers, legend), seed, each),
            )


def followed(model: Generator, numbers: np.ndarray, seed: int, obey: float) -> Tensor:
    """Return an image made of a map."""
    layout = torch.from_numpy(np.ascontiguousarray(numbers))
    return generate(
        model, height=numbers.shape[0], width=numbers.shape[1], seed=seed, layout=layout, obey=obey
    )


def varied(model: Generator, drawing: np.ndarray, seed: int, strength: float) -> Tensor:
    """Return an image that resembles a drawing."""
    return vary(model, to_model(drawing)[None], strength, seed=seed)


def kept_name(path: str, *choices: object) -> str:
    """Return a name for what comes of a model and of choices; other weights have another name."""
    is_folder = Path(path, "layouts").is_dir()
    told = repr((path if is_folder else "", choices)).encode()
    weights = b"" if is_folder else find_model(path).read_bytes()
    return f"{Path(path).stem}-{sha256(told + weights).hexdigest()[:8]}"


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image with the edges of a mask."""
    edge = mask & ~ndimage.binary_erosion(mask, border_value=1)
    return np.where(edge[..., None], np.uint8(OUTLINE), image)


def sheet(columns: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Return columns of images under their titles, each image in the top left of its field."""
    images = [image for column in columns.values() for image in column]
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    fields = [_filled(image, height, width) for row in zip(*columns.values(), strict=True) for image in row]
    body = contact_sheet(np.stack(fields), len(columns))
    header = Image.new("RGB", (body.shape[1], HEADER_PX), "white")
    for number, title in enumerate(columns):
        ImageDraw.Draw(header).text((number * (width + 2) + 2, 1), title, "black")
    return np.concatenate([np.asarray(header), body])


def _filled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    filled = np.full((height, width, 3), 255, np.uint8)
    filled[: image.shape[0], : image.shape[1]] = image
    return filled
