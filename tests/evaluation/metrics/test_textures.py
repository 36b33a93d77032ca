"""Spectra, colours and seams are what they are for images whose values are known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics.textures import (
    colour_error,
    colour_moments,
    radial_spectrum,
    seam_ratio,
    spectrum_error_db,
)


def noise(n: int, side: int, sigma: float, seed: int = 0) -> Tensor:
    values = 127.5 + sigma * torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return values.round().clamp(0, 255).to(torch.uint8)


def smooth(n: int, side: int, seed: int = 0) -> Tensor:
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    enlarged = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=True)
    return (60 + 130 * enlarged).round().clamp(0, 255).to(torch.uint8)


def wave(side: int, cycles: int) -> Tensor:
    x = torch.arange(side) * 2 * math.pi * cycles / side
    row = (127.5 + 100 * torch.cos(x)).round().to(torch.uint8)
    return row.expand(1, 3, side, side)


def test_white_noise_has_its_variance_on_every_ring() -> None:
    spectrum = radial_spectrum(noise(200, 32, sigma=20))
    variance = (20**2 + 1 / 12) / 3 / 255**2  # the mean of three channels
    assert len(spectrum) == 16
    torch.testing.assert_close(spectrum[2:], torch.full((14,), variance).double(), rtol=0.1, atol=0)


@pytest.mark.parametrize("cycles", [3, 8, 13])
def test_a_wave_is_on_its_ring(cycles: int) -> None:
    assert int(radial_spectrum(wave(32, cycles)).argmax()) + 1 == cycles


def test_rings_are_counted_per_smaller_side() -> None:
    tall = wave(32, 4).repeat(1, 1, 2, 1)
    assert tall.shape[2:] == (64, 32)
    assert int(radial_spectrum(tall).argmax()) + 1 == 4


def test_twice_the_amplitude_is_six_decibels() -> None:
    error = spectrum_error_db(noise(300, 16, sigma=30), noise(300, 16, sigma=15, seed=1))
    assert error == pytest.approx(20 * math.log10(2), abs=0.3)


def test_equal_images_have_no_error() -> None:
    images = smooth(10, 24)
    assert spectrum_error_db(images, images) == 0.0
    assert colour_error(images, images) == pytest.approx(0.0, abs=1e-4)


def test_more_noise_raises_the_error_of_the_spectrum() -> None:
    images = smooth(40, 32)
    errors = [
        spectrum_error_db((images.int() + noise(40, 32, s).int() - 128).clamp(0, 255).to(torch.uint8), images)
        for s in (2, 6, 18)
    ]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_more_blur_raises_the_error_of_the_spectrum() -> None:
    images = noise(40, 32, sigma=40)
    errors = []
    for width in (3, 5, 9):
        blurred = torch.nn.functional.avg_pool2d(
            images.float(), width, 1, width // 2, count_include_pad=False
        )
        errors.append(spectrum_error_db(blurred.round().to(torch.uint8), images))
    assert 0 < errors[0] < errors[1] < errors[2]


def test_flat_images_have_the_power_of_rounding_at_least() -> None:
    flat = torch.full((4, 3, 16, 16), 90, dtype=torch.uint8)
    assert math.isfinite(spectrum_error_db(flat, noise(4, 16, sigma=10)))


def test_moments_are_those_of_all_pixels() -> None:
    images = noise(70, 9, sigma=30)
    pixels = images.double().movedim(1, 0).flatten(1).numpy() / 255
    mean, covariance = colour_moments(images)
    np.testing.assert_allclose(mean.numpy(), pixels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(covariance.numpy(), np.cov(pixels, bias=True), rtol=1e-9)


def test_a_shift_of_all_colours_is_its_length() -> None:
    images = smooth(20, 16)
    shifted = images + torch.tensor([3, 4, 0], dtype=torch.uint8)[:, None, None]
    assert colour_error(shifted, images) == pytest.approx(5.0, rel=1e-6)


def test_gray_images_have_colours_too() -> None:
    images = smooth(20, 16)[:, :1]
    assert colour_error(images + 7, images) == pytest.approx(7.0, rel=1e-6)


def pictures(images: Tensor) -> list[np.ndarray]:
    return list(images.movedim(1, -1).numpy())


def test_images_without_seams_have_a_ratio_of_one() -> None:
    assert seam_ratio(pictures(noise(50, 64, sigma=30)), 16) == pytest.approx(1.0, abs=0.01)


def test_tiles_put_side_by_side_show_their_seams() -> None:
    tiles = smooth(64, 16)
    rows = [torch.cat(list(tiles[k : k + 4]), dim=2) for k in range(0, 64, 4)]
    images = torch.stack([torch.cat(rows[k : k + 4], dim=1) for k in range(0, 16, 4)])
    assert images.shape == (4, 3, 64, 64)
    assert seam_ratio(pictures(images), 16) > 3.0
    assert seam_ratio(pictures(images), 15) < 1.5


@pytest.mark.parametrize("every_px", [1, 32])
def test_seams_that_cannot_be_are_one_line(every_px: int) -> None:
    with pytest.raises(ValueError, match=f"^seams every {every_px} px: must be from 2 to 31 px apart"):
        seam_ratio(pictures(smooth(1, 32)), every_px)


def test_images_too_small_for_a_spectrum_are_one_line() -> None:
    with pytest.raises(ValueError, match="^images of 3x3 px: a spectrum needs 4 px"):
        radial_spectrum(noise(2, 3, sigma=3))
