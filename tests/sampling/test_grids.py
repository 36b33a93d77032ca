"""A coarse grid over a canvas: means over blocks, and back, alike on every region."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.sampling.blocks import NEIGHBOURS, Grid

sides = st.integers(1, 9)
boundaries = st.sampled_from([("reflect", "reflect"), ("circular", "circular"), ("reflect", "circular")])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shares(size: int, blocks: int) -> np.ndarray:
    """Return, exactly, the share of each pixel (column) in each block (row)."""
    side = Fraction(size, blocks)

    def overlap(block: int, pixel: int) -> Fraction:
        return max(Fraction(0), min(side * (block + 1), pixel + 1) - max(side * block, pixel))

    return np.array([[float(overlap(block, pixel)) for pixel in range(size)] for block in range(blocks)])


@given(sides, sides, sides, sides)
def test_means_are_weighted_by_the_share_of_each_pixel(h: int, w: int, more_h: int, more_w: int) -> None:
    grid, canvas = Grid(h, w), Canvas(h + more_h, w + more_w)
    values = noise(2, 3, canvas.height, canvas.width)
    by_rows = shares(canvas.height, h) * h / canvas.height
    by_columns = shares(canvas.width, w) * w / canvas.width
    expected = np.einsum("yv,bcvu,xu->bcyx", by_rows, values.double().numpy(), by_columns)
    assert np.allclose(grid.means(values, canvas.whole).numpy(), expected, atol=1e-5)


@given(sides, sides, sides, sides)
def test_spreading_weighs_blocks_by_their_share_of_each_pixel(
    h: int, w: int, more_h: int, more_w: int
) -> None:
    grid, canvas = Grid(h, w), Canvas(h + more_h, w + more_w)
    values = noise(2, 3, h, w)
    expected = np.einsum(
        "yv,bcyx,xu->bcvu", shares(canvas.height, h), values.double().numpy(), shares(canvas.width, w)
    )
    assert np.allclose(grid.spread(values, canvas.whole).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_means_of_what_was_spread_are_what_it_was_where_blocks_are_whole(factor: int) -> None:
    grid, canvas = Grid(4, 5), Canvas(4 * factor, 5 * factor)
    values = noise(1, 2, 4, 5)
    assert torch.allclose(grid.means(grid.spread(values, canvas.whole), canvas.whole), values, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "error"), [(36, 48, 1e-6), (44, 59, 1e-3), (33, 35, 0.05)], ids=str
)
def test_solved_and_spread_values_have_the_means(height: int, width: int, error: float) -> None:
    grid, region = Grid(30, 32), Canvas(height, width).whole
    means = noise(1, 2, 30, 32)
    result = grid.means(grid.spread(grid.solved(means, region), region), region)
    assert float((result - means).abs().max()) < error * float(means.abs().max())


def solved(grid: Grid, values: Tensor, region: Region) -> Tensor:
    return values + grid.spread(grid.solved(grid.means(values, region), region), region)


def smoothed(grid: Grid, values: Tensor, region: Region) -> Tensor:
    return grid.smoothed(grid.means(values, region), region)


@pytest.mark.parametrize(("changed", "blocks_seen"), [(solved, 1 + NEIGHBOURS), (smoothed, 2)])
@pytest.mark.parametrize(("size", "blocks"), [(37, 29), (60, 41), (71, 33), (40, 8)])
@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_values_change_on_a_region_to_the_bits_of_the_whole(
    changed: Callable[[Grid, Tensor, Region], Tensor],
    blocks_seen: int,
    size: int,
    blocks: int,
    boundary: Boundary,
) -> None:
    grid, canvas = Grid(blocks, 1), Canvas(size, 1, (boundary, boundary))
    values = noise(1, 1, size, 1)
    whole = changed(grid, values, canvas.whole)
    for part in canvas.whole.tiles(7, 1):
        around = part.grow(grid.reach(canvas, blocks_seen))
        alone = changed(grid, around.crop(values, of=canvas.whole), around)
        assert torch.equal(part.crop(alone, of=around), part.crop(whole, of=canvas.whole))


@pytest.mark.parametrize(("height", "width"), [(10, 14), (9, 11), (16, 40)])
def test_lines_between_the_centres_are_those_of_bilinear_interpolation(height: int, width: int) -> None:
    values = noise(1, 2, 5, 7)
    expected = F.interpolate(values, (height, width), mode="bilinear", align_corners=False)
    assert torch.allclose(Grid(5, 7).interpolated(values, Canvas(height, width).whole), expected, atol=1e-5)


def test_lines_go_on_around_a_circular_edge() -> None:
    canvas, values = Canvas(15, 21, ("circular", "circular")), noise(1, 1, 5, 7)
    turned = Grid(5, 7).interpolated(values.roll((1, 2), (-2, -1)), canvas.whole)
    expected = Grid(5, 7).interpolated(values, canvas.whole).roll((3, 6), (-2, -1))
    assert torch.allclose(turned, expected, atol=1e-6)


@given(sides, sides, sides, sides, boundaries, st.data())
def test_a_region_has_the_bits_of_the_whole(
    h: int, w: int, more_h: int, more_w: int, boundary: tuple[Boundary, Boundary], data: st.DataObject
) -> None:
    grid, canvas = Grid(h, w), Canvas(h + more_h, w + more_w, boundary)
    top, left = data.draw(st.integers(0, canvas.height - 1)), data.draw(st.integers(0, canvas.width - 1))
    part = next(canvas.whole.tiles(canvas.height, canvas.width))
    part = type(part)(top, left, canvas.height - top, canvas.width - left, canvas)
    around = part.grow(grid.reach(canvas))
    coarse, values = noise(1, 2, h, w), noise(1, 2, canvas.height, canvas.width, seed=1)

    def corrected(values: Tensor, region: type(part)) -> Tensor:  # type: ignore[valid-type]
        return values + grid.spread(grid.own(coarse, region) - grid.means(values, region), region)

    whole = corrected(values, canvas.whole)
    alone = corrected(around.crop(values, of=canvas.whole), around)
    assert torch.equal(part.crop(alone, of=around), part.crop(whole, of=canvas.whole))
    lines = grid.interpolated(coarse, canvas.whole)
    assert torch.equal(grid.interpolated(coarse, part), part.crop(lines, of=canvas.whole))
