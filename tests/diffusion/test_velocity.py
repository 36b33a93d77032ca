"""The error of a denoiser on held-out images."""

from typing import Any

import pytest
import torch
from torch import Tensor

from diffnca.config.model import Config, ScheduleConfig
from diffnca.diffusion.denoiser import Denoiser, Prediction
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.diffusion.velocity import velocity_error

IMAGES = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
SCHEDULE = NoiseSchedule.from_config(ScheduleConfig())
LEVELS = [SCHEDULE.level(index) for index in (18, 56, 93, 131, 168, 206, 243, 281)]  # of 300, in eight parts


class Constant(torch.nn.Module):
    """Answers the same number everywhere."""

    radius, has_context = 0, False

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def context(self, *_: Any) -> None:
        return None

    def forward(self, x_t: Tensor, *_: Any) -> Tensor:
        return torch.full_like(x_t, self.number)


def denoiser(prediction: Prediction, number: float = 0.0) -> Denoiser:
    return Denoiser(Constant(number), SCHEDULE, Config(prediction=prediction))


def test_of_a_black_estimate_it_is_the_power_of_the_images_over_that_of_the_noise() -> None:
    power = float((IMAGES.double() / 127.5 - 1.0).square().mean())
    expected = power * sum(level.sigma**-2 for level in LEVELS) / 8
    assert velocity_error(denoiser("clean"), IMAGES) == pytest.approx(expected, rel=1e-5)


def test_a_network_that_says_no_velocity_errs_by_the_power_of_the_velocity() -> None:
    x_0 = torch.full((400, 3, 8, 8), 191, dtype=torch.uint8)  # nearly 0.5, noise of power 1
    expected = sum(level.alpha**2 + level.sigma**2 * (191 / 127.5 - 1) ** 2 for level in LEVELS) / 8
    assert velocity_error(denoiser("velocity"), x_0) == pytest.approx(expected, rel=0.01)


def test_an_image_has_its_noise_whatever_batch_it_is_in() -> None:
    model = denoiser("noise", 0.1)
    first, rest = velocity_error(model, IMAGES[:3]), velocity_error(model, IMAGES[3:], seed=3)
    assert velocity_error(model, IMAGES) == pytest.approx((3 * first + 17 * rest) / 20, rel=1e-6)
