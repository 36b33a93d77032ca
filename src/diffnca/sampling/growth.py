"""Images larger than those of training, grown out of one of that size.

A model that sees the whole image knows how wholes look at the size it was trained at, and nowhere else: on
a larger canvas each low frequency holds more of the image beside as much noise as before, at any time. So
the whole is made on a canvas of the shape asked for, whose smaller side is that of training; then it is
enlarged, noised in part and denoised (SDEdit [1]), by a factor of at most two at a time, and gets its
detail. The smallest image is the one that its seed gives at that size.

References:
    [1] Meng et al., "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations",
        2022.
"""

from __future__ import annotations

import math

import torch

from diffnca.canvas.noise import MAX_SEED, Noise
from diffnca.canvas.region import Canvas
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.schedule import Level
from diffnca.diffusion.walk import Progress
from diffnca.sampling.starts import Initial
from diffnca.sampling.task import Task, sample_task
from diffnca.sampling.upscale import enlargement

STRENGTH = 0.6
"""Where the walk of an enlarged image starts."""

LEAST_FACTOR = 1.1
"""Up to which a model makes an image at once whose smaller side is larger than that of training."""

LARGEST_KNOWN_PX = 1024**2
"""Area of the largest image that is enlarged; the last one is enlarged by as much as it takes."""

GOLDEN = 0x9E3779B97F4A7C15
"""Between the seeds of an image and of what it becomes, which must draw other numbers."""


def canvases_of(denoiser: ImageDenoiser, canvas: Canvas, direct: bool = False) -> tuple[Canvas, ...]:
    """Return the canvases on which an image grows, the one asked for last; this one alone if it does not.

    Only models that see the whole image, and whose configuration says so, let larger ones than those of
    training grow, unless they are to be made directly.
    """
    side = denoiser.config.data.crop
    factor = min(canvas.height, canvas.width) / side
    grows = denoiser.has_context and denoiser.config.sampling.grown and not direct
    if not grows or factor <= LEAST_FACTOR:
        return (canvas,)
    count = math.ceil(math.log2(factor))
    smaller = [_reduced(canvas, factor ** (stage / count - 1.0), denoiser) for stage in range(count)]
    return (smaller[0], *(each for each in smaller[1:] if each.whole.area <= LARGEST_KNOWN_PX), canvas)


def planned(
    denoiser: ImageDenoiser, canvases: tuple[Canvas, ...], levels: tuple[Level, ...], initial: Initial
) -> Task:
    """Return the task of the last image as far as it is known before the others are made: not its start."""
    if len(canvases) == 1:
        return Task(canvases[0], levels, initial)
    before = canvases[-2]
    unknown = torch.zeros(1, denoiser.image_channels, before.height, before.width)
    return enlargement(canvases[-1], unknown, "noise", STRENGTH)(denoiser, levels)


def grown(
    denoiser: ImageDenoiser,
    canvases: tuple[Canvas, ...],
    levels: tuple[Level, ...],
    sampler: Sampler,
    noise: Noise,
    initial: Initial,
    progress: Progress | None = None,
) -> tuple[Task, Noise]:
    """Make all images but the last, in memory; return the task of the last one and what it draws from.

    The task can be sent to a machine that lacks the device of this one.

    Args:
        denoiser: the model.
        canvases: as `canvases_of` returns them.
        levels: those of a walk from pure noise.
        sampler: how a step is taken.
        noise: the random numbers of the images.
        initial: gives the first image at the first level.
        progress: is told the steps of each walk.
    """
    task = Task(canvases[0], levels, initial)
    for stage, canvas in enumerate(canvases[1:], start=1):
        image = sample_task(task, denoiser, sampler, grown_noise(noise, stage - 1), progress=progress)
        task = enlargement(canvas, image.cpu(), "noise", STRENGTH)(denoiser, levels)
    return task, grown_noise(noise, len(canvases) - 1)


def grown_noise(noise: Noise, stage: int) -> Noise:
    """Return the random numbers of an image that has been enlarged so often."""
    return Noise(tuple(grown_seed(seed, stage) for seed in noise.seeds), noise.device)


def grown_seed(seed: int, stage: int) -> int:
    """Return the seed of an image that has been enlarged so often."""
    return (seed + stage * GOLDEN) & MAX_SEED


def _reduced(canvas: Canvas, share: float, denoiser: ImageDenoiser) -> Canvas:
    """Return a canvas of the same shape, its sides this share; circular ones fit the model's cells."""
    patch = getattr(denoiser.config.model, "patch", 1)

    def side(whole: int, boundary: str) -> int:
        unit = patch if boundary == "circular" else 1
        return max(unit * round(whole * share / unit), unit)

    height, width = (side(*each) for each in zip((canvas.height, canvas.width), canvas.boundary, strict=True))
    return Canvas(height, width, canvas.boundary)
