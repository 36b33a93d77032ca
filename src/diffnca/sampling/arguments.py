"""Checks of the arguments that all tasks share: numbers, seeds, models, devices and images."""

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from numbers import Real
from pathlib import PurePath
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.region import Canvas
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.errors import require, require_members, shown
from diffnca.models.build import require_device


@contextmanager
def undisturbed() -> Iterator[None]:
    """Compute in float32 and without gradients within the block, whatever the caller has set in torch."""
    with (
        _default_type.as_float32(),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


class DefaultType:
    """The default type of torch, which all threads share; the last block that ends gives it back."""

    def __init__(self) -> None:
        """Begin without a block."""
        self.lock, self.blocks, self.before = Lock(), 0, torch.float32

    @contextmanager
    def as_float32(self) -> Iterator[None]:
        """Let the type be float32 within the block, also while blocks of other threads begin and end."""
        with self.lock:
            if self.blocks == 0:
                self.before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self.blocks += 1
        try:
            yield
        finally:
            with self.lock:
                self.blocks -= 1
                if self.blocks == 0:
                    torch.set_default_dtype(self.before)


_default_type = DefaultType()


def whole_number(name: str, value: Any) -> int:
    """Return `value` as an int; refuse fractions."""
    try:
        return operator.index(value)
    except TypeError:
        reason = ", without a decimal point" if isinstance(value, Real) else ""
        raise ValueError(f"{name}={shown(value)}: must be a whole number{reason}") from None


def number(name: str, value: Any) -> float:
    """Return `value` as a float; refuse text, and several numbers."""
    if not isinstance(value, str | bytes | bytearray):
        with suppress(TypeError, ValueError, RuntimeError):  # the last of a tensor of several numbers
            return float(value)
    raise ValueError(f"{name}={shown(value)}: must be a number")


def canvas_of(height: Any, width: Any, boundary: Any) -> Canvas:
    """Return the canvas of an image; refuse sides and boundaries that no canvas has."""
    if not isinstance(boundary, Sequence) or len(boundary) != 2:
        raise ValueError(f'boundary={boundary!r}: must be a pair (y, x), each "reflect" or "circular"')
    y, x = boundary
    return Canvas(whole_number("height", height), whole_number("width", width), (y, x))


def listed_seeds(seed: Any) -> tuple[int, ...] | None:
    """Return the seeds of a list, a range, an array or a tensor; `None` for a single seed."""
    if isinstance(seed, np.ndarray | Tensor):
        seed = seed.tolist()  # of no dimension: a number; of two: lists, which are no seeds
    if not isinstance(seed, Sequence) or isinstance(seed, str | bytes | bytearray):
        return None
    return tuple(whole_number("seed", each) for each in seed)


def seeds_of(seed: Any, batch: Any) -> tuple[int, ...]:
    """Return one seed per image."""
    seeds = listed_seeds(seed)
    if seeds is None:
        first, count = whole_number("seed", seed), 1 if batch is None else whole_number("batch", batch)
        require(count >= 1, "batch", batch, ">= 1, the number of images to make")
        return tuple(range(first, first + count))
    if batch is not None and batch != len(seeds):
        raise ValueError(f"batch={batch} with {len(seeds)} seeds: give one seed per image, or no batch")
    return seeds


def check_model(model: Any, **others: Any) -> None:
    """Refuse the name of a model, and what is none; `others` are further arguments, which may be `None`."""
    given = {"model": model} | {name: other for name, other in others.items() if other is not None}
    for name, each in given.items():
        if isinstance(each, str | PurePath):
            text = repr(str(each))
            raise ValueError(f"{name}={text}: must be a model, not its name; give diffnca.load({text})")
        if not isinstance(each, Autoencoder):
            require_members(name, each, vars(ImageDenoiser))


def place_of(model: Any, device: str | torch.device | None) -> torch.device:
    """Return the device to compute on, and move the model to `device` unless that is `None`."""
    require_device(device)
    while hasattr(model, "denoiser"):  # such as `Guided`, which is where its better model is
        model = model.denoiser
    if isinstance(model, nn.Module) and device is not None:
        model.to(device)
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    return next((weight.device for weight in weights), torch.device(device or "cpu"))


def check_images(image: Any, channels: int) -> None:
    """Refuse given images whose shape, type or range the model does not take."""
    maker = "diffnca.canvas.pixels.to_model"
    if not isinstance(image, Tensor):
        raise ValueError(f"image of type {type(image).__name__}: must be a tensor; see {maker}")
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
        allowed = f"(b, {channels}, height, width) for this model"
        raise ValueError(f"image of shape {tuple(image.shape)}: must be {allowed}; reshape or convert it")
    if not image.is_floating_point():
        raise ValueError(f"image of {image.dtype}: must hold numbers from -1 to 1; see {maker}")
    if not bool(((image >= -1.0) & (image <= 1.0)).all()):
        raise ValueError(f"image: must hold numbers from -1 to 1; scale it, as {maker} does")


def number_between(name: str, value: Any, above: float, most: float) -> float:
    """Return `value` as a float; refuse a number outside `above < value <= most`."""
    found = number(name, value)
    if not above < found <= most:
        raise ValueError(f"{name}={found:g}: must be above {above:g} and at most {most:g}")
    return found
