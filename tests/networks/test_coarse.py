"""The coarse stage: what it sees, to whom it hands what, and that parts of images are those of the whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffnca import Canvas, Region, generate
from diffnca.benchmark.works import products
from diffnca.cli.main import main
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, CoarseConfig, NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.formats.ome_zarr import read_pixels
from diffnca.models.build import build_denoiser
from diffnca.models.file import write_model
from diffnca.networks.automaton import Automaton
from diffnca.networks.patches import PatchGrid

CELL = CellConfig(hidden=16, num_cell_steps=2, dilations=(1, 2), embedding_width=8, embedding_channels=8)
COARSE = CoarseConfig(patch=4, channels=60, handed=3, cell=CELL)
MODEL = NCAConfig(patch=2, channels=30, cell=CELL, coarse=COARSE)
RADIUS = 4 * 4 + 2 * 3 - 1


def with_random_weights(model: NCAConfig = MODEL) -> Automaton:
    torch.manual_seed(0)
    network = Automaton(model)
    for parameter in network.parameters():
        inputs = parameter[0].numel()
        nn.init.normal_(parameter, std=inputs**-0.5 if parameter.dim() > 1 else 0.1)
    return network.requires_grad_(False)


def noisy(region: Region, images: int = 1) -> Tensor:
    shape = (images, 3, region.height, region.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_both_stages_add_up_to_the_radius_and_no_pixel_beyond_is_seen() -> None:
    network, whole, t = with_random_weights(), Canvas(70, 74).whole, torch.tensor([0.3])
    assert network.radius == RADIUS
    x_t, farthest = noisy(whole), []
    own = network(x_t, t)
    for row, column in ((32, 36), (33, 37), (34, 38), (35, 39)):  # each place within a large cell
        touched = x_t.clone()
        touched[..., row, column] += 1.0
        rows, columns = (network(touched, t) != own).any(dim=1)[0].nonzero().unbind(1)
        ends = (row - rows.min(), rows.max() - row, column - columns.min(), columns.max() - column)
        farthest.append(torch.stack(ends))
    assert torch.stack(farthest).amax(dim=0).tolist() == [RADIUS] * 4


def test_each_cell_is_handed_what_its_square_says_of_it() -> None:
    network, region = with_random_weights(), Canvas(8, 12).whole
    grid, squares = PatchGrid(region, 2), PatchGrid(region, 4)
    state = torch.zeros(1, COARSE.channels, squares.cells.height, squares.cells.width)
    state[:, 48 + 4 + 1] = torch.arange(6.0).reshape(2, 3)  # the second number, for the upper right cell
    begun = network.hand_down(state, torch.zeros(1, 12, 4, 6), grid)
    assert begun.shape == (1, 27, 4, 6)
    expected = torch.zeros(3, 4, 6)
    expected[1, ::2, 1::2] = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(begun[0, 24:], expected)


def test_the_masks_of_the_two_stages_have_different_numbers() -> None:
    half = replace(CELL, update_probability=0.5)
    network = with_random_weights(replace(MODEL, cell=half, coarse=replace(COARSE, cell=half)))
    asked: list[int] = []

    class Recorder:
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            asked.append(cell_step)
            return torch.ones(1, 1, region.height, region.width, dtype=torch.bool)

    network(noisy(Canvas(9, 9).whole), torch.tensor([0.3]), None, Recorder())
    assert sorted(asked) == [0, 1, 2, 3]


@pytest.mark.parametrize("length", [61, 62, 63, 64])
@pytest.mark.parametrize("top", range(-2, 2))
def test_of_nearly_a_whole_circular_axis_all_but_the_margin_is_right(top: int, length: int) -> None:
    network, canvas, t = with_random_weights(), Canvas(64, 64, ("circular", "circular")), torch.tensor([0.3])
    x_t, region = noisy(canvas.whole), Region(top, 0, length, 64, canvas)
    found = network(region.crop(x_t, canvas.whole), t, region)
    inner = Region(top + RADIUS, 0, length - 2 * RADIUS, 64, canvas)
    expected = inner.crop(network(x_t, t, canvas.whole), canvas.whole)
    torch.testing.assert_close(inner.crop(found, region), expected)


@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "reflect")])
def test_the_image_stage_updates_only_cells_on_which_correct_pixels_depend(boundary: Any) -> None:
    network, canvas, updated = with_random_weights(), Canvas(128, 128, boundary), {}
    wanted = Region(48, 40, 33, 35, canvas)

    class Recorder:
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            updated[cell_step] = region
            return torch.ones(1, 1, region.height, region.width, dtype=torch.bool)

    network.image.config = network.coarse.config = replace(CELL, update_probability=0.5)
    around = wanted.grow(RADIUS)
    network(noisy(around), torch.tensor([0.3]), around, Recorder())
    later, near = CELL.radius - CELL.dilation(0), PatchGrid(wanted, 2).cells.grow(CELL.radius)
    assert updated[0] == PatchGrid(wanted, 2).cells.grow(later)
    assert updated[2] == PatchGrid(near, 2).cells.grow(later)


def test_a_region_without_a_correct_pixel_is_computed_everywhere() -> None:
    network, canvas = with_random_weights(), Canvas(128, 128)
    region = Region(50, 50, 2 * RADIUS, 2 * RADIUS, canvas)
    assert network(noisy(region), torch.tensor([0.3]), region).all()


def test_the_shares_of_the_stages_are_those_of_their_products() -> None:
    model = replace(MODEL, given_channels=2)
    network = Automaton(model)
    near, far = (
        sum(layer.weight.numel() for layer in (rule.perceive, rule.expand, rule.project)) / patch**2
        for rule, patch in ((network.image, 2), (network.coarse, 4))
    )
    shares = [each.share for each in model.stage_works]
    assert shares == pytest.approx([near / (near + far), far / (near + far)])
    assert [each[1:] for each in model.stage_works] == [(2 * (CELL.radius + 1) - 1, 1), (RADIUS, 9)]


def test_a_shift_by_the_larger_cells_shifts_the_prediction_and_no_other_does() -> None:
    network, t, whole = (
        with_random_weights(),
        torch.tensor([0.3]),
        Canvas(32, 32, ("circular", "circular")).whole,
    )
    x_t = noisy(whole)
    own = network(x_t, t, whole)
    by_4, by_2 = (network(x_t.roll((by, 2 * by), (2, 3)), t, whole) for by in (4, 2))
    torch.testing.assert_close(by_4, own.roll((4, 8), (2, 3)))
    assert (by_2 - own.roll((2, 4), (2, 3))).abs().max() > 0.1


def test_it_sees_farther_for_less_work_than_the_same_steps_on_small_cells() -> None:
    recipe = recipe_named("diff_nca").model
    one = NCAConfig(patch=2, channels=80, cell=CellConfig(hidden=320, dilations=(1, 2, 4, 1)))
    work = [sum(each.operations for each in products(model, 576, 576)) for model in (recipe, one)]
    assert recipe.radius > 2 * one.radius
    assert work[0] < 0.5 * work[1]


def test_cells_that_see_zeros_beyond_each_edge_join_no_edges() -> None:
    model = replace(MODEL, cell=replace(CELL, padding="zeros"))
    denoiser = build_denoiser(replace(recipe_named("diff_nca"), model=model))
    with pytest.raises(ValueError, match="the model sees zeros beyond each edge"):
        generate(denoiser, height=16, width=16, boundary=("reflect", "circular"), steps=1)


def test_a_circular_axis_must_fit_the_larger_cells() -> None:
    canvas = Canvas(18, 16, ("circular", "reflect"))
    with pytest.raises(ValueError, match="18x16 px: circular sides must be multiples of 4 px; .* 20x16"):
        with_random_weights()(noisy(canvas.whole), torch.tensor([0.3]), canvas.whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 3}, "model.coarse.patch=3: must be a multiple of patch=2, and larger"),
        ({"patch": 2}, "model.coarse.patch=2: must be a multiple of patch=2, and larger"),
        ({"handed": 0}, "model.coarse.handed=0: must be from 1 to 4096"),
        ({"channels": 59}, "model.coarse.channels=59: must be >= 60"),
        ({"handed": 7, "channels": 99}, "model.channels=30: must be >= 31"),
    ],
)
def test_stages_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(MODEL, coarse=replace(COARSE, **changes))


def test_beside_a_fourier_stage_there_is_none() -> None:
    with pytest.raises(ValueError, match="left out where there is a `fourier` stage"):
        replace(recipe_named("fourier_diff_nca").model, coarse=replace(COARSE, patch=8))


def test_a_large_image_in_tiles_is_that_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    config: Config = replace(recipe_named("diff_nca"), model=MODEL)
    denoiser = build_denoiser(config)
    denoiser.network.load_state_dict(with_random_weights().state_dict())
    write_model(path, denoiser.network.state_dict(), config, {})
    command = ["sample", str(path), "--height", "90", "--width", "70", "--steps", "2", "--guidance", "1.5"]
    assert main([*command, "--out", str(tmp_path / "a.png")]) == 0
    assert main([*command, "--tile", "32", "--out", str(tmp_path / "a.ome.zarr")]) == 0
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), read_pixels(str(tmp_path / "a.ome.zarr")))
