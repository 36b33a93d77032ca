"""Cells that hold squares of pixels: the grid and what it does to a network."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_network
from diffnca.networks.automaton import Automaton
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid

CIRCULAR: tuple[Boundary, Boundary] = ("circular", "circular")


def noisy(region: Region, images: int = 1) -> Tensor:
    shape = (images, 3, region.height, region.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def with_random_weights(network: Automaton) -> Automaton:
    for parameter in network.parameters():
        inputs = parameter[0].numel()
        nn.init.normal_(parameter, std=inputs**-0.5 if parameter.dim() > 1 else 0.1)
    return network


def network_of(patch: int, update_probability: float = 1.0) -> nn.Module:
    """Return a small network of such cells, whose two cell steps reach 1 and then 2 cells."""
    model = recipe_named("diff_nca").model
    cell = replace(model.cell, hidden=12, num_cell_steps=2, dilations=(1, 2), embedding_width=8)
    cell = replace(cell, update_probability=update_probability)
    torch.manual_seed(0)
    choice = replace(model, patch=patch, channels=6 * patch**2 + 2, cell=cell, coarse=None)
    return with_random_weights(build_network(choice))


def predict(network: nn.Module, x_t: Tensor, region: Region, noise: object = None) -> Tensor:
    with torch.no_grad():
        return network(x_t, torch.full((len(x_t),), 0.3), region, noise)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (6, 12), (7, 11)], ids=str)
@pytest.mark.parametrize("corner", [(0, 0), (1, 2), (5, 3)], ids=str)
def test_what_is_gathered_is_scattered_again(
    patch: int, sides: tuple[int, int], corner: tuple[int, int]
) -> None:
    region = Region(*corner, *sides, Canvas(12, 15))
    image = noisy(region)
    grid = PatchGrid(region, patch)
    cells = grid.gather(image)
    assert cells.shape == (1, 3 * patch**2, grid.cells.height, grid.cells.width)
    assert torch.equal(grid.scatter(cells), image)


def test_beyond_the_canvas_a_square_holds_the_mirror_image() -> None:
    image = torch.arange(5.0).reshape(1, 1, 1, 5)
    cells = PatchGrid(Canvas(1, 5).whole, 2).gather(image)
    assert cells[0, :, 0, 2].tolist() == [4.0, 3.0, 4.0, 3.0]


def test_the_cells_of_a_tile_are_cells_of_the_whole() -> None:
    canvas = Canvas(21, 30)
    image, tile = noisy(canvas.whole), Region(4, 6, 8, 10, canvas)
    whole, part = PatchGrid(canvas.whole, 2), PatchGrid(tile, 2)
    assert torch.equal(
        part.gather(tile.crop(image, canvas.whole)), part.cells.crop(whole.gather(image), whole.cells)
    )


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_exactly_the_pixels_within_the_radius_see_a_change(patch: int) -> None:
    network, canvas = network_of(patch), Canvas(72, 72)
    x_t = noisy(canvas.whole)
    reached = torch.zeros(72, dtype=torch.bool)
    for row in range(36, 36 + patch):
        touched = x_t.clone()
        touched[..., row, :] += 1.0
        changed = predict(network, x_t, canvas.whole) != predict(network, touched, canvas.whole)
        rows = changed.any(dim=1)[0].any(dim=1).nonzero().flatten() - row
        assert rows.abs().max() <= network.radius
        reached[rows.abs()] = True
    assert reached[network.radius]
    assert network.radius == patch * (3 + 1) - 1


def test_a_shift_by_whole_squares_shifts_the_prediction() -> None:
    network, canvas = network_of(2), Canvas(24, 20, CIRCULAR)
    x_t = noisy(canvas.whole)
    shifted = predict(network, x_t.roll((4, 6), (2, 3)), canvas.whole)
    assert torch.allclose(shifted, predict(network, x_t, canvas.whole).roll((4, 6), (2, 3)), atol=1e-5)


def test_a_circular_axis_must_hold_whole_squares() -> None:
    with pytest.raises(ValueError, match="7x8 px: circular sides must be multiples of 2 px; .* 8x8"):
        PatchGrid(Canvas(7, 8, CIRCULAR).whole, 2)


def fourier_network_of(patch: int) -> Automaton:
    """Return a small network with a Fourier stage."""
    model = recipe_named("fourier_diff_nca").model
    cell = replace(model.cell, hidden=12, num_cell_steps=2, dilations=(1, 2), embedding_width=8)
    fourier = replace(model.fourier, window=4, cell=replace(model.fourier.cell, hidden=16, num_cell_steps=3))
    torch.manual_seed(0)
    choices = replace(model, patch=patch, channels=6 * patch**2 + 2, cell=cell, fourier=fourier)
    return with_random_weights(build_network(choices))


def test_a_wave_is_drawn_on_cells_as_on_the_pixels_that_they_begin_with() -> None:
    pixels = PatchGrid(Canvas(24, 36).whole, 1)
    cells = PatchGrid(Canvas(24, 36).whole, 3)
    network = fourier_network_of(1)
    window = Window(network.fourier_config, Canvas(24, 36))
    shape = (1, 2 * network.config.spectrum_channels, len(window.rows), len(window.columns))
    spectrum = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    fine, coarse = (network.draw(spectrum, grid, torch.float32) for grid in (pixels, cells))
    assert torch.allclose(coarse, fine[..., ::3, ::3], atol=1e-5)


def test_the_state_must_hold_the_squares_twice() -> None:
    with pytest.raises(ValueError, match="channels=23: must be >= 24"):
        NCAConfig(patch=2, channels=23)


def test_a_cell_has_the_mean_of_a_plane_over_its_pixels() -> None:
    planes = torch.randint(0, 2, (1, 2, 8, 12), generator=torch.Generator().manual_seed(0)).float()
    found = PatchGrid(Canvas(8, 12).whole, 4).averaged(planes)
    assert torch.equal(found, torch.nn.functional.avg_pool2d(planes, 4))


@pytest.mark.parametrize("boundary", [("reflect", "reflect"), CIRCULAR])
def test_a_part_of_a_grid_holds_the_pixels_of_its_cells(boundary: tuple[Boundary, Boundary]) -> None:
    grid = PatchGrid(Region(5, 7, 20, 18, Canvas(48, 48, boundary)), 4)
    cells = Region(2, 3, 3, 2, grid.cells.canvas)
    part, image = grid.part(cells), noisy(grid.pixels)
    assert part.cells == cells
    gathered = part.gather(part.pixels.crop(image, of=grid.pixels))
    assert torch.equal(gathered, cells.crop(grid.gather(image), of=grid.cells))
