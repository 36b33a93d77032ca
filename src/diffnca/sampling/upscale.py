"""Larger images of small ones.

References:
    [1] Kalkhof et al., arXiv 2401.06291, section 3.5.
    [2] Choi et al., "ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models", 2021.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

from jaxtyping import Float, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.schedule import Level
from diffnca.sampling.arguments import check_between, check_images
from diffnca.sampling.denoisers import later_levels
from diffnca.sampling.known import Known, KnownMeans, Noised
from diffnca.sampling.task import Options, Task, sample_images

LARGEST_FACTOR = 8.0

STRENGTHS: dict[str, float] = {"consistent": 0.7, "noise": 0.1}
"""Where the walk starts if nothing is said, as a share of the way."""


def upscale(
    model: ImageDenoiser | Autoencoder,
    image: Shaped[Tensor, "*b_c_h_w"],
    factor: float,
    *,
    method: str = "consistent",
    strength: float | None = None,
    boundary: tuple[Boundary, Boundary] = ("reflect", "reflect"),
    **options: Unpack[Options],
) -> Float[Tensor, "n c h w"]:
    """Make images larger, with the detail that the model knows.

    Both methods enlarge the image with straight lines between its pixels, noise it in part and denoise it.
    `"noise"` is all that was published [1]: new detail, but nothing keeps the result near the image.
    `"consistent"` gives the blocks, in each step, the means that the image has there [2]. So reducing the
    result by a whole factor gives back the image, to 1/255 also after it is rounded to 8 bits; by another
    factor too, unless no image between black and white has these means, as near 1 (see `residual`).

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        image: b c h w, in [-1, 1]. One image with a list of seeds is enlarged once for each.
        factor: how many times as high and wide, above 1 and at most 8; sides are rounded to whole pixels.
        method: how the image is kept in sight.
        strength: where the walk starts: 1 is pure noise, near 0 nothing is changed; `None` is 0.7 for
            `"consistent"` and 0.1 for `"noise"`.
        boundary: how the image goes on beyond its edges, (y, x).
        **options: how images are made.

    Raises:
        ValueError: an argument is not allowed.
    """
    check_images(image, model.image_channels)
    canvas = enlarged_canvas(image.shape[-2], image.shape[-1], factor, boundary)
    return sample_images(model, len(image), options, enlargement(canvas, image, method, strength))


def enlargement(
    canvas: Canvas, image: Float[Tensor, "b c y x"], method: str, strength: float | None
) -> Callable[[ImageDenoiser, tuple[Level, ...]], Task]:
    """Return what gives the task to enlarge an image to a canvas."""
    if method not in list(STRENGTHS):
        raise ValueError(f"method={method!r}: must be consistent or noise")
    strength = STRENGTHS[method] if strength is None else strength
    check_between("strength", strength, 0.0, 1.0)
    means = KnownMeans(image)

    def task(denoiser: ImageDenoiser, levels: tuple[Level, ...]) -> Task:
        path = later_levels(denoiser, levels, strength)
        start = Noised(Enlarged(means), path[0])
        if method == "noise":
            return Task(canvas, path, start)
        return Task(canvas, path, Known(start, means, path[0]), means)

    return task


def enlarged_canvas(height: int, width: int, factor: float, boundary: tuple[Boundary, Boundary]) -> Canvas:
    """Return the canvas of an image of this size, enlarged.

    Raises:
        ValueError: the factor is not allowed.
    """
    check_between("factor", factor, 1.0, LARGEST_FACTOR)
    return Canvas(round(height * factor), round(width * factor), boundary)


def residual(result: Float[Tensor, "b c h w"], image: Float[Tensor, "b c y x"]) -> float:
    """Return how far the means of a result over the blocks of the small image are from it, at most.

    Of the whole range of an image, which is 1 here: 1/255 is one level of 8 bits.
    """
    means = KnownMeans(image)
    whole = Canvas(result.shape[-2], result.shape[-1]).whole
    return float((means.grid.means(result, whole) - image).abs().max()) / 2.0


@dataclass(frozen=True)
class Enlarged:
    """The image of which the means are known, with straight lines between its pixels.

    Attributes:
        means: what is known.
    """

    means: KnownMeans

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return the image on `region`."""
        return self.means.grid.interpolated(self.means.small, region)
