"""A look at images before training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.data import open_images
from diffnca.data.survey import glance, is_gray, near_duplicates, reduction_of, survey


def noise(height: int = 128, width: int = 128, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def enlarged(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Return an image `factor` times as large that has no other frequencies."""
    height, width, _ = pixels.shape
    spectrum = np.fft.fftshift(np.fft.fft2(pixels, axes=(0, 1)), axes=(0, 1))
    spectrum[0], spectrum[:, 0] = 0, 0  # the limit itself has no partner on the other side
    margins = [(side * (factor - 1) // 2,) * 2 for side in (height, width)]
    padded = np.fft.ifftshift(np.pad(spectrum, [*margins, (0, 0)]), axes=(0, 1))
    values = np.fft.ifft2(padded, axes=(0, 1)).real * factor**2
    return (values / 4 + 96).clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_an_enlarged_photo_is_reduced_to_its_own_size(factor: int) -> None:
    assert reduction_of([enlarged(noise(), factor)], smallest_side=16) == factor


def test_white_noise_is_not_reduced() -> None:
    assert reduction_of([noise(512, 512)], smallest_side=16) == 1


def test_no_reduction_makes_an_image_too_small() -> None:
    assert reduction_of([enlarged(noise(64, 64), 4)], smallest_side=128) == 2


def test_an_image_of_one_colour_can_be_made_much_smaller() -> None:
    assert reduction_of([np.full((800, 800, 3), 255, np.uint8)], smallest_side=64) == 8


def test_gray_is_where_all_channels_are_equal() -> None:
    gray = noise()[..., :1].repeat(3, axis=2)
    coloured = gray.copy()
    coloured[5, 7, 1] ^= 1
    assert is_gray(gray) and not is_gray(coloured)


def test_doubles_are_found_and_others_are_not(tmp_path: Path) -> None:
    for seed in range(4):
        Image.fromarray(enlarged(noise(16, 16, seed), 8)).save(tmp_path / f"{seed}.png")
    Image.open(tmp_path / "2.png").save(tmp_path / "again.jpg", quality=60)
    assert near_duplicates(open_images([tmp_path])) == (("2.png", "again.jpg"),)


def test_background_is_the_share_of_nearly_white_pixels(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 3), 250, np.uint8)
    pixels[:16] = 100
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert survey(open_images([tmp_path])).background == 0.75


def test_a_glance_at_nothing_leaves_the_message_to_the_training(tmp_path: Path) -> None:
    assert glance((tmp_path,)) == []
