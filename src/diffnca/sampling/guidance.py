"""Autoguidance: a model led away from the errors of a weaker one.

Of two models of the same images the weaker one errs in the same places and farther. So what the better one
says is moved on, along the line from the weaker one's estimate to its own [1]:

    guided = weaker + guidance * (better - weaker)

A guidance of 1 is the better model alone. The weaker one may be trained for less long (`Guided`), or it may
be the model itself with some of its work left out ([2] skips layers): here the last cell steps. Its answer
then stands in the state before them, so this costs nothing: each stage leads its final state on from that
one. For a model of one stage that is the formula above; a Fourier stage hands on a spectrum that is guided.

References:
    [1] Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", NeurIPS 2024.
    [2] Hyung et al., "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling", CVPR 2025.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.config.model import LARGEST_GUIDANCE, Config
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.engine import Engine
from diffnca.engine import prepare as prepare_network
from diffnca.errors import require
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import SelfGuidance


class AroundDenoiser:
    """A denoiser around another one; it takes over all that it does not say itself.

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

    def context(self, query: Query) -> Tensor | None:
        """Return what must be known of the whole canvas."""
        return self.denoiser.context(query)

    def prepare(self, device: torch.device, engine: Engine) -> Any:
        """Return this denoiser around the other one, prepared for `device`."""
        around: Any = self
        return replace(around, denoiser=prepare(self.denoiser, device, engine))


@dataclass(frozen=True)
class Guided(AroundDenoiser):
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
        require(
            1.0 <= self.guidance <= LARGEST_GUIDANCE,
            "guidance",
            self.guidance,
            f"from 1 to {LARGEST_GUIDANCE:g}",
        )
        for name, own, other in (
            ("channels", self.denoiser.image_channels, self.guide.image_channels),
            ("a schedule", self.denoiser.config.schedule, self.guide.config.schedule),
            ("a window of frequencies", *map(_window_of, (self.denoiser.config, self.guide.config))),
        ):
            if own != other:
                raise ValueError(f"guide {self.guide.config.name}: must have {name} of {own}, not {other}")

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see; `None` for all."""
        own, other = self.denoiser.radius, self.guide.radius
        return None if own is None or other is None else max(own, other)

    def prepare(self, device: torch.device, engine: Engine) -> Guided:
        """Return the guidance of both models by each other alone, prepared for `device`."""
        better, weaker = (
            prepare(each, device, engine, by_itself=False) for each in (self.denoiser, self.guide)
        )
        return Guided(better, weaker, self.guidance)

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the guided estimate of the clean image."""
        better, weaker = self.denoiser.estimate(query), self.guide.estimate(query)
        return self.guidance * better - (self.guidance - 1.0) * weaker


GUIDANCE = 2.0
"""By a guide, unless something else is said."""


def guided(
    model: Denoiser, guidance: float | None = None, guide: Denoiser | None = None
) -> Guided | Denoiser:
    """Return a model that is guided, to be sampled like any other.

    Args:
        model: as `diffnca.load` returns it.
        guidance: how far to go, from 1 to 10; `None` is 2 with a guide, else the model's own choice.
        guide: a weaker model of the same images; `None` is the model without its last cell steps, as many as
            its configuration says.

    Raises:
        ValueError: the two do not fit, or the model has no cell steps to leave out.
    """
    if guide is not None:
        return Guided(model, guide, GUIDANCE if guidance is None else guidance)
    own = model.config.sampling
    config = replace(model.config, sampling=own if guidance is None else replace(own, guidance=guidance))
    return self_guided(Denoiser(model.network, model.schedule, config))


def self_guided(model: Denoiser) -> Denoiser:
    """Return a model whose cells are guided as its configuration says; the weights are shared."""
    if not isinstance(model.network, Automaton):  # has no cells, or an engine runs them
        return model
    sampling, rules = model.config.sampling, model.network.compiled_parts()
    firsts = [rule.config.num_cell_steps - sampling.guide_leaves_out for rule in rules]
    asked = [None if sampling.guidance == 1.0 else SelfGuidance(sampling.guidance, first) for first in firsts]
    if [rule.guidance for rule in rules] == asked:
        return model
    weights = (*model.network.parameters(), *model.network.buffers())
    network = copy.deepcopy(model.network, {id(weight): weight for weight in weights})
    for rule, guidance in zip(network.compiled_parts(), asked, strict=True):
        rule.guidance = guidance
    return Denoiser(network, model.schedule, model.config)


def prepare(
    denoiser: ImageDenoiser, device: torch.device, engine: Engine = "auto", by_itself: bool = True
) -> ImageDenoiser:
    """Return a denoiser whose networks an engine runs on `device`.

    Args:
        denoiser: the model.
        device: where it will run.
        engine: how its networks run.
        by_itself: guide a model by itself, if its configuration asks for it.
    """
    if isinstance(denoiser, Denoiser):
        own = self_guided(denoiser) if by_itself else denoiser
        return Denoiser(prepare_network(own.network, device, engine=engine), own.schedule, own.config)
    prepared: ImageDenoiser = denoiser.prepare(device, engine) if hasattr(denoiser, "prepare") else denoiser
    return prepared


def _window_of(config: Config) -> tuple[int, str] | None:
    """Return the frequencies that a model sees of the whole, if it does."""
    fourier = config.model.fourier if isinstance(config.model, NCAConfig) else None
    return None if fourier is None else (fourier.window, fourier.spectrum)
