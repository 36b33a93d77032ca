"""What all tasks are asked with: whole numbers, seeds, a device, given images."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def whole_number(name: str, value: int) -> int:
    """Return `value` if it is a whole number, of whatever type."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: must be a whole number, without a decimal point") from None


def seeds_of(seed: int | Sequence[int], batch: int | None) -> tuple[int, ...]:
    """Return one seed per image."""
    if not isinstance(seed, Sequence):
        first, count = whole_number("seed", seed), 1 if batch is None else whole_number("batch", batch)
        if count < 1:
            raise ValueError(f"batch={batch}: must be >= 1, the number of images to make")
        return tuple(range(first, first + count))
    if batch is not None and batch != len(seed):
        raise ValueError(f"batch={batch} with {len(seed)} seeds: give one seed per image, or no batch")
    return tuple(whole_number("seed", each) for each in seed)


def place_of(model: Any, device: str | torch.device | None) -> torch.device:
    """Return the device to compute on, and move the model there if one is asked for.

    A model around another one, such as a guided one, is where that is.
    """
    if hasattr(model, "denoiser"):
        return place_of(model.denoiser, device)
    if isinstance(model, nn.Module):
        if device is not None:
            model.to(device)
        return next((weight.device for weight in model.parameters()), torch.device(device or "cpu"))
    return torch.device(device or "cpu")


def check_images(image: Tensor, channels: int) -> None:
    """Refuse given images that a model cannot work on.

    Raises:
        ValueError: they have another shape, type or range than images of the model.
    """
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
        raise ValueError(
            f"image of shape {tuple(image.shape)}: must be (b, {channels}, height, width) for this model; "
            "reshape or convert it"
        )
    if not image.is_floating_point():
        raise ValueError(
            f"image of {image.dtype}: must hold numbers from -1 to 1; see diffnca.canvas.pixels.to_model"
        )
    if not bool(((image >= -1.0) & (image <= 1.0)).all()):
        raise ValueError(
            "image: must hold numbers from -1 to 1; scale it, as diffnca.canvas.pixels.to_model does"
        )


def check_between(name: str, value: float, above: float, most: float) -> None:
    """Refuse a number that is not above one and at most another."""
    if not above < value <= most:
        raise ValueError(f"{name}={value:g}: must be above {above:g} and at most {most:g}")
