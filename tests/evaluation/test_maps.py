"""The maps of real images as those of samples: which pieces there are, and images that follow them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.config.layout import LayoutConfig
from diffnca.data.images import open_images
from diffnca.data.layouts import Layouts
from diffnca.evaluation.maps import Maps


@pytest.fixture
def maps(tmp_path: Path) -> Maps:
    """Pieces of 8x6 px of two images with maps: of 17x12 and of 8x13 px."""
    for index, (height, width) in enumerate(((17, 12), (8, 13))):
        numbers = np.zeros((height, width), dtype=np.uint8)
        numbers[:, width // 2 :] = index + 1
        for kind, pixels in (("photos", np.dstack([numbers] * 3)), ("maps", numbers)):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
    legend = LayoutConfig(("a", "b", "c"))
    images = open_images([tmp_path / "photos"], layouts=Layouts([tmp_path / "maps"], legend))
    return Maps(images, 8, 6)


def test_pieces_are_disjoint_and_fill_each_image(maps: Maps) -> None:
    pieces = sorted(tuple(place) for place in maps.places.tolist())
    assert pieces == [(0, 0, 0), (0, 0, 6), (0, 8, 0), (0, 8, 6), (1, 0, 0), (1, 0, 6)]


def test_the_first_pieces_are_of_different_images(maps: Maps) -> None:
    assert maps.places[:2, 0].tolist() == [0, 1]


def test_pieces_hold_the_numbers_of_their_places_and_follow_each_other_in_turn(maps: Maps) -> None:
    numbers = maps.numbers(range(12))
    assert torch.equal(numbers[:6], numbers[6:])
    at_the_right = maps.places[:, 2] == 6
    expected = np.where(at_the_right, maps.places[:, 0] + 1, 0)
    np.testing.assert_array_equal(numbers[:6, 0, 0].numpy(), expected)
    assert numbers.shape == (12, 8, 6)


def test_maps_without_room_for_a_piece_are_refused(maps: Maps) -> None:
    with pytest.raises(ValueError, match="^--layouts: must hold maps of 18x6 px, the size of the generated"):
        Maps(maps.images, 18, 6)
