"""Images of which some pixels are known: holes to fill, margins to add.

References:
    [1] Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022.
    [2] Kalkhof et al., arXiv 2401.06291.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.region import Boundary, Canvas
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.sampling.arguments import canvas_of, check_images, whole_number
from diffnca.sampling.known import Known, KnownPixels, Picture
from diffnca.sampling.starts import PureNoise
from diffnca.sampling.task import Options, Task, sample_images

JUMP, ROUNDS = 5, 4
"""Steps of a jump back, and how often each is walked."""


def inpaint(
    model: ImageDenoiser | Autoencoder,
    image: Shaped[Tensor, "*b_c_h_w"],
    mask: Shaped[Tensor, "*h_w"],
    *,
    method: str = "repaint",
    jump: int = JUMP,
    rounds: int = ROUNDS,
    boundary: tuple[Boundary, Boundary] = ("reflect", "reflect"),
    **options: Unpack[Options],
) -> Float[Tensor, "n c h w"]:
    """Fill holes of images; all other pixels stay as they are, to the bit.

    `"repaint"` noises the known pixels to the level of each step, and walks each part of the way several
    times, so that what is drawn comes to fit what is known [1]. `"paste"` puts them in as they are, as
    published [2], and walks once.

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        image: b c h w, in [-1, 1]. One image with a list of seeds is filled once for each.
        mask: h w, boolean, true where to fill.
        method: how the known pixels are imposed.
        jump: diffusion steps of a part of the way.
        rounds: how often `"repaint"` walks each part; it takes so many times as long.
        boundary: how the image goes on beyond its edges, (y, x).
        **options: how images are made.

    Raises:
        ValueError: an argument is not allowed, or nothing or all is to be filled.
    """
    check_images(image, model.image_channels)
    check_mask(mask, image.shape[-2], image.shape[-1])
    canvas = canvas_of(image.shape[-2], image.shape[-1], boundary)
    known = KnownPixels(Picture(image), mask, is_noised=method == "repaint")
    return sample_images(model, len(image), options, completion(canvas, known, method, jump, rounds))


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
    boundary: tuple[Boundary, Boundary] = ("reflect", "reflect"),
    **options: Unpack[Options],
) -> Float[Tensor, "n c v u"]:
    """Grow images at their sides; their own pixels stay as they are, to the bit.

    With circular boundaries the margins join opposite sides: the image becomes a seamless tile.

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        image: b c h w, in [-1, 1]. One image with a list of seeds is grown once for each.
        top: pixels to add above, >= 0; at least one margin must be > 0.
        bottom: pixels to add below.
        left: pixels to add on the left.
        right: pixels to add on the right.
        method: as for `inpaint`.
        jump: as for `inpaint`.
        rounds: as for `inpaint`.
        boundary: how the grown image goes on beyond its edges, (y, x).
        **options: how images are made.

    Raises:
        ValueError: an argument is not allowed, or nothing is to be added.
    """
    check_images(image, model.image_channels)
    canvas, known = margins(image, (top, bottom, left, right), boundary, method)
    return sample_images(model, len(image), options, completion(canvas, known, method, jump, rounds))


def completion(
    canvas: Canvas, known: KnownPixels, method: str, jump: int, rounds: int
) -> Callable[[ImageDenoiser, tuple[Level, ...]], Task]:
    """Return what gives the task to make the pixels that are not known."""

    def task(denoiser: ImageDenoiser, levels: tuple[Level, ...]) -> Task:
        path = path_of(levels, method, jump, rounds)
        return Task(canvas, path, Known(PureNoise(denoiser.image_channels), known, path[0]), known)

    return task


def margins(
    image: Float[Tensor, "b c h w"],
    sides: tuple[int, int, int, int],
    boundary: tuple[Boundary, Boundary],
    method: str = "repaint",
) -> tuple[Canvas, KnownPixels]:
    """Return a canvas with margins (top, bottom, left, right) around an image, and what is known of it.

    Raises:
        ValueError: there are none, or one is negative.
    """
    names = ("top", "bottom", "left", "right")
    top, bottom, left, right = (whole_number(name, side) for name, side in zip(names, sides, strict=True))
    if min(sides) < 0 or max(sides) == 0:
        raise ValueError(
            f"margins {sides}: must be >= 0 px, and one of them above 0 (top, bottom, left, right)"
        )
    canvas = canvas_of(image.shape[-2] + top + bottom, image.shape[-1] + left + right, boundary)
    return canvas, KnownPixels(Picture(image, top, left), is_noised=method == "repaint")


def path_of(levels: tuple[Level, ...], method: str, jump: int, rounds: int) -> tuple[Level, ...]:
    """Return the levels that are visited: with `"repaint"`, each part of them `rounds` times.

    After a part, when the level is reached with which the next one begins, noise is added up to the level
    with which it began itself ([1] algorithm 1).

    Raises:
        ValueError: the method is not known, a number is not allowed.
    """
    if method not in ("repaint", "paste"):
        raise ValueError(f"method={method!r}: must be repaint or paste")
    if whole_number("jump", jump) < 1 or whole_number("rounds", rounds) < 1:
        raise ValueError(f"jump={jump}, rounds={rounds}: both must be >= 1; 1 round walks once")
    if method == "paste":
        return levels
    path: list[Level] = []
    for first in range(0, len(levels), jump):
        part, following = levels[first : first + jump], (*levels[first + jump :], CLEAN)[0]
        path += [*part, following] * (rounds - 1) + [*part]
    return tuple(path)


def check_mask(mask: Any, height: int, width: int) -> None:
    """Refuse a mask that does not fit its image.

    Raises:
        ValueError: it has another size or type, or marks nothing or all.
    """
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
