"""A network for gray images begins with the weights of a colour network."""

from dataclasses import replace

import pytest
import torch

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.models.build import build_denoiser
from diffnca.models.file import find_model, load_denoiser
from diffnca.training.gray import fits_in_gray, in_gray, load_start


def in_gray_of(config: Config) -> Config:
    return with_fields(config, {"model.image_channels": 1})


def estimate(denoiser: Denoiser, x_t: torch.Tensor) -> torch.Tensor:
    level = denoiser.schedule.level(150)
    with torch.no_grad():
        return denoiser.estimate(Query(x_t, level, Canvas(*x_t.shape[-2:]).whole))


@pytest.fixture(scope="module")
def x_t() -> torch.Tensor:
    return torch.randn(1, 1, 32, 40, generator=torch.Generator().manual_seed(0))


def blind_to_colour(colour: Denoiser) -> Denoiser:
    """Return a colour network that treats all colours alike: every channel shows the gray network's image."""
    gray = build_denoiser(in_gray_of(colour.config))
    weights = in_gray(colour.network.state_dict(), colour.config.model, gray.network.state_dict())
    gray.network.load_state_dict(weights)
    return gray


def test_a_network_blind_to_colour_predicts_alike_in_gray(x_t: torch.Tensor) -> None:
    torch.manual_seed(0)
    colour = build_denoiser(recipe_named("diff_nca"))
    with torch.no_grad():
        for stage, groups in (("coarse", 1), ("image", 2)):
            rule = getattr(colour.network, stage)
            patch = 4 if stage == "coarse" else 2
            for layer in (rule.project, rule.gate_perception.net):
                layer.weight.normal_(std=0.05)
                layer.bias.normal_(std=0.05)
            for group in range(groups):  # equal weights for the three colours of a group
                block = slice(group * 3 * patch**2, (group + 1) * 3 * patch**2)
                for half in (0, rule.channels * 2):
                    rows = slice(block.start + half, block.stop + half)
                    for tensor in (rule.gate_perception.net.weight, rule.gate_perception.net.bias):
                        shared = tensor[rows].unflatten(0, (3, -1)).mean(0, keepdim=True)
                        tensor[rows] = shared.expand(3, *shared.shape[1:]).flatten(0, 1)
                for tensor in (rule.project.weight, rule.project.bias):
                    shared = tensor[block].unflatten(0, (3, -1)).mean(0, keepdim=True)
                    tensor[block] = shared.expand(3, *shared.shape[1:]).flatten(0, 1)
    expected = estimate(colour, x_t.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    torch.testing.assert_close(estimate(blind_to_colour(colour), x_t), expected, atol=1e-4, rtol=1e-4)


def test_gray_weights_of_a_bundled_model_predict_nearly_as_it_does(x_t: torch.Tensor) -> None:
    colour = load_denoiser("texture")
    gray = build_denoiser(in_gray_of(colour.config))
    load_start(gray, find_model("texture"))
    expected = estimate(colour, x_t.expand(-1, 3, -1, -1)).mean(1, keepdim=True)
    error = (estimate(gray, x_t) - expected).square().mean() / expected.square().mean()
    assert error < 0.02


def test_only_the_number_of_channels_may_differ() -> None:
    colour = recipe_named("diff_nca").model
    gray = replace(colour, image_channels=1)
    assert fits_in_gray(colour, gray)
    assert not fits_in_gray(colour, replace(gray, channels=64))
    assert not fits_in_gray(gray, gray)
    assert not fits_in_gray(recipe_named("fourier_diff_nca").model, replace(colour, image_channels=1))
