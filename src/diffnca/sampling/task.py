"""What to sample: the start of the walk, the noise levels, what is known of the image; and the sampling."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.model import PYRAMID_REACH_PX, Config
from diffnca.config.networks import NCAConfig, StageWork
from diffnca.diffusion.denoiser import ImageDenoiser, estimate_alone
from diffnca.diffusion.samplers import Sampler, sampler_of
from diffnca.diffusion.schedule import Level
from diffnca.diffusion.walk import Constraint, Planes, Progress, Walk
from diffnca.engine import Engine
from diffnca.sampling.arguments import listed_seeds, place_of, seeds_of, undisturbed, whole_number
from diffnca.sampling.guidance import prepare
from diffnca.sampling.known import KnownPixels
from diffnca.sampling.labels import Told, labelled
from diffnca.sampling.layouts import check_proportions, led
from diffnca.sampling.pyramid import num_halves
from diffnca.sampling.starts import Initial
from diffnca.sampling.styles import styled, styles_like, styles_of_known


@dataclass(frozen=True)
class Task:
    """What to sample on a canvas, in memory or in tiles.

    `initial` gives the image at `levels[0]`; `constraint` and `given` are as in `Walk`. `original` is what is
    known of a given image, whose style the result has.
    """

    canvas: Canvas
    levels: tuple[Level, ...]
    initial: Initial
    constraint: Constraint | None = None
    given: Planes | None = None
    original: KnownPixels | None = None

    def walk(self, sampler: Sampler, noise: Noise) -> Walk:
        """Return the walk from noise to image."""
        return Walk(self.levels, sampler, noise, self.constraint, self.given)

    @property
    def reach(self) -> int:
        """Pixels that the constraint needs beyond the pixels that the denoiser sees."""
        return 0 if self.constraint is None else self.constraint.reach(self.canvas)


MakeTask = Callable[[ImageDenoiser, tuple[Level, ...]], Task]


class Options(TypedDict, total=False):
    """Options of all tasks; each may be left out.

    Attributes:
        boundary: how the result goes on beyond its edges, (y, x): `"reflect"` or `"circular"`.
        seed: seed of the first image, where image i has seed + i; or one seed per image, in a list, a range,
            an array or a tensor.
        sampler: `"ddpm"`, `"ddim"`, `"dpmpp2m"` or any `Sampler`; `None` takes the choice of the model.
        steps: diffusion steps from pure noise, from 1 to the number of the schedule; `None` takes the choice
            of the model. A task that starts at a later level takes its share of the steps.
        progress: called after each step with the steps done and the number of steps.
        device: where to compute, and where the model moves; `None` is the device of the model.
        engine: `"auto"` or `"eager"`, as for `generate`.
    """

    boundary: tuple[Boundary, Boundary]
    seed: int | Sequence[int] | Int[np.ndarray, " b"] | Int[Tensor, " b"]
    sampler: str | Sampler | None
    steps: int | None
    progress: Progress | None
    device: str | torch.device | None
    engine: Engine


class LeadingOptions(Options, total=False):
    """Options of edits and films, with what leads the model; each may be left out.

    Attributes:
        layout: what stands where, as for `generate`; for an edit, in the proportions of the whole result.
        label: what the image shows, or each image, as for `generate`.
        like: as for `generate`; `None` takes the style of the given image, if the model knows styles.
        obey: how closely to follow layout and label, as for `generate`.
    """

    layout: Shaped[Tensor, "*b_y_x"] | None
    label: Told | Sequence[Told] | None
    like: Shaped[Tensor, "*b_c_y_x"] | None
    obey: float


def check_options(options: Options, known: type = Options) -> None:
    """Refuse an option that is none of those `known`."""
    names = known.__annotations__
    unknown = sorted(options.keys() - names.keys())
    if unknown:
        raise TypeError(f"{unknown[0]}: is no option; give {', '.join(names)}, or none")


def check_parts(denoiser: ImageDenoiser) -> int:
    """Return the radius of a denoiser; refuse a denoiser that sees the whole image at once."""
    if denoiser.radius is None:
        raise ValueError(
            "model: must see a finite radius, but takes statistics over the whole "
            "image; take blended windows (--windows), or make it in one piece in memory"
        )
    return denoiser.radius


def stage_works(denoiser: ImageDenoiser, canvas: Canvas) -> tuple[StageWork, ...]:
    """Return what the stages of a denoiser with a finite radius compute on a canvas and on its halves.

    The shares are those of a call on the canvas alone. Of an unknown denoiser all is computed at once.
    """
    config, radius = denoiser.config, check_parts(denoiser)
    reach = PYRAMID_REACH_PX if config.has_pyramid else 0
    known: tuple[StageWork, ...] = ()
    if isinstance(config.model, NCAConfig) and config.model.radius == radius - reach:
        known = tuple(each.beside(reach) for each in config.model.stage_works)
    own = works = known or (StageWork(1.0, radius, radius),)
    for _ in range(num_halves(canvas, config)):
        own = tuple(each.on_half().beside(PYRAMID_REACH_PX) for each in own)
        works += own
    return works


def check_canvas(denoiser: ImageDenoiser, canvas: Canvas) -> None:
    """Refuse circular sides that are no multiples of the largest cells, or behind which cells see zeros."""
    model = denoiser.config.model
    if isinstance(model, NCAConfig):
        on_canvas = (model.cell,) if model.coarse is None else (model.coarse.cell, model.cell)
        if "circular" in canvas.boundary and any(cell.padding == "zeros" for cell in on_canvas):
            raise ValueError(
                "the model sees zeros beyond each edge (padding), so its images do not join their edges; "
                "leave out --seamless"
            )
        canvas.require_multiples(model.largest_cell_px)


def walk_of(
    denoiser: ImageDenoiser, sampler: str | Sampler | None, steps: int | None
) -> tuple[Sampler, tuple[Level, ...]]:
    """Return the sampler and its levels, by default of the model; refuse what is unknown to the model."""
    default = denoiser.config.sampling
    method = sampler_of(default.sampler if sampler is None else sampler)
    steps = default.steps if steps is None else whole_number("steps", steps)
    if default.visited is not None and steps != default.steps:
        raise ValueError(f"steps={steps}: must be {default.steps}, for which this model was distilled")
    if default.visited is not None and isinstance(sampler, str) and sampler != default.sampler:
        allowed = f"{default.sampler}, for which this model was distilled"
        raise ValueError(f"sampler={method.name}: must be {allowed}")
    visited = denoiser.schedule.visited(steps) if default.visited is None else default.visited
    return method, tuple(denoiser.schedule.level(index) for index in visited)


def later_levels(denoiser: ImageDenoiser, levels: tuple[Level, ...], strength: float) -> tuple[Level, ...]:
    """Return the levels, as close together as `levels`, of a walk that starts at time `strength` (0 to 1)."""
    schedule = denoiser.schedule
    first = max(round(strength * schedule.num_diffusion_steps) - 1, 0)
    later = tuple(level for level in levels if level.index <= first)
    if denoiser.config.sampling.visited is not None:  # a student knows only these levels
        return later or levels[-1:]
    return tuple(schedule.level(index) for index in schedule.visited(max(len(later), 1), first=first))


def check_region(denoiser: ImageDenoiser, region: Region) -> None:
    """Refuse a region that a model cannot make by itself, and a canvas that its cells do not fit."""
    check_canvas(denoiser, region.canvas)
    if region != region.canvas.whole and check_parts(denoiser) and denoiser.has_context:
        raise ValueError(
            f"region of {region.height}x{region.width} px: must be the whole canvas for "
            "this model, which looks at the whole image in each step; make the whole and crop it"
        )


def radius_on(denoiser: ImageDenoiser, region: Region, reach: int = 0) -> int:
    """Return how many pixels a step sees beyond `region`; beyond a whole canvas there are none."""
    return 0 if region == region.canvas.whole else check_parts(denoiser) + reach


@undisturbed()
def sample_task(
    task: Task,
    denoiser: ImageDenoiser,
    sampler: Sampler,
    noise: Noise,
    region: Region | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "b c h w"]:
    """Sample a task in memory, or a region of it; refuse what `check_region` refuses."""
    region = task.canvas.whole if region is None else region
    check_region(denoiser, region)
    radius = radius_on(denoiser, region, task.reach)
    x = task.initial(region.grow(radius * len(task.levels)), noise)
    walk = task.walk(sampler, noise)
    image, _ = walk.run(partial(estimate_alone, denoiser), x, region, radius, progress=progress)
    return image.clamp(-1.0, 1.0)


def seeds_in(options: Options, batch: int | None) -> tuple[int, ...]:
    """Return the seeds of `batch` given images; one image with a list of seeds is taken once per seed."""
    seed = options.get("seed", 0)
    return seeds_of(seed, None if batch == 1 and listed_seeds(seed) is not None else batch)


@undisturbed()
def sample_images(
    model: ImageDenoiser | Autoencoder,
    batch: int | None,
    options: LeadingOptions,
    task: MakeTask,
    styles: Callable[[Task, Config], Tensor | None] = lambda task, own: styles_of_known(task.original, own),
) -> Float[Tensor, "b c h w"]:
    """Sample `batch` images of a task in memory; a batch of `None` makes one image per seed.

    Without a picture in `options`, they have the `styles` of the task: by default, those of the given images.
    """
    if isinstance(model, Autoencoder):
        raise ValueError("the model must be a denoiser; this one only makes new images")
    check_options(options, LeadingOptions)
    place = place_of(model, options.get("device"))
    noise = Noise(seeds_in(options, batch), place)
    label, obey = options.get("label"), options.get("obey", 1.0)
    leading, layout = led(model, options.get("layout"), label, obey, len(noise.seeds))
    sampler, levels = walk_of(model, options.get("sampler"), options.get("steps"))
    denoiser = prepare(leading, place, options.get("engine", "auto"))
    made, config, like = task(denoiser, levels), denoiser.config, options.get("like")
    own = styles(made, config) if like is None else styles_like(like, config, len(noise.seeds))
    made = replace(made, given=styled(labelled(layout, label, config), own, config))
    return sample_task(made, denoiser, sampler, noise, progress=options.get("progress"))


def sample_edits(
    model: ImageDenoiser | Autoencoder, image: Tensor, options: LeadingOptions, canvas: Canvas, task: MakeTask
) -> Float[Tensor, "n c h w"]:
    """Sample the edits of images; refuse a layout in other proportions than the canvas of the result."""
    layout = options.get("layout")
    if isinstance(layout, Tensor) and layout.ndim >= 2:
        check_proportions((layout.shape[-2], layout.shape[-1]), canvas)
    return sample_images(model, len(image), options, task)
