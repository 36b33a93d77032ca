"""Styles of new images: of a given picture, of what is known of an image, or drawn by the seed.

A style is constant over the canvas, so an image of any size has one stain. A model sees standard numbers:
their distance from the mean of its training images, in standard deviations.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.data.given import read_image
from diffnca.data.styles import Style, style_of
from diffnca.diffusion.walk import Planes
from diffnca.sampling.arguments import check_images
from diffnca.sampling.constants import Constants
from diffnca.sampling.known import KnownPixels

LARGEST = 3.0
"""Standard numbers end here, in deviations: beyond, training has shown nothing."""

LEAST_DEVIATION = 0.01
"""Smallest deviation of a number, which differs for images of one style by rounding alone."""


def known_styles(config: Config) -> Float64[Tensor, "n s"]:
    """Return the styles of training images that a model keeps; no rows for a model that was not trained."""
    numbers = len(config.layout.style_numbers(config.model.image_channels))
    styles = torch.tensor(config.layout.styles, dtype=torch.float64)
    return styles.reshape(len(styles) // max(numbers, 1), numbers)


def standard(styles: Float[Tensor, "b s"], config: Config) -> Float32[Tensor, "b s"]:
    """Return styles as the cells of a model see them; 0 is the mean of its training images."""
    known = known_styles(config).to(styles.device)
    mean, deviation = known.mean(dim=0), known.std(dim=0, correction=0).clamp(min=LEAST_DEVIATION)
    return ((styles.double() - mean) / deviation).clamp(-LARGEST, LARGEST).float()


def styled(planes: Planes | None, styles: Float[Tensor, "b s"] | None, config: Config) -> Planes | None:
    """Return given planes with those of styles after them; `planes` without styles, which stay unknown."""
    if styles is None:
        return planes
    own = len(config.layout.style_numbers(config.model.image_channels))
    count = config.layout.num_planes(config.model.image_channels) - own
    return Constants(standard(styles, config), planes, count)


def drawn_styles(config: Config, noise: Noise) -> Float64[Tensor, "b s"] | None:
    """Return the style of a training image for each seed; `None` for a model that knows no styles."""
    known = known_styles(config)
    if not len(known):
        return None
    drawn = Noise(noise.seeds).uniform(Stream.STYLE, 0, Canvas(1, 1).whole, 1)[:, 0, 0, 0]
    return known[(drawn * len(known)).long()]


def styles_like(pictures: Any, config: Config, images: int) -> Float64[Tensor, "b s"]:
    """Return the styles of pictures, one for all of so many images or one for each; refuse other pictures."""
    check_follows_styles(config)
    try:
        check_images(pictures, config.model.image_channels)
    except ValueError as error:
        raise ValueError(f"like: {error}") from None
    if len(pictures) not in (1, images):
        allowed = f"must be one, or one for each of {images} images"
        raise ValueError(f"like of {len(pictures)} pictures: {allowed}")
    found = [style_of(each) for each in to_uint8(pictures)]
    if None in found:
        height, width = pictures.shape[-2:]
        raise ValueError(f"like of {height}x{width} px: must have 16x16 px or more; give a larger picture")
    return torch.tensor(found, dtype=torch.float64)


def styles_between(
    config: Config, seeds: tuple[int, int], shares: tuple[float, ...]
) -> Float64[Tensor, "b s"] | None:
    """Return styles on the way from that of one seed (share 0) to that of another one (share 1)."""
    ends = drawn_styles(config, Noise(seeds))
    way = torch.tensor(shares, dtype=torch.float64)[:, None]
    return None if ends is None else (1.0 - way) * ends[:1] + way * ends[1:]


def styles_of_known(known: KnownPixels | None, config: Config) -> Float64[Tensor, "b s"] | None:
    """Return the styles of the known pixels of images.

    Return `None` if too few pixels are known, and for a model that knows no styles.
    """
    if known is None or not config.layout.styles:
        return None
    seen = None if known.unknown is None else ~known.unknown.cpu().numpy()
    found = [style_of(each, seen) for each in to_uint8(known.picture.pixels)]
    return None if None in found else torch.tensor(found, dtype=torch.float64)


def read_style(path: Path, config: Config) -> Style:
    """Return the style of the opaque pixels of a picture; refuse a picture that is too small."""
    check_follows_styles(config)
    given = read_image(path, config.model.image_channels)
    style = style_of(given.pixels, None if given.holes is None else ~given.holes.numpy())
    if style is None:
        raise ValueError(f"{path}: must have 16x16 opaque px or more to show a style; give a larger picture")
    return style


def check_follows_styles(config: Config) -> None:
    """Refuse a model that knows no styles."""
    if not config.layout.styles:
        raise ValueError(
            "like: must be left out for a model that was trained without styles "
            "(diffnca train --layout.style)"
        )
