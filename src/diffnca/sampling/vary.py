"""Images near an image, and images between two images.

[1] Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations", 2022.
[2] Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.schedule import Level
from diffnca.errors import shown
from diffnca.sampling.arguments import (
    canvas_of,
    check_images,
    check_model,
    listed_seeds,
    number,
    number_between,
)
from diffnca.sampling.known import KnownMeans, KnownPixels, Noised, Picture
from diffnca.sampling.labels import mixed
from diffnca.sampling.starts import Initial, start_of
from diffnca.sampling.styles import styles_between
from diffnca.sampling.task import LeadingOptions, MakeTask, Task, later_levels, sample_edits, sample_images
from diffnca.sampling.upscale import Enlarged


def vary(
    model: ImageDenoiser | Autoencoder,
    image: Shaped[Tensor, "*b_c_h_w"],
    strength: float = 0.5,
    **options: Unpack[LeadingOptions],
) -> Float[Tensor, "n c h w"]:
    """Make images that resemble given images: noise them in part, then denoise them [1].

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        image: b c h w, in [-1, 1]. One image with a list of seeds is varied once per seed.
        strength: where the walk starts, above 0 and at most 1: near 0 little changes, 1 is pure noise.
        **options: see `LeadingOptions`.

    Raises:
        ValueError: an argument is not allowed.
    """
    check_model(model)
    check_images(image, model.image_channels)
    canvas = canvas_of(image.shape[-2], image.shape[-1], options.get("boundary", Canvas.boundary))
    return sample_edits(model, image, options, canvas, variation(canvas, image, strength))


def variation(canvas: Canvas, image: Float[Tensor, "b c y x"], strength: float) -> MakeTask:
    """Return a function that gives the task to vary an image, which is stretched to the canvas."""
    first = number_between("strength", strength, 0.0, 1.0)
    is_own = image.shape[-2:] == (canvas.height, canvas.width)
    original = KnownPixels(Picture(image))
    start = original.picture if is_own else Enlarged(KnownMeans(image))

    def task(denoiser: ImageDenoiser, levels: tuple[Level, ...]) -> Task:
        path = later_levels(denoiser, levels, first)
        return Task(canvas, path, Noised(start, path[0]), original=original)

    return task


def interpolate(
    model: ImageDenoiser | Autoencoder,
    seeds: Sequence[int] | Int[np.ndarray, "2"] | Int[Tensor, "2"],
    shares: Iterable[float] | Float[Tensor, " b"],
    *,
    height: int,
    width: int,
    **options: Unpack[LeadingOptions],
) -> Float[Tensor, "b c h w"]:
    """Make images between the images of two seeds; their style changes evenly, if the model knows styles.

    The mixed noise is `cos(a) * first + sin(a) * second`, again of variance 1. This is [2] for vectors at
    right angles, as noises of many pixels nearly are. All other random numbers are those of the first seed.

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        seeds: seeds of the two images, as `generate` makes them with `direct`.
        shares: for each image, the way from the first (0) to the second (1).
        height: rows in pixels, >= 1.
        width: columns in pixels, >= 1.
        **options: see `LeadingOptions`; `seed` has no effect. Two labels are of the two images, and mixed
            between them.

    Raises:
        ValueError: an argument is not allowed.
    """
    check_model(model)
    ends = listed_seeds(seeds)
    if ends is None or len(ends) != 2:
        raise ValueError(f"seeds={shown(seeds)}: must be two seeds, those of the first and the last image")
    first, second = ends
    if isinstance(shares, Iterable) and getattr(shares, "ndim", 1) == 1:  # of no dimension is one number
        shares = tuple(number("shares", share) for share in shares)
    if not isinstance(shares, tuple) or not shares or not all(0.0 <= share <= 1.0 for share in shares):
        raise ValueError(f"shares={shown(shares)}: must be one or more numbers from 0 to 1")
    canvas = canvas_of(height, width, options.get("boundary", Canvas.boundary))
    task = transition(canvas, second, shares)
    labels = mixed(options.get("label"), shares)
    options = {**options, "seed": [first] * len(shares), "label": labels}
    return sample_images(
        model, len(shares), options, task, lambda _, config: styles_between(config, (first, second), shares)
    )


def transition(canvas: Canvas, second: int, shares: tuple[float, ...]) -> MakeTask:
    """Return a function that gives the task to make images on the way to the seed `second`."""
    return lambda denoiser, levels: Task(canvas, levels, Between(start_of(denoiser), second, shares))


@dataclass(frozen=True)
class Between:
    """A start between the noise at hand (share 0) and the noise of another seed (share 1), for each image."""

    start: Initial
    seed: int
    shares: tuple[float, ...]

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return the start on `region`."""
        own, other = self.start(region, noise), self.start(region, Noise((self.seed,), noise.device))
        angles = torch.tensor(self.shares, dtype=torch.float64)[:, None, None, None] * (math.pi / 2.0)
        return torch.cos(angles).to(own) * own + torch.sin(angles).to(own) * other
