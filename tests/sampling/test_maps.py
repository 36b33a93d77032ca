"""Maps of classes on any canvas: smooth shapes, equal to the bit in any part."""

import json

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from diffnca.canvas.region import Canvas, Region
from diffnca.config.layout import LayoutConfig
from diffnca.data.layouts import UNKNOWN
from diffnca.data.outlines import outlines_in
from diffnca.sampling.maps import Outlines, Raster, sides_of

BOUNDARIES = [("reflect", "reflect"), ("circular", "reflect"), ("circular", "circular")]


def raster(height: int = 7, width: int = 9, seed: int = 0) -> Raster:
    """Return a map of two classes and unknown places."""
    drawn = torch.randint(0, 3, (1, height, width), generator=torch.Generator().manual_seed(seed))
    return Raster(torch.tensor([0, 1, UNKNOWN], dtype=torch.uint8)[drawn])


def shares_of(numbers: Tensor) -> Tensor:
    """Return a plane in float64 for the classes 0 and 1, and for unknown."""
    return one_hot(numbers.long().clamp(max=2), 3).movedim(-1, 1).double()


@pytest.mark.parametrize("size", [(7, 9), (15, 20), (56, 40), (3, 20), (2, 2)])
def test_a_pixel_has_the_class_of_the_largest_share_after_linear_interpolation(
    size: tuple[int, int],
) -> None:
    shares = interpolate(shares_of(raster().numbers), size, mode="bilinear")
    first, second = shares.topk(2, dim=1).values.unbind(1)
    found = raster().on(Canvas(*size).whole).long().clamp(max=2)
    assert torch.equal(found[first > second + 1e-9], shares.argmax(1)[first > second + 1e-9])


def test_a_canvas_of_the_size_of_a_map_has_its_numbers() -> None:
    assert torch.equal(raster().on(Canvas(7, 9).whole), raster().numbers)


def test_a_diagonal_edge_has_no_stairs() -> None:
    rows, columns = torch.arange(8)[:, None], torch.arange(8)
    enlarged = Raster((columns > rows).to(torch.uint8)[None]).on(Canvas(64, 64).whole)[0]
    starts = (enlarged == 0).sum(dim=1)[8:-8]
    assert (starts.diff() <= 2).all()


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [(40, 31), (7, 9), (5, 4), (13, 3)])
def test_a_part_equals_the_crop_of_the_whole(size: tuple[int, int], boundary: tuple[str, str]) -> None:
    canvas = Canvas(*size, boundary)
    whole = raster().on(canvas.whole)
    top = -2 if boundary[0] == "circular" else 1
    part = Region(top, 1, size[0] - 1, size[1] - 2, canvas)
    assert torch.equal(raster().on(part), part.crop(whole, canvas.whole))


def test_a_map_on_a_circular_axis_goes_on_opposite() -> None:
    turned = Raster(raster().numbers.roll(3, dims=1))
    canvas = Canvas(35, 27, ("circular", "reflect"))
    assert torch.equal(turned.on(canvas.whole), raster().on(canvas.whole).roll(15, dims=1))


def test_of_equal_shares_the_smaller_number_counts() -> None:
    found = Raster(torch.tensor([[[1, 0]]], dtype=torch.uint8)).on(Canvas(1, 1).whole)
    assert found.item() == 0


def test_memory_grows_with_the_region_and_not_with_the_canvas() -> None:
    canvas = Canvas(2**30, 2**30)
    assert raster().on(Region(2**29, 2**29, 3, 4, canvas)).shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("asked", "size"),
    [((None, None), (2, 3)), ((40, None), (40, 60)), ((None, 30), (20, 30)), ((7, 9), (7, 9))],
)
def test_a_canvas_has_the_sides_that_are_asked_for_or_those_of_the_map(
    asked: tuple[int | None, int | None], size: tuple[int, int]
) -> None:
    assert sides_of((2, 3), *asked) == size


SHAPES = (
    ("b", [[2.2, 1.1], [9.7, 3.4], [5.5, 9.9]]),
    ("c", [[4, 0], [8, 0], [8, 5], [4, 5]]),
    ("unknown", [[0, 7], [3, 7], [3, 12], [0, 12]]),
)


def outlined(*shapes: tuple[str, list[list[float]]], size: tuple[int | None, int | None]) -> Outlines:
    features = [
        {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"name": name}}
        for name, ring in shapes
    ]
    outlines = outlines_in(json.dumps(features).encode(), LayoutConfig(("a", "b", "c")))
    return Outlines.of(outlines, *size)


def test_later_polygons_lie_on_top_and_the_first_class_around_them() -> None:
    numbers = outlined(*SHAPES, size=(12, 10)).on(Canvas(12, 10).whole)[0]
    assert [numbers[0, 0], numbers[8, 5], numbers[2, 5], numbers[8, 1]] == [0, 1, 2, UNKNOWN]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("size", [(12, 10), (29, 31)])
def test_polygons_on_a_part_equal_the_crop_of_the_whole(
    size: tuple[int, int], boundary: tuple[str, str]
) -> None:
    canvas, shapes = Canvas(*size, boundary), outlined(*SHAPES, size=(12, 10))
    top = -2 if boundary[0] == "circular" else 1
    part = Region(top, 2, size[0] - 1, size[1] - 3, canvas)
    assert torch.equal(shapes.on(part), part.crop(shapes.on(canvas.whole), canvas.whole))


def test_polygons_stretch_with_the_canvas() -> None:
    doubled = [(name, [[2 * x, 2 * y] for x, y in ring]) for name, ring in SHAPES]
    canvas = Canvas(24, 20)
    stretched = outlined(*SHAPES, size=(12, 10)).on(canvas.whole)
    assert torch.equal(stretched, outlined(*doubled, size=(24, 20)).on(canvas.whole))


def test_a_map_of_polygons_holds_them_all_without_a_size() -> None:
    assert outlined(*SHAPES, size=(None, None)).size == (12, 10)
    assert outlined(*SHAPES, size=(30, None)).size == (30, 10)


def test_polygons_beyond_the_canvas_are_cut() -> None:
    square = ("b", [[-5.0, -5.0], [3.0, -5.0], [3.0, 2.0], [-5.0, 2.0]])
    assert outlined(square, size=(4, 4)).on(Canvas(4, 4).whole).sum() == 6


def test_polygons_on_the_other_side_of_the_corner_have_no_size() -> None:
    square = ("b", [[-5.0, -5.0], [0.0, -5.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match="^has no polygon in the image: x and y must be pixels above 0$"):
        outlined(square, size=(None, None))


@pytest.mark.parametrize("size", [(0, None), (None, 0), (-3, 4)])
def test_polygons_on_no_pixels_are_refused(size: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match=r"(height|width)=(0|-3): must be 1 px or more"):
        outlined(*SHAPES, size=size)
