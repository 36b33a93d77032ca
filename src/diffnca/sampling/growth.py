"""Images larger than the training crops, grown from an image of that size.

A model that sees the whole canvas knows whole images only at its training size. On a larger canvas, each low
frequency holds more image beside equal noise. Most models have a pyramid for that, in `pyramid` beside this
file. Students and a few canvases have none. Then the first canvas has the training size as its smaller side,
and its image is exactly the image of its seed. Each next image is enlarged by at most 2, noised in part and
denoised. Then its means over blocks are moved near the smaller image: denoising alone changes a face.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from diffnca.canvas.noise import MAX_SEED, Noise
from diffnca.canvas.region import Canvas
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.schedule import Level
from diffnca.diffusion.walk import Planes, Progress
from diffnca.sampling.coarse import completing
from diffnca.sampling.known import NearMeans
from diffnca.sampling.pyramid import half_of
from diffnca.sampling.starts import Initial
from diffnca.sampling.task import Task, sample_task
from diffnca.sampling.upscale import enlargement

STRENGTH = 0.4
"""Start of the walk of an enlarged image, as a share of the way: the last call of a student of four steps."""

LEAST_FACTOR = 1.1
"""An image grows above this factor between its smaller side and the side of training."""

LARGEST_KNOWN_PX = 1024**2
"""Area of the largest image that is enlarged; the last enlargement may be by any factor."""

GOLDEN = 0x9E3779B97F4A7C15
"""Distance between the seeds of two stages of growth, which must draw other numbers."""


def canvases_of(denoiser: ImageDenoiser, canvas: Canvas, direct: bool = False) -> tuple[Canvas, ...]:
    """Return the canvases on which an image grows (if the model asks for it), the requested canvas last."""
    side = denoiser.config.data.crop
    factor = min(canvas.height, canvas.width) / side
    config = denoiser.config
    grows = denoiser.has_context and config.sampling.grown and not direct
    if not grows or factor <= LEAST_FACTOR or half_of(canvas, config) is not None:
        return (canvas,)
    count = math.ceil(math.log2(factor))
    smaller = [_reduced(canvas, factor ** (stage / count - 1.0), denoiser) for stage in range(count)]
    return (smaller[0], *(each for each in smaller[1:] if each.whole.area <= LARGEST_KNOWN_PX), canvas)


def planned(
    denoiser: ImageDenoiser,
    canvases: tuple[Canvas, ...],
    levels: tuple[Level, ...],
    initial: Initial,
    given: Planes | None = None,
) -> Task:
    """Return the task of the last image, with zeros for the smaller image that is not made yet."""
    if len(canvases) == 1:
        return Task(canvases[0], levels, initial, given=given)
    before = canvases[-2]
    unknown = torch.zeros(1, denoiser.image_channels, before.height, before.width)
    return _enlarging(unknown, canvases[-1], denoiser, levels, given)


def grown(
    denoiser: ImageDenoiser,
    canvases: tuple[Canvas, ...],
    levels: tuple[Level, ...],
    sampler: Sampler,
    noise: Noise,
    initial: Initial,
    progress: Progress | None = None,
    given: Planes | None = None,
    layout: Planes | None = None,
) -> tuple[Task, Noise]:
    """Make all images but the last, in memory; return the task and the noise of the last image.

    `levels` belong to a walk from pure noise. All images see the planes of `given`, each on its own canvas;
    a model that makes maps keeps the known classes of `layout` in all of them. The task lies on the CPU, so
    another machine can take it.
    """
    config = denoiser.config
    task = completing(Task(canvases[0], levels, initial, given=given), layout, config)
    for canvas in canvases[1:]:
        image = sample_task(task, denoiser, sampler, noise, progress=progress)
        task = completing(_enlarging(image.cpu(), canvas, denoiser, levels, given), layout, config)
        noise = replace(noise, seeds=tuple(grown_seed(seed, 1) for seed in noise.seeds))
    return task, noise


def grown_seed(seed: int, stage: int) -> int:
    """Return the seed of an image after `stage` enlargements."""
    return (seed + stage * GOLDEN) & MAX_SEED


def _enlarging(
    image: Tensor, canvas: Canvas, denoiser: ImageDenoiser, levels: tuple[Level, ...], given: Planes | None
) -> Task:
    """Return the task to enlarge an image: noised in part, then denoised, with means near its pixels."""
    task = enlargement(canvas, image, "noise", STRENGTH)(denoiser, levels)
    return replace(task, constraint=NearMeans(image), given=given)


def _reduced(canvas: Canvas, share: float, denoiser: ImageDenoiser) -> Canvas:
    """Return a canvas with reduced sides; circular sides stay multiples of the model's cells."""
    patch = getattr(denoiser.config.model, "patch", 1)

    def side(whole: int, boundary: str) -> int:
        unit = patch if boundary == "circular" else 1
        return max(unit * round(whole * share / unit), unit)

    height, width = (side(*each) for each in zip((canvas.height, canvas.width), canvas.boundary, strict=True))
    return Canvas(height, width, canvas.boundary)
