"""Pixels of files and pixels of models."""

from __future__ import annotations

import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffnca.canvas.pixels import to_model, to_uint8

examples = settings(max_examples=50, deadline=None)  # a busy machine is slow, not wrong
EVERY_UINT8 = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
EVERY_UINT16 = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)


def uint8_of(number: float) -> int:
    return int(to_uint8(torch.full((1, 1, 1, 1), number)).item())


def test_every_8_bit_pixel_survives_the_round_trip() -> None:
    assert np.array_equal(to_uint8(to_model(EVERY_UINT8)[None])[0], EVERY_UINT8)


def test_every_16_bit_pixel_becomes_the_nearest_8_bit_pixel() -> None:
    nearest = (EVERY_UINT16.astype(np.int64) * 2 + 257) // 514  # x / 257, rounded; there are no halves
    assert np.array_equal(to_uint8(to_model(EVERY_UINT16)[None])[0], nearest)


@pytest.mark.parametrize("every", [EVERY_UINT8, EVERY_UINT16])
def test_every_pixel_becomes_the_float32_nearest_to_it(every: np.ndarray) -> None:
    largest = np.iinfo(every.dtype).max
    expected = ((2.0 * every.astype(np.float64) - largest) / largest).astype(np.float32)
    assert np.array_equal(to_model(every)[0].numpy(), expected[..., 0])


@pytest.mark.parametrize("every", [EVERY_UINT8, EVERY_UINT16])
def test_the_numbers_of_a_model_run_from_minus_one_to_one(every: np.ndarray) -> None:
    assert to_model(every).aminmax() == (-1.0, 1.0)


@examples
@given(st.floats(-1, 1, width=32))
def test_a_number_becomes_the_nearest_pixel_and_a_half_the_upper(number: float) -> None:
    exact = (Fraction(number) + 1) * Fraction(255, 2)
    assert uint8_of(number) == math.floor(exact + Fraction(1, 2))


@pytest.mark.parametrize(
    ("number", "pixel"), [(0.0, 128), (-1e-30, 127), (1e-30, 128), (-1.0, 0), (1.0, 255)]
)
def test_the_number_next_to_a_half_is_not_rounded_twice(number: float, pixel: int) -> None:
    assert uint8_of(number) == pixel


@pytest.mark.parametrize(("number", "pixel"), [(1.5, 255), (-7.0, 0), (math.inf, 255), (-math.inf, 0)])
def test_numbers_beyond_the_range_are_clamped(number: float, pixel: int) -> None:
    assert uint8_of(number) == pixel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_rounded_alike(dtype: torch.dtype) -> None:
    images = torch.linspace(-1, 1, 301).to(dtype).view(1, 1, 7, 43)
    assert np.array_equal(to_uint8(images), to_uint8(images.float()))


def test_a_number_does_not_depend_on_its_place_in_the_array() -> None:
    tail = EVERY_UINT8.reshape(1, 256, 1)[:, 3:]
    assert torch.equal(to_model(tail).flatten(), to_model(EVERY_UINT8).flatten()[3:])


def test_the_colours_keep_their_order() -> None:
    array = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3)
    assert np.array_equal(to_uint8(to_model(array)[None])[0], array)


def test_rows_come_before_columns() -> None:
    assert to_model(np.zeros((2, 5, 3), dtype=np.uint8)).shape == (3, 2, 5)


def test_a_gray_image_without_a_channel_axis_gets_one() -> None:
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert torch.equal(to_model(gray), to_model(gray[..., None]))


def test_the_pixels_of_a_big_endian_file_are_the_same() -> None:
    assert torch.equal(to_model(EVERY_UINT16.astype(">u2")), to_model(EVERY_UINT16))


def test_the_pixels_of_a_model_are_apart_from_those_of_the_file() -> None:
    array = np.zeros((2, 2, 1), dtype=np.uint8)
    pixels = to_model(array)
    array[:] = 255
    assert torch.equal(pixels, torch.full((1, 2, 2), -1.0))


@pytest.mark.filterwarnings("error")
def test_a_read_only_array_is_read_without_a_warning() -> None:
    array = np.zeros((2, 2, 1), dtype=np.uint8)
    array.flags.writeable = False
    assert to_model(array).shape == (1, 2, 2)


def test_pixels_that_need_a_gradient_become_a_file() -> None:
    assert to_uint8(torch.zeros(1, 1, 1, 1, requires_grad=True)).dtype == np.uint8


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="1 NaN"):
        to_uint8(torch.tensor([0.0, math.nan]).view(1, 1, 1, 2))


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float32, np.bool_])
def test_pixels_of_another_type_are_refused(dtype: type) -> None:
    with pytest.raises(ValueError, match="must be uint8 or uint16"):
        to_model(np.zeros((2, 2, 3), dtype=dtype))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 5, 7), r"images of shape \(3, 5, 7\): must be \(b, c, h, w\)"),
        (torch.zeros(5, 7), r"images of shape \(5, 7\): must be \(b, c, h, w\)"),
        (
            torch.full((1, 3, 2, 2), 200, dtype=torch.uint8),
            "images of torch.uint8: must hold numbers from -1",
        ),
        (np.zeros((1, 3, 2, 2), dtype=np.float32), "images of type ndarray: must be a tensor"),
    ],
    ids=["c h w", "h w", "integers", "array"],
)
def test_what_no_model_gives_becomes_no_file(images: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        inspect.unwrap(to_uint8)(images)  # as for users, whose types nobody checks


@pytest.mark.parametrize("pixels", [torch.zeros(2, 2, 3, dtype=torch.uint8), [[0]], None], ids=type)
def test_pixels_that_are_no_array_are_refused(pixels: object) -> None:
    with pytest.raises(ValueError, match=r"^pixels of type \w+: must be an array of NumPy[^\n]*$"):
        inspect.unwrap(to_model)(pixels)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2, 3)])
def test_pixels_of_no_one_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be \\(h, w, c\\)"):
        to_model(np.zeros(shape, dtype=np.uint8))
