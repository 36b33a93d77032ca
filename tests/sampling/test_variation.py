"""Images near an image, and between two."""

from dataclasses import replace

import pytest
import torch

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas
from diffnca.config.model import SamplingConfig
from diffnca.models.file import load
from diffnca.sampling.generate import generate
from diffnca.sampling.starts import PureNoise
from diffnca.sampling.task import later_levels, walk_of
from diffnca.sampling.vary import Between, interpolate, vary

from .test_generation import GaussianDenoiser


def image() -> torch.Tensor:
    return 0.2 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-4.0, 4.0) + 0.1


def test_the_stronger_the_farther() -> None:
    distances = [
        float((vary(GaussianDenoiser(), image(), strength) - image()).square().mean())
        for strength in (0.05, 0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < 0.1 * distances[-1]


def test_a_full_variation_starts_from_an_image_that_is_all_but_gone() -> None:
    denoiser = GaussianDenoiser()
    vary(denoiser, image(), 1.0, seed=3)
    pure = Noise((3,)).normal(Stream.INITIAL, 0, Canvas(8, 8).whole, 3)
    assert torch.allclose(denoiser.images[0], pure, atol=2.0 * denoiser.levels[0].alpha)


def test_a_part_of_the_way_takes_its_share_of_the_steps() -> None:
    denoiser = GaussianDenoiser()
    _, levels = walk_of(denoiser, None, 20)
    later = later_levels(denoiser, levels, 0.5)
    assert later[0].index == 149
    assert later[-1].index == 0
    assert len(later) == sum(level.index <= 149 for level in levels)


def test_a_student_visits_only_levels_that_it_knows() -> None:
    student = GaussianDenoiser()
    student.config = replace(student.config, sampling=SamplingConfig("ddim", 3, (299, 199, 99)))
    _, levels = walk_of(student, None, None)
    assert [level.index for level in later_levels(student, levels, 0.8)] == [199, 99]
    assert [level.index for level in later_levels(student, levels, 0.01)] == [99]


def test_one_image_is_varied_once_for_each_seed() -> None:
    several = vary(GaussianDenoiser(), image(), seed=[1, 2])
    assert torch.equal(several[1:], vary(GaussianDenoiser(), image(), seed=2))
    assert not torch.equal(several[0], several[1])


def test_the_ends_of_an_interpolation_are_the_images_of_the_seeds() -> None:
    ends = interpolate(GaussianDenoiser(), (4, 7), [0.0, 1.0], height=5, width=6)
    assert torch.equal(ends[:1], generate(GaussianDenoiser(), height=5, width=6, seed=4))
    assert torch.allclose(ends[1:], generate(GaussianDenoiser(), height=5, width=6, seed=7), atol=1e-6)


def test_noise_between_two_seeds_has_variance_one() -> None:
    noise = Between(PureNoise(1), 9, (0.1, 0.5, 0.8))(Canvas(128, 128).whole, Noise((4, 4, 4)))
    assert torch.allclose(noise.var((-2, -1)), torch.ones(3, 1), atol=0.05)


@pytest.mark.parametrize("shares", [[], [-0.1], [0.5, 1.1]])
def test_shares_beyond_the_ends_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        interpolate(GaussianDenoiser(), (1, 2), shares, height=4, width=4)


def test_shares_may_be_a_tensor() -> None:
    model, size = load("pathology-4step"), {"height": 16, "width": 16}
    listed = interpolate(model, (1, 2), [0.0, 0.5], **size)
    assert torch.equal(interpolate(model, (1, 2), torch.tensor([0.0, 0.5]), **size), listed)
