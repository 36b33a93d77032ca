"""Larger images from small images.

[1] Kalkhof et al., arXiv 2401.06291, section 3.5.
[2] Choi et al., "ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models", 2021.
"""

from dataclasses import dataclass
from typing import Unpack

from jaxtyping import Float, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.schedule import Level
from diffnca.errors import require
from diffnca.sampling.arguments import check_images, check_model, number_between
from diffnca.sampling.known import Known, KnownMeans, KnownPixels, Noised, Picture
from diffnca.sampling.task import LeadingOptions, MakeTask, Task, later_levels, sample_edits

LARGEST_FACTOR = 8.0

STRENGTHS: dict[str, float] = {"consistent": 0.7, "noise": 0.1}
"""Default start of the walk of each method, as a share of the way."""


def upscale(
    model: ImageDenoiser | Autoencoder,
    image: Shaped[Tensor, "*b_c_h_w"],
    factor: float,
    *,
    method: str = "consistent",
    strength: float | None = None,
    **options: Unpack[LeadingOptions],
) -> Float[Tensor, "n c h w"]:
    """Make images larger, with the detail that the model knows.

    Both methods enlarge the image by linear interpolation, noise it in part and denoise it. `"noise"` does no
    more, as published [1]: nothing keeps the result near the image. `"consistent"` gives the blocks the means
    of the image in each step [2]. Reducing the result by a whole factor then gives back the image, to 1/255.
    Other factors do so too, if an image with these means exists between black and white (see `residual`).

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        image: b c h w, in [-1, 1]. One image with a list of seeds is enlarged once per seed.
        factor: ratio of the sides, above 1 and at most 8; sides are rounded to whole pixels.
        method: `"consistent"` or `"noise"`.
        strength: start of the walk, in (0, 1]: 1 is pure noise; `None` is 0.7 (`"consistent"`) or 0.1.
        **options: see `LeadingOptions`.

    Raises:
        ValueError: an argument is not allowed.
    """
    check_model(model)
    check_images(image, model.image_channels)
    boundary = options.get("boundary", Canvas.boundary)
    canvas = enlarged_canvas(image.shape[-2], image.shape[-1], factor, boundary)
    return sample_edits(model, image, options, canvas, enlargement(canvas, image, method, strength))


def enlargement(
    canvas: Canvas, image: Float[Tensor, "b c y x"], method: str, strength: float | None
) -> MakeTask:
    """Return a function that gives the task to enlarge an image to a canvas."""
    if method not in list(STRENGTHS):
        raise ValueError(f"method={method!r}: must be consistent or noise")
    first = number_between("strength", STRENGTHS[method] if strength is None else strength, 0.0, 1.0)
    means, original = KnownMeans(image), KnownPixels(Picture(image))

    def task(denoiser: ImageDenoiser, levels: tuple[Level, ...]) -> Task:
        path = later_levels(denoiser, levels, first)
        start = Noised(Enlarged(means), path[0])
        if method == "noise":
            return Task(canvas, path, start, original=original)
        return Task(canvas, path, Known(start, means, path[0]), means, original=original)

    return task


def enlarged_canvas(height: int, width: int, factor: float, boundary: tuple[Boundary, Boundary]) -> Canvas:
    """Return the canvas of an enlarged image; refuse factors out of range."""
    factor = number_between("factor", factor, 1.0, LARGEST_FACTOR)
    sides = (round(height * factor), round(width * factor))
    require(sides != (height, width), "factor", factor, f"enough for a pixel more of {height}x{width}")
    return Canvas(*sides, boundary)


def residual(result: Float[Tensor, "b c h w"], image: Float[Tensor, "b c y x"]) -> float:
    """Return the largest difference between the means of a result over blocks and the small image.

    The unit is the range from black to white: 1/255 is one level of 8 bits.
    """
    means = KnownMeans(image)
    whole = Canvas(result.shape[-2], result.shape[-1]).whole
    return float((means.grid.means(result, whole) - image).abs().max()) / 2.0


@dataclass(frozen=True)
class Enlarged:
    """A start from the image whose means are known, by linear interpolation between its pixels."""

    means: KnownMeans

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return the image on `region`."""
        return self.means.grid.interpolated(self.means.small, region)
