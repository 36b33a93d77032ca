"""Enlarging: what the small image says holds, what is wrong is said."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_model, to_uint8
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, SamplingConfig
from diffnca.diffusion.denoiser import Query
from diffnca.diffusion.samplers import SAMPLERS
from diffnca.diffusion.schedule import CLEAN, Level, NoiseSchedule
from diffnca.models.file import load
from diffnca.sampling.known import KnownMeans
from diffnca.sampling.upscale import Enlarged, residual, upscale

PHOTOS = Path(__file__).parents[2] / "examples" / "photo"


@dataclass
class StubbornDenoiser:
    """Takes every image for one value, and remembers the levels."""

    value: float = 0.3
    image_channels: int = 3
    radius: int | None = 0
    has_context: bool = False
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.cosine)
    config: Config = field(default_factory=lambda: Config(sampling=SamplingConfig("dpmpp2m", 10)))
    levels: list[Level] = field(default_factory=list)

    def context(self, query: Query) -> None:
        return None

    def estimate(self, query: Query) -> Tensor:
        self.levels.append(query.level)
        return torch.full_like(query.x_t, self.value)


@dataclass
class NoisyDenoiser(StubbornDenoiser):
    """Takes the noisy image for the clean one, so that values far beyond black and white come up."""

    def estimate(self, query: Query) -> Tensor:
        return query.x_t / query.level.alpha


def small(height: int = 4, width: int = 5) -> Tensor:
    """Return 8-bit pixels, black and white among them."""
    pixels = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(0)).byte()
    pixels[0, 0], pixels[-1, -1] = 0, 255
    return to_model(pixels.numpy())[None]


# each factor with each sampler, and each of them with both denoisers
FACTORS = [
    ((StubbornDenoiser, NoisyDenoiser)[(index + number) % 2], factor, sampler)
    for index, factor in enumerate((2.0, 3.0, 4.0, 8.0))
    for number, sampler in enumerate(SAMPLERS)
]


@pytest.mark.parametrize(("denoiser", "factor", "sampler"), FACTORS)
def test_reducing_by_a_whole_factor_gives_the_image_back(denoiser: Any, factor: float, sampler: str) -> None:
    image = small()
    result = upscale(denoiser(), image, factor, sampler=sampler)
    assert torch.allclose(F.avg_pool2d(result, int(factor)), image, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_eight_bits_give_the_image_back_within_one_level(factor: int) -> None:
    image = small()
    pixels = to_uint8(upscale(NoisyDenoiser(), image, float(factor)))[0]
    again = F.avg_pool2d(torch.from_numpy(pixels.astype("float64")).movedim(-1, 0), factor)
    levels = (image[0].double() + 1.0) * 127.5
    assert float((again - levels).abs().max()) <= 1.0


def photo(name: str, side: int) -> Tensor:
    """Return a crop of a photo."""
    pixels = np.asarray(Image.open(PHOTOS / f"{name}.png"))[:side, :side]
    return to_model(pixels)[None]


@pytest.mark.parametrize("factor", [1.25, 1.5, 1.7, 2.5, 3.3])
def test_reducing_a_photo_by_another_factor_gives_it_back_within_a_level(factor: float) -> None:
    image = photo("small", 20)
    result = upscale(load("aerial"), image, factor, steps=4)
    assert residual(result, image) < 0.5 / 255  # half a level is left for rounding


@pytest.mark.parametrize("factor", [1.3, 1.5, 2.5])
def test_corrections_of_a_start_far_away_lead_near_the_image(factor: float) -> None:
    """Many of its pixels are far beyond black and white, so that corrections could overshoot."""
    pixels = np.asarray(Image.open(PHOTOS.parent / "textures" / "stones.jpg"))[:40, :40]
    image, side = to_model(pixels)[None], round(40 * factor)
    means, whole = KnownMeans(image), Canvas(side, side).whole
    noise = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    x = Enlarged(means)(whole, Noise((0,))) + 0.4 * noise
    uncorrected = means._shifted(x, means._shift(x, means.small, whole), whole).clamp(-1.0, 1.0)
    corrected = means.impose(x, CLEAN, 0, whole, Noise((0,)))
    assert residual(corrected, image) < 0.2 * residual(uncorrected, image)


def test_the_residual_of_a_photo_that_no_image_reduces_to_is_told() -> None:
    image = photo("trees", 40)
    assert 2 / 255 < residual(upscale(load("aerial"), image, 1.1, steps=4), image) < 40 / 255


@pytest.mark.parametrize(("share", "is_enough"), [(1.0, True), (0.3, False)])
def test_a_part_gets_the_bits_of_the_whole_from_as_far_as_is_said(share: float, is_enough: bool) -> None:
    canvas, image = Canvas(149, 6), photo("trees", 100)[..., :4]
    means = KnownMeans(image)
    x = Enlarged(means)(canvas.whole, Noise((0,)))
    x = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    whole = means.impose(x, CLEAN, 0, canvas.whole, Noise((0,)))
    part = Region(70, 0, 9, 6, canvas)
    around = part.grow(int(share * means.reach(canvas)))
    alone = means.impose(around.crop(x, of=canvas.whole), CLEAN, 0, around, Noise((0,)))
    assert torch.equal(part.crop(alone, of=around), part.crop(whole, of=canvas.whole)) is is_enough


def test_the_published_method_lets_the_result_go_where_the_model_wants() -> None:
    image = small()
    assert residual(upscale(StubbornDenoiser(), image, 2.0, method="noise"), image) > 0.1


@pytest.mark.parametrize(("strength", "first"), [(1.0, 299), (0.5, 149), (0.001, 0)])
def test_the_walk_starts_at_the_strength(strength: float, first: int) -> None:
    denoiser = StubbornDenoiser()
    upscale(denoiser, small(), 2.0, strength=strength)
    assert denoiser.levels[0].index == first


def test_sides_are_rounded_to_whole_pixels() -> None:
    assert upscale(StubbornDenoiser(), small(5, 7), 1.7).shape[-2:] == (8, 12)


def test_an_image_of_one_pixel_is_enlarged() -> None:
    assert torch.allclose(
        upscale(NoisyDenoiser(), small(1, 1), 4.0).mean((-2, -1)), small(1, 1)[..., 0, 0], atol=1e-5
    )


@pytest.mark.parametrize("factor", [0.5, 1.0, 9.0, float("nan")])
def test_factors_that_do_not_enlarge_are_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="above 1 and at most 8"):
        upscale(StubbornDenoiser(), small(), factor)


@pytest.mark.parametrize("strength", [0.0, 1.5, float("nan")])
def test_strengths_that_do_not_exist_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        upscale(StubbornDenoiser(), small(), 2.0, strength=strength)


def test_methods_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="must be consistent or noise"):
        upscale(StubbornDenoiser(), small(), 2.0, method="better")
