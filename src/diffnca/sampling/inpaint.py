"""Images with known pixels: fill holes, add margins.

[1] Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022.
[2] Kalkhof et al., arXiv 2401.06291.
"""

from typing import Any, Unpack

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import MAX_STEP
from diffnca.canvas.region import Boundary, Canvas
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.errors import require
from diffnca.sampling.arguments import canvas_of, check_images, check_model, whole_number
from diffnca.sampling.known import Known, KnownPixels, Picture
from diffnca.sampling.starts import PureNoise
from diffnca.sampling.task import LeadingOptions, MakeTask, Task, sample_edits

JUMP, ROUNDS = 5, 4
"""Diffusion steps of a part of the walk, and how often each part is walked."""

MOST_ROUNDS = 1000
"""Largest number of rounds; the walk, a list of levels, grows by this factor."""


def inpaint(
    model: ImageDenoiser | Autoencoder,
    image: Shaped[Tensor, "*b_c_h_w"],
    mask: Shaped[Tensor, "*h_w"],
    *,
    method: str = "repaint",
    jump: int = JUMP,
    rounds: int = ROUNDS,
    **options: Unpack[LeadingOptions],
) -> Float[Tensor, "n c h w"]:
    """Fill holes of images; all other pixels keep every bit of float32.

    `"repaint"` noises the known pixels to the level of each step. It walks each part of the way several
    times, so that new pixels come to fit the known pixels [1]. `"paste"` inserts the known pixels without
    noise, as published [2], and walks once.

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        image: b c h w, in [-1, 1]. One image with a list of seeds is filled once per seed.
        mask: h w, boolean, true where to fill.
        method: how to impose the known pixels.
        jump: diffusion steps of a part of the way, >= 1.
        rounds: how often `"repaint"` walks each part, from 1 to 1000; the time grows in proportion.
        **options: see `LeadingOptions`.

    Raises:
        ValueError: an argument is not allowed, or the mask marks nothing or everything.
    """
    check_model(model)
    check_images(image, model.image_channels)
    check_mask(mask, *image.shape[-2:])
    canvas = canvas_of(image.shape[-2], image.shape[-1], options.get("boundary", Canvas.boundary))
    known = KnownPixels(Picture(image), mask, is_noised=method == "repaint")
    return sample_edits(model, image, options, canvas, completion(canvas, known, method, jump, rounds))


def extend(
    model: ImageDenoiser | Autoencoder,
    image: Shaped[Tensor, "*b_c_h_w"],
    *,
    top: int = 0,
    bottom: int = 0,
    left: int = 0,
    right: int = 0,
    method: str = "repaint",
    jump: int = JUMP,
    rounds: int = ROUNDS,
    **options: Unpack[LeadingOptions],
) -> Float[Tensor, "n c v u"]:
    """Grow images at their sides by margins in pixels, >= 0; the given pixels keep every bit of float32.

    With circular boundaries the margins join opposite sides: the image becomes a seamless tile. All other
    arguments are as for `inpaint`.

    Raises:
        ValueError: an argument is not allowed, or all margins are 0.
    """
    check_model(model)
    check_images(image, model.image_channels)
    boundary = options.get("boundary", Canvas.boundary)
    canvas, known = margins(image, (top, bottom, left, right), boundary, method)
    return sample_edits(model, image, options, canvas, completion(canvas, known, method, jump, rounds))


def completion(canvas: Canvas, known: KnownPixels, method: str, jump: int, rounds: int) -> MakeTask:
    """Return a function that gives the task to make the unknown pixels."""

    def task(denoiser: ImageDenoiser, levels: tuple[Level, ...]) -> Task:
        path = path_of(levels, method, jump, rounds)
        return Task(
            canvas, path, Known(PureNoise(denoiser.image_channels), known, path[0]), known, original=known
        )

    return task


def margins(
    image: Float[Tensor, "b c h w"],
    sides: tuple[int, int, int, int],
    boundary: tuple[Boundary, Boundary],
    method: str = "repaint",
) -> tuple[Canvas, KnownPixels]:
    """Return a canvas with margins (top, bottom, left, right) around an image, and its known pixels."""
    names = ("top", "bottom", "left", "right")
    top, bottom, left, right = (whole_number(name, side) for name, side in zip(names, sides, strict=True))
    if min(sides) < 0 or max(sides) == 0:
        allowed = f">= 0 px, and one of them above 0 ({', '.join(names)})"
        raise ValueError(f"margins {sides}: must be {allowed}")
    canvas = canvas_of(image.shape[-2] + top + bottom, image.shape[-1] + left + right, boundary)
    return canvas, KnownPixels(Picture(image, top, left), is_noised=method == "repaint")


def path_of(levels: tuple[Level, ...], method: str, jump: int, rounds: int) -> tuple[Level, ...]:
    """Return the levels to visit; `"repaint"` noises and walks each part `rounds` times ([1] algorithm 1)."""
    if method not in ("repaint", "paste"):
        raise ValueError(f"method={method!r}: must be repaint or paste")
    require(whole_number("jump", jump) >= 1, "jump", jump, ">= 1")
    allowed = f"from 1 to {MOST_ROUNDS}; 1 round walks once"
    require(1 <= whole_number("rounds", rounds) <= MOST_ROUNDS, "rounds", rounds, allowed)
    if method == "paste":
        return levels
    path: list[Level] = []
    for first in range(0, len(levels), jump):
        part, following = levels[first : first + jump], (*levels[first + jump :], CLEAN)[0]
        path += [*part, following] * (rounds - 1) + [*part]
    most = f"few enough for a walk of {MAX_STEP + 1} steps, not {len(path)}"
    require(len(path) <= MAX_STEP + 1, "rounds", rounds, most)
    return tuple(path)


def check_mask(mask: Any, height: int, width: int) -> None:
    """Refuse a mask that does not fit its image, or that marks nothing or everything."""
    if not isinstance(mask, torch.Tensor):
        raise ValueError(f"mask of type {type(mask).__name__}: must be a tensor, true where to fill")
    if mask.shape != (height, width):
        size = "x".join(map(str, mask.shape))
        raise ValueError(f"mask of {size} px: must be of {height}x{width} px, as its image; resize it")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask of {mask.dtype}: must be boolean, true where to fill; compare it: mask > 0.5")
    if not mask.any():
        raise ValueError("mask: marks nothing to fill; it must be true (white) where to fill")
    if mask.all():
        raise ValueError(
            "mask: marks all as to fill, nothing is known; use generate (diffnca sample) instead"
        )
