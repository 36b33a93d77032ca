"""What sampling asks of a model: a denoiser, made ready for a device, and the way it walks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.samplers import Sampler, sampler_named
from diffnca.diffusion.schedule import Level, NoiseSchedule
from diffnca.engine import Engine, prepare
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.arguments import whole_number


@runtime_checkable
class ImageDenoiser(Protocol):
    """What sampling needs to know of a denoiser."""

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        ...

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that it knows."""
        ...

    @property
    def config(self) -> Config:
        """Its configuration, for the default sampler and number of steps."""
        ...

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see, the context being given; `None` for all."""
        ...

    @property
    def has_context(self) -> bool:
        """Whether an estimate needs to know something of the whole canvas."""
        ...

    def context(self, x_t: Tensor, level: Level, region: Region) -> Tensor | None:
        """Return what must be known of the whole canvas."""
        ...

    def x_0_estimate(
        self, x_t: Tensor, level: Level, region: Region, noise: CellNoise | None, context: Tensor | None
    ) -> Tensor:
        """Return the estimate of the clean image."""
        ...


@runtime_checkable
class HoldsDenoiser(Protocol):
    """A denoiser that is made of another one."""

    def made_ready(self, device: torch.device, engine: Engine) -> ImageDenoiser:
        """Return the same of one that is ready for `device`."""
        ...


class AroundDenoiser:
    """What a denoiser that is made of another one takes over from it.

    Attributes:
        denoiser: the other one.
    """

    denoiser: ImageDenoiser

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.denoiser.image_channels

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that it knows."""
        return self.denoiser.schedule

    @property
    def config(self) -> Config:
        """The configuration of the model."""
        return self.denoiser.config

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see, the context being given; `None` for all."""
        return self.denoiser.radius

    @property
    def has_context(self) -> bool:
        """Whether an estimate needs to know something of the whole canvas."""
        return self.denoiser.has_context

    def context(self, x_t: Tensor, level: Level, region: Region) -> Tensor | None:
        """Return what must be known of the whole canvas."""
        return self.denoiser.context(x_t, level, region)


def prepared(denoiser: ImageDenoiser, device: torch.device, engine: Engine = "auto") -> ImageDenoiser:
    """Return `denoiser` with its networks made ready for `device`."""
    if isinstance(denoiser, HoldsDenoiser):
        return denoiser.made_ready(device, engine)
    if not isinstance(denoiser, Denoiser):
        return denoiser
    network = prepare(denoiser.network, device, engine=engine)
    return Denoiser(network, denoiser.schedule, denoiser.config)


def check_parts(denoiser: ImageDenoiser) -> int:
    """Return the radius of a denoiser that can make a part of an image by itself.

    Raises:
        ValueError: it sees the whole image at once.
    """
    if denoiser.radius is None:
        raise ValueError(
            f"model {denoiser.config.name}: must see a finite radius, but takes statistics over the whole "
            "image; take blended windows (--windows), or make it in one piece in memory"
        )
    return denoiser.radius


def check_canvas(denoiser: ImageDenoiser, canvas: Canvas) -> None:
    """Refuse a canvas around whose circular axes the largest cells of a model do not fit.

    Raises:
        ValueError: its height or width is no multiple of their side.
    """
    model = denoiser.config.model
    if isinstance(model, NCAConfig):
        PatchGrid(canvas.whole, model.patch if model.coarse is None else model.coarse.patch)


def walk_of(
    denoiser: ImageDenoiser, sampler: str | Sampler | None, steps: int | None
) -> tuple[Sampler, tuple[Level, ...]]:
    """Return the sampler and the levels it visits, by default those of the model.

    Raises:
        ValueError: a distilled model is to walk in another number of steps than its own.
    """
    default = denoiser.config.sampling
    sampler = default.sampler if sampler is None else sampler
    method = sampler_named(sampler) if isinstance(sampler, str) else sampler
    steps = default.steps if steps is None else whole_number("steps", steps)
    if default.visited is not None and steps != default.steps:
        raise ValueError(
            f"steps={steps}: must be {default.steps}, which {denoiser.config.name} was distilled for"
        )
    visited = denoiser.schedule.visited(steps) if default.visited is None else default.visited
    return method, tuple(denoiser.schedule.level(index) for index in visited)


def later_levels(denoiser: ImageDenoiser, levels: tuple[Level, ...], strength: float) -> tuple[Level, ...]:
    """Return the levels of a walk that starts from an image which is noised only in part.

    Args:
        denoiser: the model.
        levels: those of the walk from pure noise, which are as close together.
        strength: the time at which the walk starts, above 0; 1 is pure noise.
    """
    schedule = denoiser.schedule
    first = max(round(strength * schedule.num_diffusion_steps) - 1, 0)
    later = tuple(level for level in levels if level.index <= first)
    if denoiser.config.sampling.visited is not None:  # a student knows these levels alone
        return later or levels[-1:]
    return tuple(schedule.level(index) for index in schedule.visited(max(len(later), 1), first=first))
