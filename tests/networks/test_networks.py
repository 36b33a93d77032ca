"""One suite for every network of cells: shapes, locality, conditions, masks, tiles, gradients, parameters."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.config.recipes import RECIPES, recipe_named
from diffnca.models.build import build_network
from diffnca.networks.automaton import Automaton

Network = Automaton

LOCAL = ("diff_nca", "fourier_diff_nca", "diff_nca_npj", "fourier_diff_nca_npj")
POSITION_FREE = "diff_nca"

OF_CELLS = [name for name in RECIPES if isinstance(recipe_named(name).model, NCAConfig)]
every_network = pytest.mark.parametrize("name", OF_CELLS)
local_networks = pytest.mark.parametrize("name", LOCAL)


def small(cell: CellConfig) -> CellConfig:
    """Return the rule with few channels and two cell steps that reach 1 and then 2 px, all cells updating."""
    return replace(
        cell, hidden=12, num_cell_steps=2, dilations=(1, 2), embedding_width=8, update_probability=1.0
    )


def small_config(name: str) -> NCAConfig:
    """Return a small network of this recipe, without a coarse stage (`test_coarse.py` has one)."""
    model = recipe_named(name).model
    assert isinstance(model, NCAConfig)
    fourier = model.fourier and replace(model.fourier, window=4, cell=small(model.fourier.cell))
    return replace(model, patch=1, channels=8, cell=small(model.cell), fourier=fourier, coarse=None)


def network_of(config: NCAConfig) -> Network:
    """Return a network with random weights in every layer, also in those that begin at zero."""
    torch.manual_seed(0)
    network = build_network(config)
    for parameter_name, parameter in network.named_parameters():
        nn.init.normal_(
            parameter, std=1.0 if "embedding" in parameter_name or "gate" in parameter_name else 0.4
        )
    return network


def noisy(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def predict(network: Network, x_t: Tensor, region: Region | None = None, **given: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x_t, torch.full((len(x_t),), 0.3), region, **given)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, in terms of the largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def context_of(network: Network, x_t: Tensor) -> Tensor | None:
    return network.context(x_t, torch.full((len(x_t),), 0.3), Canvas(*x_t.shape[-2:]).whole)


class Masks:
    """Cell noise that answers with one fixed mask, or with its opposite."""

    def __init__(self, drawn: Tensor) -> None:
        self.drawn = drawn

    def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
        return self.drawn[..., : region.height, : region.width]


@every_network
@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (6, 2), (20, 33)])
def test_a_prediction_has_the_shape_of_the_image_at_any_size(name: str, sides: tuple[int, int]) -> None:
    x_t = noisy(2, 3, *sides)
    predicted = predict(network_of(small_config(name)), x_t)
    assert predicted.shape == x_t.shape
    assert predicted.isfinite().all()


@every_network
def test_gray_images_have_one_channel_in_and_out(name: str) -> None:
    network = network_of(replace(small_config(name), image_channels=1))
    assert predict(network, noisy(2, 1, 9, 8)).shape == (2, 1, 9, 8)


@every_network
def test_an_image_is_predicted_the_same_whatever_batch_it_is_in(name: str) -> None:
    network, x_t = network_of(small_config(name)), noisy(3, 3, 12, 10)
    assert relative_error(predict(network, x_t)[1:2], predict(network, x_t[1:2])) < 1e-5


@every_network
def test_the_noisy_image_is_never_overwritten(name: str) -> None:
    for rule in network_of(small_config(name)).compiled_parts():
        state, t = noisy(1, rule.channels, 6, 6), torch.tensor([0.3])
        region = Canvas(6, 6).whole
        change = rule(state, rule.condition(t, torch.tensor(0.0), region), 1, region).abs().sum(dim=(0, 2, 3))
        untouched = (change == 0).nonzero().flatten().tolist()
        half = rule.channels // 2
        assert untouched in ([0, 1, 2], [0, 1, 2, half, half + 1, half + 2])


@local_networks
def test_no_pixel_outside_the_radius_sees_a_change(name: str) -> None:
    outside, _ = changed_pixels(name)
    assert not outside.any()


@local_networks
def test_every_pixel_inside_the_radius_sees_a_change(name: str) -> None:
    _, inside = changed_pixels(name)
    assert inside.all()


def changed_pixels(name: str) -> tuple[Tensor, Tensor]:
    """Return which pixels change outside and inside the radius when one does, the context being given."""
    network, x_t = network_of(small_config(name)), noisy(1, 3, 21, 23)
    assert network.radius == 3
    context, touched = context_of(network, x_t), x_t.clone()
    touched[..., 9, 11] += 1.0
    changed = predict(network, x_t, context=context) != predict(network, touched, context=context)
    near = torch.zeros(21, 23, dtype=torch.bool)
    near[9 - 3 : 9 + 4, 11 - 3 : 11 + 4] = True
    changed = changed.any(dim=1)[0]
    return changed[~near], changed[near]


@pytest.mark.parametrize("name", ["diff_nca_arxiv_v1", "fourier_diff_nca_arxiv_v1"])
def test_with_statistics_over_space_every_pixel_sees_a_change(name: str) -> None:
    network, x_t = network_of(small_config(name)), noisy(1, 3, 21, 23)
    assert network.radius is None
    context, touched = context_of(network, x_t), x_t.clone()
    touched[..., 9, 11] += 1.0
    changed = predict(network, x_t, context=context) != predict(network, touched, context=context)
    assert changed.any(dim=1).all()


def test_the_fourier_stage_sees_every_pixel_at_once() -> None:
    network, x_t = network_of(small_config("fourier_diff_nca")), noisy(1, 3, 21, 23)
    touched = x_t.clone()
    touched[..., 9, 11] += 1.0
    assert (predict(network, x_t) != predict(network, touched)).any(dim=1).all()


@local_networks
@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("reflect", "circular")])
def test_a_tile_with_a_halo_of_the_radius_gives_its_part_of_the_whole(name: str, boundary: tuple) -> None:
    assert tile_error(name, boundary, missing_halo_px=0) < 1e-5


@local_networks
def test_a_halo_that_is_one_pixel_too_small_does_not(name: str) -> None:
    assert tile_error(name, ("reflect", "reflect"), missing_halo_px=1) > 1e-4


def tile_error(name: str, boundary: tuple, missing_halo_px: int) -> float:
    """Return the largest difference between the tiles of a canvas and the canvas at once."""
    network, x_t = network_of(small_config(name)), noisy(1, 3, 24, 22)
    whole = Canvas(24, 22, boundary).whole
    context = network.context(x_t, torch.tensor([0.3]), whole)
    at_once = predict(network, x_t, whole, context=context)
    errors = []
    for tile in whole.tiles(13, 11):
        grown = tile.grow(network.radius - missing_halo_px)
        part = predict(network, grown.crop(x_t, whole).contiguous(), grown, context=context)
        errors.append((tile.crop(part, grown) - tile.crop(at_once, whole)).abs().max() / at_once.abs().max())
    return max(errors).item()


@every_network
def test_the_prediction_depends_on_t(name: str) -> None:
    network, x_t = network_of(small_config(name)), noisy(1, 3, 9, 8)
    early, late = (network(x_t, torch.tensor([t])) for t in (0.1, 0.9))
    assert relative_error(early, late) > 1e-3


@every_network
def test_the_change_of_a_cell_depends_on_the_cell_step(name: str) -> None:
    for rule in network_of(small_config(name)).compiled_parts():
        state, t, region = noisy(1, rule.channels, 6, 6), torch.tensor([0.3]), Canvas(6, 6).whole
        first, second = (
            rule(state, rule.condition(t, torch.tensor(k), region), 1, region) for k in (0.0, 1.0)
        )
        assert relative_error(first, second) > 1e-3


@pytest.mark.parametrize(
    "name", [name for name in OF_CELLS if name not in (POSITION_FREE, "diff_nca_map", "fourier_diff_nca")]
)
def test_a_published_prediction_depends_on_the_position(name: str) -> None:
    assert displacement_error(name) > 1e-3


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca"])
def test_our_image_stage_is_translation_invariant(name: str) -> None:
    network = network_of(replace(small_config("diff_nca"), cell=small_config(name).cell))
    assert displacement_of(network) < 1e-5


def displacement_error(name: str) -> float:
    config = small_config(name)
    return displacement_of(network_of(replace(config, family="diff_nca", fourier=None)))


def displacement_of(network: Network) -> float:
    """Return how much a prediction changes when the image moves within a larger canvas."""
    x_t, canvas = noisy(1, 3, 12, 12), Canvas(60, 60)
    here, there = Region(10, 10, 12, 12, canvas), Region(31, 27, 12, 12, canvas)
    inner = slice(3, -3)
    predicted = [predict(network, x_t, region)[..., inner, inner] for region in (here, there)]
    return relative_error(*predicted)


@pytest.mark.parametrize(
    ("boundary", "shift"),
    [
        (("circular", "circular"), (5, -3)),
        (("reflect", "circular"), (0, 7)),
        (("circular", "reflect"), (4, 0)),
    ],
)
def test_a_seamless_canvas_can_be_rolled_before_or_after(boundary: tuple, shift: tuple[int, int]) -> None:
    network, x_t = network_of(small_config(POSITION_FREE)), noisy(1, 3, 12, 14)
    whole = Canvas(12, 14, boundary).whole
    rolled_after = predict(network, x_t, whole).roll(shift, dims=(-2, -1))
    rolled_before = predict(network, x_t.roll(shift, dims=(-2, -1)), whole)
    assert relative_error(rolled_before, rolled_after) < 1e-5


def test_a_canvas_with_edges_cannot_be_rolled() -> None:
    network, x_t = network_of(small_config(POSITION_FREE)), noisy(1, 3, 12, 14)
    rolled_after, rolled_before = (
        predict(network, x_t).roll(5, dims=-1),
        predict(network, x_t.roll(5, dims=-1)),
    )
    assert relative_error(rolled_before, rolled_after) > 1e-2


def masked(name: str, num_cell_steps: int) -> Network:
    """Return a network whose image cells update with probability 1/2."""
    config = small_config(name)
    cell = replace(config.cell, update_probability=0.5, num_cell_steps=num_cell_steps)
    return network_of(replace(config, cell=cell))


@every_network
def test_without_noise_one_cell_step_is_the_mean_over_the_masks(name: str) -> None:
    network, x_t = masked(name, num_cell_steps=1), noisy(2, 3, 9, 8)
    drawn = torch.rand(2, 1, 9, 8, generator=torch.Generator().manual_seed(2)) < 0.5
    mean = (predict(network, x_t, noise=Masks(drawn)) + predict(network, x_t, noise=Masks(~drawn))) / 2
    assert relative_error(predict(network, x_t), mean) < 1e-5


@every_network
def test_a_cell_that_is_never_drawn_keeps_its_prediction_at_zero(name: str) -> None:
    config = small_config(name)
    network = network_of(
        replace(config, family="diff_nca", fourier=None, cell=replace(config.cell, update_probability=0.5))
    )
    drawn = torch.ones(1, 1, 9, 8, dtype=torch.bool)
    drawn[..., 4, 5] = False
    predicted = predict(network, noisy(1, 3, 9, 8), noise=Masks(drawn))
    assert (predicted[..., 4, 5] == 0).all()
    assert (predicted[..., 4, 4] != 0).all()


def test_the_masks_of_the_two_stages_have_different_numbers() -> None:
    config = small_config("fourier_diff_nca")
    cells = [replace(cell, update_probability=0.5) for cell in (config.cell, config.fourier.cell)]
    network = network_of(replace(config, cell=cells[0], fourier=replace(config.fourier, cell=cells[1])))
    asked = []

    class Recorder(Masks):
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            asked.append(cell_step)
            return super().mask(cell_step, region, probability)

    predict(network, noisy(1, 3, 9, 9), noise=Recorder(torch.ones(1, 1, 9, 9, dtype=torch.bool)))
    assert sorted(asked) == sorted(set(asked)) and len(asked) == 4


@every_network
def test_recomputing_cell_steps_gives_the_same_gradients(name: str) -> None:
    network, x_t, t = network_of(small_config(name)), noisy(2, 3, 9, 8), torch.tensor([0.2, 0.7])
    gradients = []
    for network.checkpoint_cells in (False, True):
        network.zero_grad()
        network(x_t, t).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for stored, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(stored, recomputed)


@every_network
def test_every_parameter_is_trained(name: str) -> None:
    network = network_of(small_config(name))
    network(noisy(2, 3, 9, 8), torch.tensor([0.2, 0.7])).square().mean().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca"])
def test_our_networks_begin_by_predicting_zero(name: str) -> None:
    torch.manual_seed(0)
    assert not predict(build_network(small_config(name)), noisy(1, 3, 9, 8)).any()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("diff_nca_arxiv_v1", 208_792),
        ("fourier_diff_nca_arxiv_v1", 885_960),
        ("diff_nca_npj", 336_528),
        ("fourier_diff_nca_npj", 1_098_144),
    ],
)
def test_a_published_network_has_its_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_network(recipe_named(name).model).parameters()) == parameters


@pytest.mark.parametrize(("name", "limit"), [("diff_nca", 208_792), ("fourier_diff_nca", 886_984)])
def test_our_networks_have_no_more_parameters_than_the_published_ones(name: str, limit: int) -> None:
    assert sum(p.numel() for p in build_network(recipe_named(name).model).parameters()) <= limit
