"""The engine on a CPU: it computes what the network computes, and the same bits wherever a cell lies."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import CellConfig
from diffnca.config.recipes import recipe_named
from diffnca.engine import prepare
from diffnca.engine.cpu import BlockedCells
from diffnca.networks.cell import CellNoise, run_cells

from .conftest import of_one_stage, with_random_weights

LOCAL = ("diff_nca", "fourier_diff_nca", "diff_nca_npj", "fourier_diff_nca_npj")
WHOLE = Canvas(41, 37).whole

local_networks = pytest.mark.parametrize("name", LOCAL)
both_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def small(cell: CellConfig, num_cell_steps: int) -> CellConfig:
    """Return the rule with few channels; its cell steps reach 1, 2, 1, 2, ... px."""
    return replace(cell, hidden=32, num_cell_steps=num_cell_steps, dilations=(1, 2), embedding_width=16)


def network_of(name: str, image_channels: int = 3, num_cell_steps: int = 3, channels: int = 16) -> nn.Module:
    """Return a small network of this recipe with random weights in every layer."""
    model = recipe_named(name).model
    fourier = model.fourier and replace(model.fourier, window=4, cell=small(model.fourier.cell, 2))
    cell = small(model.cell, num_cell_steps)
    model = replace(model, image_channels=image_channels, patch=1, coarse=None)
    return with_random_weights(replace(model, channels=channels, cell=cell, fourier=fourier))


def noisy(region: Region, images: int = 1, image_channels: int = 3) -> Tensor:
    shape = (images, image_channels, region.height, region.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def predict(
    network: nn.Module, x_t: Tensor, region: Region, noise: CellNoise | None = None, **given: Tensor | None
) -> Tensor:
    with torch.no_grad():
        return network(x_t, torch.full((len(x_t),), 0.3), region, noise, **given)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def predict_tile(
    network: nn.Module, x_t: Tensor, tile: Region, halo: int, noise: CellNoise | None = None
) -> Tensor:
    """Return the prediction on `tile`, made from the part of `x_t` within `halo` px of it."""
    grown = tile.grow(halo)
    context = network.context(x_t, torch.full((len(x_t),), 0.3), tile.canvas.whole)
    part = predict(network, grown.crop(x_t, tile.canvas.whole), grown, noise, context=context)
    return tile.crop(part, grown)


@local_networks
@both_types
@pytest.mark.parametrize("image_channels", [1, 3], ids=["gray", "colour"])
def test_it_computes_what_the_network_computes(name: str, dtype: torch.dtype, image_channels: int) -> None:
    network = network_of(name, image_channels)
    x_t = noisy(WHOLE, 2, image_channels)
    found = predict(prepare(network, "cpu", dtype), x_t, WHOLE)
    allowed = 2e-6 if dtype is torch.float32 else 2e-2
    assert relative_error(found, predict(network, x_t, WHOLE)) < allowed


@local_networks
@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (2, 2), (7, 1), (23, 31)], ids=str)
@pytest.mark.parametrize(
    "boundary",
    [("reflect", "reflect"), ("circular", "reflect"), ("reflect", "circular"), ("circular", "circular")],
    ids=str,
)
def test_it_computes_what_the_network_computes_at_any_size_and_edge(
    name: str, sides: tuple[int, int], boundary: tuple[Boundary, Boundary]
) -> None:
    network, whole = network_of(name), Canvas(*sides, boundary).whole
    x_t = noisy(whole)
    found = predict(prepare(network, "cpu", torch.float32), x_t, whole)
    assert relative_error(found, predict(network, x_t, whole)) < 2e-6


@pytest.mark.parametrize("modulation", ["none", "gate", "scale_shift"])
@pytest.mark.parametrize("positions", ["none", "relative", "pixels"])
@pytest.mark.parametrize("perceive_embedding", [False, True], ids=["hidden", "perceived"])
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_every_choice_of_a_cell_is_computed(
    modulation: str, positions: str, perceive_embedding: bool, padding: str
) -> None:
    network = of_one_stage(
        num_cell_steps=3,
        modulation=modulation,
        positions=positions,
        perceive_embedding=perceive_embedding,
        padding=padding,
    )
    x_t = noisy(WHOLE, 1, 1)
    found = predict(prepare(network, "cpu", torch.float32), x_t, WHOLE)
    assert relative_error(found, predict(network, x_t, WHOLE)) < 2e-6


@pytest.mark.parametrize("noise", [None, Noise((5, 6)).at(2)], ids=["expectation", "masks"])
def test_masks_are_those_of_the_network(noise: CellNoise | None) -> None:
    network, x_t = network_of("diff_nca_npj"), noisy(WHOLE, 2)
    found = predict(prepare(network, "cpu", torch.float32), x_t, WHOLE, noise)
    assert relative_error(found, predict(network, x_t, WHOLE, noise)) < 2e-6


def test_a_full_state_is_updated_as_by_the_network() -> None:
    rule, t = network_of("fourier_diff_nca").fourier, torch.tensor([0.3])
    state, whole = noisy(Canvas(5, 4).whole, 1, rule.channels), Canvas(5, 4).whole
    with torch.no_grad():
        expected = run_cells(rule, state, t, whole, None, origin=(1, 0))
    found = BlockedCells(rule, torch.float32).run(state, t, whole, None, origin=(1, 0))
    assert relative_error(found, expected) < 2e-6


def test_each_image_has_its_own_time() -> None:
    network, x_t, t = network_of("diff_nca"), noisy(WHOLE, 3), torch.tensor([0.1, 0.9, 0.1])
    with torch.no_grad():
        expected = network(x_t, t)
        assert relative_error(prepare(network, "cpu", torch.float32)(x_t, t), expected) < 2e-6


@local_networks
@both_types
@pytest.mark.parametrize("sides", [(1, 37), (7, 5), (16, 16), (40, 36)], ids=str)
@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "circular")], ids=str)
def test_tiles_equal_the_whole_to_the_bit(
    name: str, dtype: torch.dtype, sides: tuple[int, int], boundary: tuple[Boundary, Boundary]
) -> None:
    ready, whole = prepare(network_of(name), "cpu", dtype), Canvas(41, 37, boundary).whole
    x_t, noise = noisy(whole), Noise((7,)).at(3)
    expected = predict(ready, x_t, whole, noise, context=ready.context(x_t, torch.tensor([0.3]), whole))
    tiles = list(whole.tiles(*sides))
    for tile in {tiles[0], tiles[len(tiles) // 2], tiles[-1]}:
        found = predict_tile(ready, x_t, tile, ready.radius, noise)
        assert torch.equal(found, tile.crop(expected, whole))


@pytest.mark.parametrize("channels", [6, 7, 9, 10, 14, 18])
@pytest.mark.parametrize("name", ["diff_nca", "diff_nca_npj"])
@both_types
def test_tiles_equal_the_whole_to_the_bit_at_any_width_of_the_state(
    name: str, channels: int, dtype: torch.dtype
) -> None:
    ready = prepare(network_of(name, channels=channels), "cpu", dtype)
    x_t, tile = noisy(WHOLE), Region(17, 12, 9, 11, WHOLE.canvas)
    found = predict_tile(ready, x_t, tile, ready.radius)
    assert torch.equal(found, tile.crop(predict(ready, x_t, WHOLE), WHOLE))


@local_networks
@both_types
def test_a_halo_one_pixel_short_is_too_small(name: str, dtype: torch.dtype) -> None:
    ready = prepare(network_of(name, num_cell_steps=2), "cpu", dtype)
    x_t, tile = noisy(WHOLE), Region(17, 12, 9, 11, WHOLE.canvas)
    context = ready.context(x_t, torch.tensor([0.3]), WHOLE)
    expected = tile.crop(predict(ready, x_t, WHOLE, context=context), WHOLE)
    assert torch.equal(predict_tile(ready, x_t, tile, ready.radius), expected)
    assert not torch.equal(predict_tile(ready, x_t, tile, ready.radius - 1), expected)


@local_networks
@both_types
def test_a_batch_equals_single_images_to_the_bit(name: str, dtype: torch.dtype) -> None:
    ready, x_t = prepare(network_of(name), "cpu", dtype), noisy(WHOLE, 3)
    together = predict(ready, x_t, WHOLE, Noise((4, 5, 6)).at(1))
    for image in range(3):
        alone = predict(ready, x_t[image : image + 1], WHOLE, Noise((4 + image,)).at(1))
        assert torch.equal(together[image : image + 1], alone)


@pytest.fixture
def _same_threads_after() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@local_networks
@both_types
@pytest.mark.usefixtures("_same_threads_after")
def test_the_number_of_threads_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    ready, x_t, found = prepare(network_of(name), "cpu", dtype), noisy(WHOLE), []
    context = ready.context(x_t, torch.tensor([0.3]), WHOLE)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(predict(ready, x_t, WHOLE, context=context))
        assert torch.get_num_threads() == threads
    assert torch.equal(*found)


def test_it_runs_in_inference_mode_and_with_gradients_on() -> None:
    network, x_t, t = network_of("diff_nca"), noisy(WHOLE), torch.tensor([0.3])
    ready = prepare(network, "cpu", torch.float32)
    with torch.inference_mode():
        found = ready(x_t.clone(), t)
    assert torch.equal(found, ready(x_t, t))


def test_statistics_over_space_leave_the_network_as_it_is() -> None:
    network = network_of("diff_nca_arxiv_v1")
    assert prepare(network, "cpu") is network


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float16: must be torch\.float32 or torch\.bfloat16"):
        prepare(network_of("diff_nca"), "cpu", torch.float16)


def test_a_part_of_a_canvas_without_its_context_is_refused() -> None:
    tile = Region(0, 0, 8, 8, WHOLE.canvas)
    with pytest.raises(ValueError, match="must be the sum"):
        predict(prepare(network_of("fourier_diff_nca"), "cpu"), noisy(tile), tile)
