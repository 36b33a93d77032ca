"""What is to be sampled: where the walk starts, which noise levels it visits, what is known of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser, estimate_alone
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.schedule import Level
from diffnca.diffusion.walk import Constraint, Planes, Progress, Walk
from diffnca.engine import Engine
from diffnca.sampling.arguments import place_of, seeds_of, undisturbed
from diffnca.sampling.denoisers import check_canvas, check_parts, walk_of
from diffnca.sampling.guidance import prepare
from diffnca.sampling.starts import Initial


@dataclass(frozen=True)
class Task:
    """One thing to sample, on a canvas; the same in memory and in tiles.

    Attributes:
        canvas: the image to make.
        levels: the noise levels to visit; the clean end is implied. Where the next one is noisier, new noise
            is added.
        initial: gives the image at `levels[0]`.
        constraint: what is known of the image; `None` if nothing is.
        given: gives the planes that the cells of a region see; `None` for none.
    """

    canvas: Canvas
    levels: tuple[Level, ...]
    initial: Initial
    constraint: Constraint | None = None
    given: Planes | None = None

    def walk(self, sampler: Sampler, noise: Noise) -> Walk:
        """Return the way from noise to image."""
        return Walk(self.levels, sampler, noise, self.constraint, self.given)

    @property
    def reach(self) -> int:
        """Pixels that what is known reaches beyond what the denoiser sees."""
        return 0 if self.constraint is None else self.constraint.reach(self.canvas)


class Options(TypedDict, total=False):
    """How images are made, whatever the task; all may be left out.

    Attributes:
        seed: of the first image, where image i has seed + i; or a list of one seed per image.
        sampler: `"ddpm"`, `"ddim"`, `"dpmpp2m"` or any `Sampler`; `None` is the choice of the model.
        steps: diffusion steps from pure noise on, from 1 to those of the schedule; `None` is the choice of
            the model. A task that starts later takes its share of them.
        progress: called after each step with the steps done and their number.
        device: where to compute, the model being moved there; `None` is where the model lies.
        engine: `"auto"`, `"eager"` or `"fused"`, as for `generate`.
    """

    seed: int | Sequence[int]
    sampler: str | Sampler | None
    steps: int | None
    progress: Progress | None
    device: str | torch.device | None
    engine: Engine


def check_region(denoiser: ImageDenoiser, region: Region) -> None:
    """Refuse a region that a model cannot make, or not on this canvas.

    Raises:
        ValueError: the region is not the whole, and the model must see the whole; or the cells of the model
            do not fit around a circular axis.
    """
    check_canvas(denoiser, region.canvas)
    if region != region.canvas.whole and check_parts(denoiser) and denoiser.has_context:
        raise ValueError(
            f"region of {region.height}x{region.width} px: must be the whole canvas for "
            "this model, which looks at the whole image in each step; make the whole and crop it"
        )


@undisturbed()
def sample_task(
    task: Task,
    denoiser: ImageDenoiser,
    sampler: Sampler,
    noise: Noise,
    region: Region | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "b c h w"]:
    """Sample a task in memory, or a region of it.

    Raises:
        ValueError: the region is not the whole, and the model must see the whole; or the cells of the model
            do not fit around a circular axis.
    """
    region = task.canvas.whole if region is None else region
    check_region(denoiser, region)
    radius = 0 if region == task.canvas.whole else check_parts(denoiser) + task.reach

    x = task.initial(region.grow(radius * len(task.levels)), noise)
    walk = task.walk(sampler, noise)
    image, _ = walk.run(partial(estimate_alone, denoiser), x, region, radius, progress=progress)
    return image.clamp(-1.0, 1.0)


@undisturbed()
def sample_images(
    model: ImageDenoiser | Autoencoder,
    batch: int | None,
    options: Options,
    task: Callable[[ImageDenoiser, tuple[Level, ...]], Task],
) -> Float[Tensor, "b c h w"]:
    """Sample the images of a task in memory.

    Args:
        model: a denoiser, as `diffnca.load` returns it.
        batch: number of images; `None` is one per seed.
        options: how to make them.
        task: gives the task, for the model and the levels of its walk from pure noise.
    """
    if isinstance(model, Autoencoder):
        raise ValueError(f"model {model.config.name}: must be a denoiser; this one only makes new images")
    place = place_of(model, options.get("device"))
    seed = options.get("seed", 0)
    noise = Noise(seeds_of(seed, None if isinstance(seed, Sequence) and batch == 1 else batch), place)
    sampler, levels = walk_of(model, options.get("sampler"), options.get("steps"))
    denoiser = prepare(model, place, options.get("engine", "auto"))
    return sample_task(task(denoiser, levels), denoiser, sampler, noise, progress=options.get("progress"))
