"""Autoguidance: a model led away from the errors of a weaker one.

Of two models of the same images the weaker one errs in the same places and farther. So what the better one
says is moved on, along the line from the weaker one's estimate to its own [1]:

    guided = weaker + guidance * (better - weaker)

A guidance of 1 is the better model alone.

References:
    [1] Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.config import Config
from diffnca.diffusion.schedule import Level, NoiseSchedule
from diffnca.engine import Engine
from diffnca.geometry import Region
from diffnca.networks import NCAConfig
from diffnca.noise import CellNoise
from diffnca.tasks.denoisers import ImageDenoiser, ready


@dataclass(frozen=True)
class Guided:
    """A denoiser that is guided by a weaker one; each call takes both.

    Attributes:
        denoiser: the better model, whose configuration is that of the whole.
        guide: the weaker one.
        guidance: how far to go, >= 1.
    """

    denoiser: ImageDenoiser
    guide: ImageDenoiser
    guidance: float

    def __post_init__(self) -> None:
        """Refuse models that do not fit.

        Raises:
            ValueError: they are of other images or noise levels, or see other frequencies of the whole.
        """
        if not 1.0 <= self.guidance <= LARGEST_GUIDANCE:
            raise ValueError(f"guidance={self.guidance}: must be from 1 to {LARGEST_GUIDANCE:g}")
        for name, own, other in (
            ("channels", self.denoiser.image_channels, self.guide.image_channels),
            ("a schedule", self.denoiser.config.schedule, self.guide.config.schedule),
            ("a window of frequencies", *map(_window_of, (self.denoiser.config, self.guide.config))),
        ):
            if own != other:
                raise ValueError(f"guide {self.guide.config.name}: must have {name} of {own}, not {other}")

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.denoiser.image_channels

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that both know."""
        return self.denoiser.schedule

    @property
    def config(self) -> Config:
        """The configuration of the better model."""
        return self.denoiser.config

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see; `None` for all."""
        own, other = self.denoiser.radius, self.guide.radius
        return None if own is None or other is None else max(own, other)

    @property
    def has_context(self) -> bool:
        """Whether it must know something of the whole canvas."""
        return self.denoiser.has_context

    def made_ready(self, device: torch.device, engine: Engine) -> Guided:
        """Return the same of two models that are ready for `device`."""
        return Guided(ready(self.denoiser, device, engine), ready(self.guide, device, engine), self.guidance)

    def context(self, x_t: Tensor, level: Level, region: Region) -> Tensor | None:
        """Return what both must know of the whole canvas."""
        return self.denoiser.context(x_t, level, region)

    def x_0_estimate(
        self,
        x_t: Float[Tensor, "b n h w"],
        level: Level,
        region: Region,
        noise: CellNoise | None,
        context: Tensor | None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the guided estimate of the clean image."""
        better = self.denoiser.x_0_estimate(x_t, level, region, noise, context)
        weaker = self.guide.x_0_estimate(x_t, level, region, noise, context)
        return self.guidance * better - (self.guidance - 1.0) * weaker


LARGEST_GUIDANCE = 10.0


def _window_of(config: Config) -> tuple[int, str] | None:
    """Return the frequencies that a model sees of the whole, if it does."""
    fourier = config.model.fourier if isinstance(config.model, NCAConfig) else None
    return None if fourier is None else (fourier.window, fourier.spectrum)
