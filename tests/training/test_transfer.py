"""A network begins with the weights of another one: gray with those of colour, with planes or without."""

from dataclasses import replace

import pytest
import torch

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import CoarseConfig, FourierConfig, NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.models.build import build_denoiser
from diffnca.models.file import find_model, load_denoiser
from diffnca.networks.automaton import Automaton
from diffnca.training.transfer import fits, load_start, transferred

from .conftest import CELL


def is_fit(old: NCAConfig, new: NCAConfig) -> bool:
    return fits(Config(model=old), Config(model=new))


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
    weights = transferred(
        colour.network.state_dict(), colour.config.model, gray.config.model, gray.network.state_dict()
    )
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


def test_only_the_number_of_colours_may_differ() -> None:
    colour = recipe_named("diff_nca").model
    gray = replace(colour, image_channels=1)
    assert is_fit(colour, gray)
    assert not is_fit(colour, replace(gray, channels=64))
    assert not is_fit(gray, colour)
    assert not is_fit(recipe_named("fourier_diff_nca").model, replace(colour, image_channels=1))


WITHOUT_PLANES = {
    "image": NCAConfig(patch=2, channels=27, cell=CELL),
    "coarse": NCAConfig(patch=2, channels=27, cell=CELL, coarse=CoarseConfig(4, 60, 3, CELL)),
    "fourier": NCAConfig("fourier_diff_nca", channels=9, cell=CELL, fourier=FourierConfig(4, cell=CELL)),
}
every_stage = pytest.mark.parametrize("name", WITHOUT_PLANES)


def widened(name: str) -> tuple[Automaton, Automaton]:
    """Return a network with random weights, and the network with two planes that begins with them."""
    torch.manual_seed(0)
    old = Automaton(WITHOUT_PLANES[name])
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    new = Automaton(replace(old.config, given_channels=2))
    new.load_state_dict(transferred(old.state_dict(), old.config, new.config, new.state_dict()))
    return old, new


def drawn(channels: int) -> torch.Tensor:
    return torch.randn(1, channels, 16, 20, generator=torch.Generator().manual_seed(channels))


@every_stage
def test_a_network_with_planes_begins_by_predicting_what_the_network_without_them_does(name: str) -> None:
    old, new = widened(name)
    t = torch.tensor([0.4])
    with torch.no_grad():
        expected, found = old(drawn(3), t), new(drawn(3), t, given=drawn(2))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@every_stage
def test_every_stage_of_such_a_network_learns_from_the_planes(name: str) -> None:
    _, new = widened(name)
    new(drawn(3), torch.tensor([0.4]), given=drawn(2)).square().mean().backward()
    for rule in new.compiled_parts():
        assert rule.expand.weight.grad[:, : rule.planes].abs().amax(dim=0).min() > 0


@every_stage
def test_a_network_with_more_planes_begins_by_predicting_what_it_did_with_the_first_of_them(
    name: str,
) -> None:
    _, old = widened(name)
    with torch.no_grad():
        for rule in old.compiled_parts():
            rule.expand.weight.normal_(std=0.1)
        new = Automaton(replace(old.config, given_channels=5))
        new.load_state_dict(transferred(old.state_dict(), old.config, new.config, new.state_dict()))
        given, t = drawn(5), torch.tensor([0.4])
        expected, found = old(drawn(3), t, given=given[:, :2]), new(drawn(3), t, given=given)
        assert not torch.allclose(expected, old(drawn(3), t, given=torch.zeros(1, 2, 16, 20)), atol=1e-3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_planes_may_be_more_but_not_others() -> None:
    plain, two, three = (replace(WITHOUT_PLANES["coarse"], given_channels=planes) for planes in (0, 2, 3))
    assert is_fit(plain, two) and is_fit(two, two)
    assert not is_fit(two, three) and not is_fit(two, plain)


def test_a_model_that_makes_maps_begins_no_gray_one() -> None:
    maps = replace(recipe_named("diff_nca_map").model, made_channels=2)
    assert is_fit(maps, maps)
    assert not is_fit(maps, replace(maps, image_channels=1))
