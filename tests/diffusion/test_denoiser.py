"""The denoiser: conversions between noise, clean and velocity, weights, loss."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest
import torch
from torch import Tensor

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config, LossConfig
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.diffusion.denoiser import Query, clean_of, loss_weight, stratified_steps, target_of
from diffnca.models.build import build_denoiser

PREDICTIONS = ("noise", "clean", "velocity")
ALPHA, SIGMA = 0.6, 0.8


def small_config(**changes: object) -> Config:
    cell = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
    return replace(Config(model=NCAConfig(channels=8, cell=cell)), **changes)


def example() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_0, noise = torch.randn(2, 2, 3, 5, 7, generator=generator, dtype=torch.float64)
    return x_0, noise, ALPHA * x_0 + SIGMA * noise


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_target_gives_back_the_clean_image(prediction: str) -> None:
    x_0, noise, x_t = example()
    output = target_of(prediction, x_0, noise, ALPHA, SIGMA)
    torch.testing.assert_close(clean_of(prediction, output, x_t, ALPHA, SIGMA), x_0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_weighted_losses_mean_the_same_error_of_the_clean_image(prediction: str) -> None:
    """Whatever is predicted, min-SNR is min(SNR, gamma) times the squared error of the clean image."""
    x_0, noise, x_t = example()
    output = target_of(prediction, x_0, noise, ALPHA, SIGMA) + 0.1
    weight = loss_weight(
        prediction, LossConfig("l2", "min_snr", 5.0), torch.tensor(ALPHA), torch.tensor(SIGMA)
    )
    squared = float(weight) * 0.1**2
    error = clean_of(prediction, output, x_t, ALPHA, SIGMA) - x_0
    expected = min(5.0, (ALPHA / SIGMA) ** 2) * float(error.square().mean())
    assert squared == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_errors_weighted_as_the_velocity_are_those_of_the_velocity(prediction: str) -> None:
    x_0, noise, x_t = example()
    output = target_of(prediction, x_0, noise, ALPHA, SIGMA) + 0.1
    loss = LossConfig("l2", "velocity", min_snr_gamma=1e9)
    weight = loss_weight(prediction, loss, torch.tensor(ALPHA), torch.tensor(SIGMA))
    error = (clean_of(prediction, output, x_t, ALPHA, SIGMA) - x_0) / SIGMA  # of the velocity
    assert float(weight) * 0.1**2 == pytest.approx(float(error.square().mean()), rel=1e-6)


def test_min_snr_clamps_above_gamma() -> None:
    weight = loss_weight("clean", LossConfig("l2", "min_snr", 5.0), torch.tensor(0.99), torch.tensor(0.1))
    assert float(weight) == 5.0


def test_steps_are_spread_evenly_over_the_batch() -> None:
    steps = stratified_steps(30, 300, torch.Generator().manual_seed(0), LossConfig())
    assert steps.div(10, rounding_mode="floor").tolist() == list(range(30))


@pytest.mark.parametrize("time", [0.1, 0.4, 0.9])
def test_the_logits_of_the_times_are_normal(time: float) -> None:
    loss = LossConfig(timesteps="logit_normal", logit_mean=-0.5, logit_std=1.2)
    steps = stratified_steps(10_000, 300, torch.Generator().manual_seed(0), loss)
    share = NormalDist(-0.5, 1.2).cdf(math.log(time / (1.0 - time)))
    assert float((steps < 300 * time).double().mean()) == pytest.approx(share, abs=2e-4)


def test_the_noisiest_step_is_drawn_where_a_time_rounds_to_one() -> None:
    loss = LossConfig(timesteps="logit_normal", logit_mean=10.0, logit_std=10.0)
    steps = stratified_steps(1000, 300, torch.Generator().manual_seed(0), loss)
    assert int(steps.max()) == 299


def test_a_network_that_answers_zero_has_the_loss_of_its_target() -> None:
    config = small_config(prediction="noise", loss=LossConfig("l1_l2", "uniform"))
    denoiser = build_denoiser(config)
    for parameter in denoiser.parameters():
        parameter.data.zero_()
    x_0 = torch.zeros(64, 3, 16, 16)
    loss = denoiser.loss(x_0, torch.Generator().manual_seed(0))
    assert float(loss.detach()) == pytest.approx(1.0 + (2.0 / torch.pi) ** 0.5, rel=0.02)


def test_the_estimate_depends_on_the_level() -> None:
    torch.manual_seed(0)
    denoiser = build_denoiser(small_config(prediction="clean"))
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x_t, whole = torch.randn(1, 3, 8, 8), Canvas(8, 8).whole
    one, other = (denoiser.estimate(Query(x_t, denoiser.schedule.level(i), whole)) for i in (10, 200))
    assert not torch.allclose(one, other, atol=1e-3)
