"""Canvases, regions, tiles, and the way over an edge."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from diffnca.canvas.region import Boundary, Canvas, Region, fold

examples = settings(max_examples=50, deadline=None)  # a busy machine is slow, not wrong
boundaries = st.sampled_from(["reflect", "circular"])


@st.composite
def canvases(draw: st.DrawFn, max_side: int = 12) -> Canvas:
    side = st.integers(1, max_side)
    return Canvas(draw(side), draw(side), (draw(boundaries), draw(boundaries)))


@st.composite
def spans(draw: st.DrawFn, size: int, boundary: Boundary) -> tuple[int, int]:
    length = draw(st.integers(1, size))
    first = st.integers(0, size - length) if boundary == "reflect" else st.integers(-3 * size, 3 * size)
    return draw(first), length


@st.composite
def regions(draw: st.DrawFn, max_side: int = 12) -> Region:
    canvas = draw(canvases(max_side))
    top, height = draw(spans(canvas.height, canvas.boundary[0]))
    left, width = draw(spans(canvas.width, canvas.boundary[1]))
    return Region(top, left, height, width, canvas)


def numbered(region: Region) -> torch.Tensor:
    """Give each pixel of the region the number of its pixel on the canvas."""
    return region.rows()[:, None] * region.canvas.width + region.columns()


@examples
@given(canvases())
def test_the_whole_region_covers_every_pixel_of_the_canvas_in_order(canvas: Canvas) -> None:
    assert torch.equal(
        numbered(canvas.whole), torch.arange(canvas.height * canvas.width).view(canvas.height, canvas.width)
    )


@examples
@given(canvases())
def test_the_whole_region_is_whole_on_both_axes(canvas: Canvas) -> None:
    assert (canvas.whole.is_whole_y, canvas.whole.is_whole_x) == (True, True)


def test_a_region_can_be_whole_on_one_axis_alone() -> None:
    region = Region(2, 0, 3, 8, Canvas(6, 8))
    assert (region.is_whole_y, region.is_whole_x) == (False, True)


@examples
@given(regions(), st.integers(1, 14), st.integers(1, 14))
def test_tiles_cover_each_pixel_of_a_region_once(region: Region, height: int, width: int) -> None:
    covered = torch.cat([numbered(tile).flatten() for tile in region.tiles(height, width)])
    assert torch.equal(covered.sort().values, numbered(region).flatten().sort().values)


@examples
@given(regions(), st.integers(1, 14), st.integers(1, 14))
def test_tiles_put_back_at_their_place_give_the_region(region: Region, height: int, width: int) -> None:
    put_back = torch.full((region.height, region.width), -1)
    for tile in region.tiles(height, width):
        y, x = tile.top - region.top, tile.left - region.left
        put_back[y : y + tile.height, x : x + tile.width] = numbered(tile)
    assert torch.equal(put_back, numbered(region))


@examples
@given(regions(), st.integers(1, 14), st.integers(1, 14))
def test_tiles_are_no_larger_than_asked_for(region: Region, height: int, width: int) -> None:
    assert all(tile.height <= height and tile.width <= width for tile in region.tiles(height, width))


def test_tiles_come_row_by_row() -> None:
    tiles = Canvas(3, 5).whole.tiles(2, 3)
    assert [(t.top, t.left, t.height, t.width) for t in tiles] == [
        (0, 0, 2, 3),
        (0, 3, 2, 2),
        (2, 0, 1, 3),
        (2, 3, 1, 2),
    ]


def test_the_tiles_of_the_largest_canvas_are_not_all_made_at_once() -> None:
    tiles = Canvas(2**31, 2**31).whole.tiles(1, 1)
    assert (next(tiles).left, next(tiles).left) == (0, 1)


@examples
@given(regions(), st.integers(0, 14))
def test_a_region_is_the_crop_of_its_grown_region(region: Region, n: int) -> None:
    grown = region.grow(n)
    assert torch.equal(region.crop(numbered(grown), of=grown), numbered(region))


@examples
@given(regions())
def test_a_region_is_the_crop_of_the_whole_canvas(region: Region) -> None:
    whole = region.canvas.whole
    assert torch.equal(region.crop(numbered(whole), of=whole), numbered(region))


@examples
@given(regions(), st.integers(0, 14))
def test_a_grown_region_holds_the_neighbours_within_n_and_no_others(region: Region, n: int) -> None:
    def near(pixels: torch.Tensor, size: int, boundary: Boundary) -> set[int]:
        around = {int(p) + d for p in pixels for d in range(-n, n + 1)}
        return {p % size for p in around} if boundary == "circular" else {p for p in around if 0 <= p < size}

    canvas, grown = region.canvas, region.grow(n)
    assert set(grown.rows().tolist()) == near(region.rows(), canvas.height, canvas.boundary[0])
    assert set(grown.columns().tolist()) == near(region.columns(), canvas.width, canvas.boundary[1])


@examples
@given(regions(), st.integers(0, 14))
def test_a_shrunk_region_holds_the_pixels_whose_neighbours_within_n_are_there(region: Region, n: int) -> None:
    def deep(pixels: torch.Tensor, size: int, boundary: Boundary) -> set[int]:
        there, steps = set(pixels.tolist()), range(-n, n + 1)
        if boundary == "circular":
            return {p for p in there if all((p + d) % size in there for d in steps)}
        return {p for p in there if all(p + d in there for d in steps if 0 <= p + d < size)}

    canvas, inner = region.canvas, region.shrink(n)
    rows = deep(region.rows(), canvas.height, canvas.boundary[0])
    columns = deep(region.columns(), canvas.width, canvas.boundary[1])
    if inner is None:
        assert not rows or not columns
    else:
        assert (set(inner.rows().tolist()), set(inner.columns().tolist())) == (rows, columns)


@examples
@given(regions(), st.integers(0, 6), st.integers(0, 6))
def test_growing_twice_covers_the_same_pixels_as_growing_once(region: Region, n: int, m: int) -> None:
    twice, once = region.grow(n).grow(m), region.grow(n + m)
    assert torch.equal(numbered(twice).sort().values, numbered(once).sort().values)


def test_growing_ends_at_a_reflecting_edge() -> None:
    canvas = Canvas(10, 10)
    assert Region(1, 4, 3, 3, canvas).grow(2) == Region(0, 2, 6, 7, canvas)


def test_growing_goes_over_a_circular_edge() -> None:
    canvas = Canvas(10, 10, ("circular", "reflect"))
    assert Region(1, 1, 3, 3, canvas).grow(2) == Region(-1, 0, 7, 6, canvas)


@pytest.mark.parametrize("n", [3, 4, 100])
def test_growing_around_a_circular_axis_gives_exactly_the_whole_axis(n: int) -> None:
    canvas = Canvas(10, 10, ("circular", "circular"))
    assert Region(7, -3, 4, 4, canvas).grow(n) == canvas.whole


@pytest.mark.parametrize("top", [0, 3, -2])
def test_growing_by_nothing_leaves_a_whole_circular_axis_where_it_begins(top: int) -> None:
    canvas = Canvas(8, 9, ("circular", "reflect"))
    assert Region(top, 0, 8, 9, canvas).grow(0) == Region(top, 0, 8, 9, canvas)


def test_growing_short_of_a_circular_axis_does_not_wrap() -> None:
    canvas = Canvas(11, 11, ("circular", "circular"))
    assert Region(7, 7, 4, 4, canvas).grow(3) == Region(4, 4, 10, 10, canvas)


def test_the_rows_over_a_circular_edge_go_on_at_the_other_side() -> None:
    assert Region(-2, 0, 4, 1, Canvas(5, 1, ("circular", "reflect"))).rows().tolist() == [3, 4, 0, 1]


def test_crop_keeps_the_leading_dimensions() -> None:
    canvas = Canvas(4, 5)
    tensor = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    assert torch.equal(Region(1, 2, 2, 3, canvas).crop(tensor, of=canvas.whole), tensor[..., 1:3, 2:5])


@pytest.mark.parametrize("of", [Region(3, 0, 4, 8, Canvas(8, 8)), Region(0, 0, 4, 8, Canvas(8, 8))])
def test_crop_refuses_a_region_that_does_not_contain_it(of: Region) -> None:
    with pytest.raises(ValueError, match="grow it"):
        Region(2, 0, 4, 8, of.canvas).crop(torch.zeros(4, 8), of=of)


def test_crop_refuses_a_circular_region_that_does_not_contain_it() -> None:
    canvas = Canvas(8, 8, ("circular", "circular"))
    with pytest.raises(ValueError, match="grow it"):
        Region(-1, 0, 3, 8, canvas).crop(torch.zeros(6, 8), of=Region(0, 0, 6, 8, canvas))


def test_crop_refuses_a_region_of_another_canvas() -> None:
    with pytest.raises(ValueError, match="same canvas"):
        Canvas(4, 4).whole.crop(torch.zeros(5, 4), of=Canvas(5, 4).whole)


def test_crop_refuses_a_tensor_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"\(5, 4\) px: must be \(4, 4\) px"):
        Canvas(4, 4).whole.crop(torch.zeros(5, 4), of=Canvas(4, 4).whole)


@examples
@given(st.integers(2, 12), st.data())
def test_folding_by_reflection_is_the_reflection_padding_of_torch(size: int, data: st.DataObject) -> None:
    width = data.draw(st.integers(0, size - 1))
    padded = F.pad(torch.arange(size, dtype=torch.float32)[None, None], (width, width), mode="reflect")
    assert torch.equal(fold(torch.arange(-width, size + width), size, "reflect").float(), padded[0, 0])


@examples
@given(st.integers(1, 12), st.integers(-(2**40), 2**40))
def test_folding_by_reflection_is_even_about_both_edges(size: int, index: int) -> None:
    images = torch.tensor([index, -index, 2 * (size - 1) - index])
    assert len(set(fold(images, size, "reflect").tolist())) == 1


@examples
@given(st.integers(1, 2**31), boundaries, st.integers(-(2**40), 2**40))
def test_folding_stays_on_the_canvas(size: int, boundary: Boundary, index: int) -> None:
    assert 0 <= int(fold(torch.tensor([index]), size, boundary)) < size


@examples
@given(st.integers(1, 2**31), boundaries, st.data())
def test_folding_leaves_the_pixels_of_the_canvas(size: int, boundary: Boundary, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    assert int(fold(torch.tensor([index]), size, boundary)) == index


@examples
@given(st.integers(1, 12), st.integers(-100, 100), st.integers(-5, 5))
def test_circular_folding_has_the_period_of_the_side(size: int, index: int, turns: int) -> None:
    both = fold(torch.tensor([index, index + turns * size]), size, "circular")
    assert both[0] == both[1]


@pytest.mark.parametrize("boundary", ["reflect", "circular"])
def test_a_side_of_one_pixel_replicates(boundary: Boundary) -> None:
    assert fold(torch.arange(-3, 4), 1, boundary).tolist() == [0] * 7


def test_folding_keeps_the_shape_and_the_integer_type() -> None:
    folded = fold(torch.zeros(2, 3, dtype=torch.int32), 5, "reflect")
    assert (folded.shape, folded.dtype) == ((2, 3), torch.int32)


@pytest.mark.parametrize("sides", [(0, 4), (4, 0), (-1, 4), (4, 2**31 + 1)])
def test_a_canvas_without_pixels_or_beyond_the_counter_is_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 2147483648 px"):
        Canvas(*sides)


def test_an_unknown_boundary_is_refused() -> None:
    with pytest.raises((ValueError, TypeError), match="zeros"):  # TypeError where types are checked
        Canvas(4, 4, ("reflect", "zeros"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("top", "height"), [(-1, 4), (5, 4), (0, 0), (0, 9)])
def test_a_region_beyond_a_reflecting_canvas_is_refused(top: int, height: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Region(top, 0, height, 8, Canvas(8, 8))


def test_a_region_longer_than_a_circular_canvas_is_refused() -> None:
    with pytest.raises(ValueError, match="must be from 1 to 8 px"):
        Region(-1, 0, 9, 8, Canvas(8, 8, ("circular", "circular")))


@pytest.mark.parametrize("sides", [(0, 4), (4, -1)])
def test_tiles_without_pixels_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        Canvas(8, 8).whole.tiles(*sides)


def test_growing_by_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="must be >= 0"):
        Canvas(8, 8).whole.grow(-1)
