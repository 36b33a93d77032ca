"""Styles of pictures: closed forms, independence of the size, standard numbers, what a model keeps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.config.model import Config, with_fields
from diffnca.data.images import open_images
from diffnca.data.styles import BAND_PX, MOST_KEPT, kept, style_of
from diffnca.sampling.styles import LARGEST, known_styles, standard

STYLED = with_fields(Config(), {"layout.style": True})
GRAY = with_fields(STYLED, {"model.image_channels": 1})


def checkered(height: int, width: int, side: int, step: int = 24) -> np.ndarray:
    """Return a gray picture of squares whose levels differ by `step`."""
    rows, columns = np.arange(height)[:, None] // side, np.arange(width) // side
    return np.uint8(100 + step * ((rows + columns) % 2))[..., None]


def noisy(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(20, 200, (48, 64, 3), dtype=np.uint8)


def test_one_colour_has_its_tones_and_no_differences() -> None:
    picture = np.full((20, 24, 3), (0, 255, 51), dtype=np.uint8)
    assert style_of(picture) == (-1.0, 1.0, -0.6, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (BAND_PX + 16, 16)])
def test_squares_have_the_difference_of_their_levels_in_any_size(size: tuple[int, int]) -> None:
    of_pixels, of_squares = style_of(checkered(*size, side=1)), style_of(checkered(*size, side=8))
    assert of_pixels is not None and of_squares is not None
    assert of_pixels[1:] == (round(np.log2(25.0), 4), 0.0)
    assert of_squares[2] == round(np.log2(25.0), 4)


def test_hues_are_differences_of_colour_at_equal_brightness() -> None:
    one, other = checkered(32, 32, side=8), checkered(32, 40, side=8)[:, 8:]
    style = style_of(np.concatenate([one, other, np.full_like(one, 112)], axis=2))
    assert style is not None
    assert style[3:] == (0.0, 0.0, round(np.log2(1 + 24 * np.sqrt(2 / 3)), 4))


def test_a_shifted_stain_changes_tones_alone() -> None:
    one, other = style_of(noisy()), style_of(noisy() + np.uint8([51, 0, 25]))
    assert one is not None and other is not None
    shift = np.subtract(other, one)
    np.testing.assert_allclose(shift, [0.4, 0.0, 25 / 127.5, 0.0, 0.0, 0.0], atol=2e-4)


def test_unknown_pixels_have_no_part_in_a_style() -> None:
    picture, known = noisy(), np.zeros((48, 64), dtype=bool)
    known[8:32, 16:48] = True
    assert style_of(picture, known) == style_of(picture[8:32, 16:48])


def test_a_picture_without_two_squares_side_by_side_has_no_style() -> None:
    assert style_of(noisy()[:15, :15]) is None


def test_the_mean_of_the_images_is_seen_as_zeros_and_a_deviation_as_one() -> None:
    numbers = np.random.default_rng(0).normal(size=(9, 6)).round(4)
    config = with_fields(STYLED, {"layout.styles": tuple(numbers.ravel().tolist())})
    steps = torch.tensor([[0.0], [1.0], [-2.5], [7.0]], dtype=torch.float64)
    styles = torch.from_numpy(numbers.mean(axis=0)) + steps * torch.from_numpy(numbers.std(axis=0))
    expected = steps.clamp(-LARGEST, LARGEST).float().expand(-1, 6)
    torch.testing.assert_close(standard(styles, config), expected)


def test_a_number_that_all_images_share_is_seen_as_zero() -> None:
    config = with_fields(GRAY, {"layout.styles": (0.5, 3.0, 4.0, -0.5, 3.0, 4.0)})
    assert torch.equal(standard(known_styles(config), config), torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]))


def test_a_model_keeps_styles_of_few_images_evenly_spread() -> None:
    numbers = np.arange(3 * 2 * MOST_KEPT, dtype=np.float32).reshape(-1, 3)
    config = with_fields(GRAY, {"layout.styles": kept(numbers)})
    assert torch.equal(known_styles(config), torch.from_numpy(numbers[::2]).double())


def test_the_style_of_a_set_is_that_of_its_reduced_images(tmp_path: Path) -> None:
    Image.fromarray(noisy().repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / "a.png")
    images = open_images([tmp_path], reduce=2, has_style=True)
    np.testing.assert_array_equal(images.styles, np.float32([style_of(images[0])]))


def test_an_image_that_is_too_small_for_a_style_is_left_out(tmp_path: Path) -> None:
    for name, picture in (("a", noisy()), ("b", noisy()[:15, :15])):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    images = open_images([tmp_path], has_style=True)
    assert images.names == ("a.png",)
    assert images.skipped[0].text == "too small: 15x15 px have no style; at least 16x16 are needed"
