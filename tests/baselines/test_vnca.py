from dataclasses import replace

import pytest
import torch

from diffnca.baselines.vnca import VNCA
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas
from diffnca.config.networks import VNCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_model

SMALL = VNCAConfig(size=16, latent=12, hidden=8, num_residual_blocks=2, encoder_channels=2, num_cell_steps=2)
WHOLE = replace(SMALL, start=16, update_probability=0.5)


def with_random_weights(config: VNCAConfig) -> VNCA:
    torch.manual_seed(0)
    network = VNCA(config).requires_grad_(False)
    network.rule.project.weight.normal_(std=0.3)
    return network


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_published_network_has_nine_million_parameters_of_which_the_cells_have_half_a_million() -> None:
    network = build_model(recipe_named("vnca")).network
    convolutions = sum(25 * i * o + o for i, o in ((3, 32), (32, 64), (64, 128), (128, 256), (256, 512)))
    assert count(network.encoder) == convolutions + (512 * 4 * 4 + 1) * 2 * 256
    assert count(network.rule) == (9 * 256 + 1) * 128 + 4 * 2 * 129 * 128 + 129 * 256 == 460_160
    assert count(network) == 9_010_368


def test_an_image_is_described_by_a_mean_and_a_deviation_of_each_latent_number() -> None:
    mean, log_deviation = with_random_weights(SMALL).encode(torch.randn(3, 3, 16, 16))
    assert mean.shape == log_deviation.shape == (3, 12)


def test_cells_divide_until_there_is_one_for_each_pixel() -> None:
    network = with_random_weights(SMALL)
    assert network.seed(torch.ones(2, 12)).shape == (2, 12, 2, 2)
    assert network.grow(network.seed(torch.ones(2, 12))).shape == (2, 12, 16, 16)


def test_a_rule_without_training_leaves_every_cell_as_the_seed() -> None:
    network, latent = VNCA(SMALL), torch.randn(1, 12)
    assert torch.equal(network.grow(network.seed(latent)), latent[:, :, None, None].expand(-1, -1, 16, 16))


def test_a_cell_sees_as_far_as_it_is_updated() -> None:
    network = with_random_weights(replace(WHOLE, update_probability=1.0))
    state = torch.randn(1, 12, 16, 16)
    changed = state.clone()
    changed[..., 8, 8] += 1.0
    touched = (network.grow(changed) != network.grow(state)).any(1)[0].nonzero()
    assert (touched - 8).abs().max() == 2


def test_masked_cells_keep_their_state() -> None:
    network, state = with_random_weights(WHOLE), torch.randn(1, 12, 16, 16)
    masks = Noise((3,)).at(0)
    kept = ~masks.mask(0, Canvas(16, 16).whole, 0.5)
    grown = network.grow(state, masks, num_cell_steps=1)
    assert torch.equal((grown == state).all(1, keepdim=True), kept)


def test_recomputing_cell_steps_changes_no_gradient() -> None:
    gradients = []
    for recomputes in (False, True):
        network = with_random_weights(SMALL).requires_grad_(True)
        network.checkpoint_cells = recomputes
        network.grow(network.seed(torch.ones(1, 12))).square().mean().backward()
        gradients.append(network.rule.perceive.weight.grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 24}, "model.size=24: must be a multiple of 16"),
        ({"start": 3}, "model.start=3: must be size=16, halved any number of times"),
        ({"damage": 4}, "model.damage=4: must be 0, or model.start=model.size=16"),
        ({"latent": 8}, "model.latent=8: must be >= 9"),
    ],
)
def test_what_cannot_be_built_is_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)
