"""Maps of classes on any canvas: smooth shapes, equal to the bit in any part."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from diffnca.canvas.region import Canvas, Region
from diffnca.data.layouts import UNKNOWN
from diffnca.sampling.maps import Raster

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
