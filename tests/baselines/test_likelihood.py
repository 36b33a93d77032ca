import math

import pytest
import torch

from diffnca.baselines.autoencoder import DiscretisedLogistic

LEVELS = (torch.arange(256, dtype=torch.float64) * 2 - 255) / 255


def numbers(image_channels: int, log_scale: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = 9 if image_channels == 3 else 2
    drawn = torch.randn(1, count, 1, 1, generator=generator, dtype=torch.float64) * 0.4
    drawn[:, image_channels : 2 * image_channels] = log_scale
    return drawn.expand(256, -1, -1, -1)


@pytest.mark.parametrize("log_scale", [-9.0, -7.0, -4.0, -1.0, 1.0])
def test_the_probabilities_of_all_levels_of_a_gray_pixel_sum_to_one(log_scale: float) -> None:
    distribution = DiscretisedLogistic(numbers(1, log_scale), 1)
    total = distribution.log_prob(LEVELS.view(256, 1, 1, 1)).exp().sum()
    assert math.isclose(total, 1.0, rel_tol=1e-9)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_the_probabilities_of_all_levels_of_a_colour_sum_to_one_given_the_colours_before(
    channel: int,
) -> None:
    images = torch.full((256, 3, 1, 1), LEVELS[100].item(), dtype=torch.float64)
    images[:, channel, 0, 0] = LEVELS
    later = numbers(3, -2.0)
    distribution = DiscretisedLogistic(later, 3)
    away, inverse = images - distribution._moved(images), torch.exp(-distribution.log_scale)
    upper, lower = (torch.sigmoid(inverse * (away + sign / 255)) for sign in (1, -1))
    upper[images > 0.999], lower[images < -0.999] = 1.0, 0.0
    naive = (upper - lower).clamp(min=1e-300).log().sum((1, 2, 3))
    assert torch.allclose(distribution.log_prob(images), naive, rtol=1e-7, atol=1e-7)
    assert math.isclose((upper - lower)[:, channel].sum(), 1.0, rel_tol=1e-9)


def test_a_level_far_from_the_mean_has_a_finite_probability_and_gradient() -> None:
    values = numbers(1, -7.0)[:1].float().clone().requires_grad_(True)
    log_prob = DiscretisedLogistic(values, 1).log_prob(torch.full((1, 1, 1, 1), 0.9))
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and values.grad.isfinite().all()


def test_green_moves_with_red_and_blue_with_both() -> None:
    values = torch.zeros(1, 9, 1, 1)
    values[:, :3] = torch.tensor([0.5, 0.0, 0.0]).view(1, 3, 1, 1)
    values[:, 6:] = torch.atanh(torch.tensor([0.5, -0.25, 0.5])).view(1, 3, 1, 1)
    centre = DiscretisedLogistic(values, 3).centre().flatten()
    assert torch.allclose(centre, torch.tensor([0.5, 0.25, -0.125 + 0.125]), atol=1e-6)


def test_the_centre_of_a_narrow_distribution_is_its_likeliest_level() -> None:
    distribution = DiscretisedLogistic(numbers(1, -6.0), 1)
    likeliest = LEVELS[distribution.log_prob(LEVELS.view(256, 1, 1, 1)).argmax()]
    assert abs(likeliest - distribution.centre()[0].item()) <= 1 / 255
