"""What sampling needs from a model: the canvases that it can make, and the levels of its walk."""

from __future__ import annotations

from diffnca.canvas.region import Canvas
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.samplers import Sampler, sampler_of
from diffnca.diffusion.schedule import Level
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.arguments import whole_number


def check_parts(denoiser: ImageDenoiser) -> int:
    """Return the radius of a denoiser; refuse a denoiser that sees the whole image at once."""
    if denoiser.radius is None:
        raise ValueError(
            "model: must see a finite radius, but takes statistics over the whole "
            "image; take blended windows (--windows), or make it in one piece in memory"
        )
    return denoiser.radius


def check_canvas(denoiser: ImageDenoiser, canvas: Canvas) -> None:
    """Refuse a canvas whose circular sides are no multiples of the side of the model's largest cells."""
    model = denoiser.config.model
    if isinstance(model, NCAConfig):
        PatchGrid(canvas.whole, model.patch if model.coarse is None else model.coarse.patch)


def walk_of(
    denoiser: ImageDenoiser, sampler: str | Sampler | None, steps: int | None
) -> tuple[Sampler, tuple[Level, ...]]:
    """Return the sampler and its levels, by default of the model.

    Raises:
        ValueError: the sampler is unknown, or a distilled model gets another number of steps than its own.
    """
    default = denoiser.config.sampling
    method = sampler_of(default.sampler if sampler is None else sampler)
    steps = default.steps if steps is None else whole_number("steps", steps)
    if default.visited is not None and steps != default.steps:
        raise ValueError(f"steps={steps}: must be {default.steps}, for which this model was distilled")
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
