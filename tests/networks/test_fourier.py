"""The window DFT against whole transforms; tiles and blocks to the bit; scaling that knows the size."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import CellConfig, FourierConfig
from diffnca.config.recipes import recipe_named
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import run_cells
from diffnca.networks.fourier import Window, analyse, synthesise

SIZES = [(64, 64), (36, 44), (17, 9), (1, 1), (2, 3), (70, 5)]

each_size = pytest.mark.parametrize("sides", SIZES)
each_spectrum = pytest.mark.parametrize("spectrum", ["quadrant", "half_plane"])


def window_on(
    sides: tuple[int, int], spectrum: str = "half_plane", k: int = 16, scaling: str = "ortho"
) -> Window:
    return Window(FourierConfig(k, spectrum, scaling), Canvas(*sides))


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def as_complex(spectrum: Tensor) -> Tensor:
    return torch.complex(*spectrum.double().chunk(2, dim=1))


@each_size
@each_spectrum
def test_the_window_holds_the_values_of_the_whole_transform(sides: tuple[int, int], spectrum: str) -> None:
    window, x = window_on(sides, spectrum), image(2, 3, *sides)
    whole = torch.fft.fft2(x.double())
    expected = whole[..., list(window.rows), :][..., list(window.columns)]
    found = as_complex(analyse(x, window.canvas.whole, window))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_the_quadrant_has_the_published_frequencies() -> None:
    for size in range(1, 50):  # rows size//2 .. size//2+15 of the shifted spectrum, as far as it goes
        shifted = torch.fft.fftshift(torch.fft.fftfreq(size) * size)[size // 2 : size // 2 + 16]
        assert list(window_on((size, 3), "quadrant").rows) == shifted.round().int().tolist()


def test_the_half_plane_has_negative_rows_and_no_negative_columns() -> None:
    window = window_on((64, 64))
    assert (window.rows, window.columns) == (range(-16, 16), range(16))
    assert window.origin == (16, 0)


@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (1, 1), (2, 5), (16, 12), (31, 32)])
@pytest.mark.parametrize("scaling", ["forward", "ortho"])
def test_a_half_plane_of_all_frequencies_gives_the_image_back(sides: tuple[int, int], scaling: str) -> None:
    window, x = window_on(sides, k=64, scaling=scaling), image(2, 3, *sides)
    seen = analyse(x, window.canvas.whole, window) * window.analysis_scale()
    drawn = synthesise(seen * window.synthesis_scale(), window.canvas.whole, window)
    torch.testing.assert_close(drawn, x.double(), rtol=0, atol=1e-10)


@each_size
def test_the_half_plane_draws_the_hermitian_symmetric_spectrum(sides: tuple[int, int]) -> None:
    window = window_on(sides, scaling="forward")
    written = image(1, 4, len(window.rows), len(window.columns)).double()
    full = torch.zeros(1, 2, *sides, dtype=torch.complex128)
    for i, row in enumerate(window.rows):
        for j, column in enumerate(window.columns):
            full[..., row, column] += as_complex(written)[..., i, j] / 2
            full[..., -row, -column] += as_complex(written)[..., i, j].conj() / 2
    if window.columns.stop > 1:  # a frequency of another column stands for its mirror image as well
        doubled = [c for c in range(sides[1]) if 2 * c % sides[1] != 0]
        full[..., doubled] *= 2
    expected = torch.fft.ifft2(full, norm="forward")
    assert expected.imag.abs().max() < 1e-10
    found = synthesise(written * window.synthesis_scale(), window.canvas.whole, window)
    torch.testing.assert_close(found, expected.real, rtol=0, atol=1e-10)


@each_spectrum
def test_shares_of_tiles_of_whole_blocks_add_up_to_the_bit_in_any_order(spectrum: str) -> None:
    window, x = window_on((200, 150), spectrum), image(2, 3, 200, 150)
    whole = window.canvas.whole
    shares = [analyse(tile.crop(x, whole), tile, window) for tile in whole.tiles(128, 64)]
    forwards, backwards = sum(shares), sum(reversed(shares))
    assert torch.equal(forwards, analyse(x, whole, window))
    assert torch.equal(backwards, forwards)


def test_shares_of_any_partition_add_up_to_the_whole() -> None:
    window, x = window_on((200, 150)), image(1, 3, 200, 150)
    whole = window.canvas.whole
    total = sum(analyse(tile.crop(x, whole), tile, window) for tile in whole.tiles(77, 41))
    torch.testing.assert_close(total, analyse(x, whole, window), rtol=0, atol=1e-8)


def test_a_region_over_the_edge_of_a_seamless_canvas_has_the_share_of_its_pixels() -> None:
    canvas = Canvas(50, 40, ("circular", "circular"))
    window, x = Window(FourierConfig(), canvas), image(1, 3, 50, 40)
    over = Region(-7, 33, 20, 15, canvas)
    alone = torch.zeros_like(x)
    rows, columns = over.rows()[:, None], over.columns()
    alone[..., rows, columns] = x[..., rows, columns]
    share = analyse(over.crop(x, canvas.whole), over, window)
    torch.testing.assert_close(share, analyse(alone, canvas.whole, window), rtol=0, atol=1e-8)


def test_far_tiles_of_a_gigapixel_canvas_are_as_exact_as_near_ones() -> None:
    canvas = Canvas(40_000, 30_011)
    window, x = Window(FourierConfig(), canvas), image(1, 1, 3, 2)
    region = Region(39_990, 30_000, 3, 2, canvas)
    found = as_complex(analyse(x, region, window))[0, 0, 0, 15]  # row -16, column 15
    expected = 0j
    for i in range(3):
        for j in range(2):
            turns = (-16 * (39_990 + i) % 40_000) / 40_000 + (15 * (30_000 + j) % 30_011) / 30_011
            expected += x[0, 0, i, j].item() * complex(
                math.cos(math.tau * turns), -math.sin(math.tau * turns)
            )
    assert abs(found.item() - expected) < 1e-4  # the grid that makes a gigapixel of sums exact


def test_a_share_is_the_same_to_the_bit_whatever_batch_it_is_in() -> None:
    window, x = window_on((64, 64)), image(5, 3, 64, 64)
    alone = analyse(x[3:4], window.canvas.whole, window)
    assert torch.equal(analyse(x, window.canvas.whole, window)[3:4], alone)


def test_a_part_of_the_drawing_is_the_same_to_the_bit_as_in_the_whole() -> None:
    window = window_on((200, 150))
    written, whole = image(2, 12, 32, 16), window.canvas.whole
    drawn = synthesise(written, whole, window)
    block, pixel = Region(64, 64, 64, 64, window.canvas), Region(199, 149, 1, 1, window.canvas)
    for tile in (*whole.tiles(77, 41), block, pixel):
        assert torch.equal(synthesise(written, tile, window), tile.crop(drawn, whole))


def test_the_share_has_the_gradient_of_the_transform() -> None:
    window, x = window_on((20, 30)), image(1, 2, 20, 30).requires_grad_()
    weights = image(1, 4, len(window.rows), len(window.columns), seed=1).double()
    found = torch.autograd.grad((analyse(x, window.canvas.whole, window) * weights).sum(), x)[0]
    part = torch.fft.fft2(x)[..., list(window.rows), :][..., list(window.columns)]
    real, imaginary = weights.chunk(2, dim=1)
    expected = torch.autograd.grad((part.real * real + part.imag * imaginary).sum(), x)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sides", [(32, 32), (64, 64), (32, 96)])
def test_of_image_and_noise_in_equal_parts_the_cells_see_half_a_unit_of_power_up_to_the_size_of_training(
    sides: tuple[int, int],
) -> None:
    scale_invariant = power_law_images(sides, num_images=200)
    noise = image(*scale_invariant.shape, seed=1)
    x_t = math.sqrt(0.5) * (scale_invariant + noise)
    window = window_on(sides)
    seen = as_complex(analyse(x_t, window.canvas.whole, window)) * window.analysis_scale()
    power = seen.abs().square().mean(dim=(0, 1))
    assert power.mean().item() == pytest.approx(0.5, rel=0.03)
    assert 0.3 < power.min().item() < power.max().item() < 0.8


def power_law_images(sides: tuple[int, int], num_images: int) -> Tensor:
    """Return Gaussian images with power 0.005 * h * w / (k^2 + 0.05), k in cycles per canvas."""
    height, width = sides
    rows, columns = torch.fft.fftfreq(height) * height, torch.fft.fftfreq(width) * width
    squared = rows[:, None] ** 2 + columns[None, :] ** 2
    white = torch.fft.fft2(image(num_images, 1, *sides), norm="ortho")
    return torch.fft.ifft2(white * (0.005 * height * width / (squared + 0.05)).sqrt(), norm="ortho").real


@pytest.mark.parametrize("sides", [(128, 128), (64, 256), (99, 201)])
def test_beyond_the_size_of_training_the_cells_see_an_image_as_they_know_it(sides: tuple[int, int]) -> None:
    waves, seen = image(1, 2, 16, 8).double(), []
    for canvas_sides in ((64, 64), sides):
        window = window_on(canvas_sides, k=8)
        x = synthesise(waves, window.canvas.whole, window)  # the same, drawn larger
        seen.append(analyse(x, window.canvas.whole, window) * window.analysis_scale())
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-9)


@pytest.mark.parametrize("sides", [(64, 64), (48, 96), (160, 128)])
def test_coefficients_of_one_unit_draw_images_of_the_same_contrast_at_any_size(
    sides: tuple[int, int],
) -> None:
    window = window_on(sides, k=8)
    written = image(40, 8, len(window.rows), len(window.columns)).double()
    drawn = synthesise(written * window.synthesis_scale(), window.canvas.whole, window)
    assert drawn.std().item() == pytest.approx(0.6, rel=0.2)


# The network: against the whole transform of the whole state.


def published_network(image_channels: int, name: str = "fourier_diff_nca_npj", k: int = 16) -> Automaton:
    model = recipe_named(name).model

    def small(cell: CellConfig) -> CellConfig:
        return replace(cell, hidden=12, num_cell_steps=3, embedding_width=8, update_probability=1.0)

    torch.manual_seed(0)
    fourier = replace(model.fourier, window=k, cell=small(model.fourier.cell))
    model = replace(model, channels=8, image_channels=image_channels, cell=small(model.cell), fourier=fourier)
    network = Automaton(model)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def by_whole_transforms(network: Automaton, x_t: Tensor, t: Tensor) -> Tensor:
    """Do as published: transform all channels, work on a window, write it back, transform back."""
    n, channels, (height, width) = network.image_channels, network.config.channels, x_t.shape[-2:]
    state = torch.cat([x_t, x_t.new_zeros(len(x_t), channels - n, height, width)], dim=1)
    spectrum = torch.fft.fftshift(torch.fft.fft2(state, norm="forward"), dim=(-2, -1))
    k = network.config.fourier.window
    top, left = height // 2, width // 2
    window = spectrum[..., top : top + k, left : left + k]
    cells = torch.cat([window.real, window.imag], dim=1)
    cells = run_cells(network.fourier, cells, t, Canvas(*cells.shape[-2:]).whole, None)
    written = torch.complex(*cells.chunk(2, dim=1))
    spectrum[:, n:, top : top + k, left : left + k] = written[:, n:]
    state = torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), norm="forward").real
    state = run_cells(network.image, state, t, Canvas(height, width).whole, None)
    return state[:, n : 2 * n]


@each_size
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("name", ["fourier_diff_nca_npj", "fourier_diff_nca_arxiv_v1"])
def test_the_published_network_agrees_with_whole_transforms(
    sides: tuple[int, int], image_channels: int, name: str
) -> None:
    network, t = published_network(image_channels, name), torch.tensor([0.1, 0.8])
    x_t = image(2, image_channels, *sides)
    with torch.no_grad():
        found, expected = network(x_t, t), by_whole_transforms(network, x_t, t)
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_a_part_of_a_canvas_needs_the_context() -> None:
    network = published_network(3)
    part = Region(0, 0, 20, 20, Canvas(40, 20))
    with pytest.raises(ValueError, match="context=None on 20x20 px of a canvas of 40x20 px"):
        network(image(1, 3, 20, 20), torch.tensor([0.5]), part)


def test_the_context_of_another_canvas_is_refused() -> None:
    network, t = published_network(3), torch.tensor([0.5])
    small = network.context(image(1, 3, 8, 8), t, None)
    with pytest.raises(ValueError, match=r"must be \(1, 6, 16, 16\) for a canvas of 40x40 px"):
        network(image(1, 3, 40, 40), t, None, None, small)


def test_tiles_with_the_summed_context_give_the_whole() -> None:
    model = recipe_named("fourier_diff_nca").model
    cells = [replace(cell, hidden=12, num_cell_steps=2) for cell in (model.cell, model.fourier.cell)]
    fourier = replace(model.fourier, cell=cells[1])
    torch.manual_seed(0)
    network = Automaton(replace(model, patch=1, channels=8, cell=cells[0], fourier=fourier))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    x_t, t, whole = image(1, 3, 140, 90), torch.tensor([0.4]), Canvas(140, 90).whole
    tiles = list(whole.tiles(64, 64))
    context = sum(network.context(tile.crop(x_t, whole), t, tile) for tile in tiles)
    with torch.no_grad():
        at_once = network(x_t, t)
        for tile in tiles:
            grown = tile.grow(network.radius)
            part = network(grown.crop(x_t, whole).contiguous(), t, grown, None, context)
            torch.testing.assert_close(tile.crop(part, grown), tile.crop(at_once, whole), rtol=0, atol=1e-5)


def test_a_window_without_frequencies_is_refused() -> None:
    with pytest.raises(ValueError, match="window=0: must be from 1 to 512"):
        FourierConfig(window=0)
