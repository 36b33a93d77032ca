"""Autoguidance: lead a model away from the errors of a weaker model.

A weaker model of the same images makes larger errors in the same places. Guidance moves the estimate along
the line from the weaker estimate to the better estimate [1]:

    guided = weaker + guidance * (better - weaker)

The weaker model may have less training (`Guided`). It may also be the model itself without its last cell
steps (as [2] skips layers). This costs nothing: the state before these steps holds the weaker answer. Each
stage moves its final state on from there. For one stage this equals the formula; a Fourier stage hands on a
guided spectrum.

[1] Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", NeurIPS 2024.
[2] Hyung et al., "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling", CVPR 2025.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.config.model import LARGEST_GUIDANCE, Config
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.engine import Engine
from diffnca.engine import prepare as prepare_network
from diffnca.errors import require
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import SelfGuidance
from diffnca.sampling.arguments import check_model
from diffnca.sampling.around import Around
from diffnca.sampling.pyramid import with_pyramid


class AroundDenoiser(Around):
    """A wrapper around a denoiser that is not prepared yet."""

    def prepare(self, device: torch.device, engine: Engine) -> Any:
        """Return this wrapper around the denoiser that is prepared for `device`."""
        around: Any = self
        return replace(around, denoiser=prepare(self.denoiser, device, engine))


@dataclass(frozen=True)
class Guided(AroundDenoiser):
    """A denoiser that a weaker denoiser guides; each call evaluates both.

    Attributes:
        denoiser: the better model, whose configuration counts.
        guide: the weaker model.
        guidance: how far to go, from 1 to 10.

    Raises:
        ValueError: the models differ in channels, noise levels, classes or visible frequencies.
    """

    denoiser: ImageDenoiser
    guide: ImageDenoiser
    guidance: float

    def __post_init__(self) -> None:
        _require_guidance(self.guidance)
        for name, own, other in (
            ("channels", self.denoiser.image_channels, self.guide.image_channels),
            ("a schedule", self.denoiser.config.schedule, self.guide.config.schedule),
            ("a legend", self.denoiser.config.layout.classes, self.guide.config.layout.classes),
            ("labels", self.denoiser.config.layout.labels, self.guide.config.layout.labels),
            ("a coarse factor", self.denoiser.config.layout.coarse, self.guide.config.layout.coarse),
            ("style", self.denoiser.config.layout.style, self.guide.config.layout.style),
            ("a window of frequencies", *map(_window_of, (self.denoiser.config, self.guide.config))),
        ):
            if own != other:
                raise ValueError(f"guide: must have {name} of {own}, as the model, not {other}")
        if self.denoiser.config.layout.styles != self.guide.config.layout.styles:
            raise ValueError("guide: must know the styles of the model; take a guide of the same images")

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see; `None` for all."""
        own, other = self.denoiser.radius, self.guide.radius
        return None if own is None or other is None else max(own, other)

    def prepare(self, device: torch.device, engine: Engine) -> ImageDenoiser:
        """Return both models prepared for `device`, neither guided by itself, in one pyramid."""
        better, weaker = (prepare(each, device, engine, False) for each in (self.denoiser, self.guide))
        return with_pyramid(Guided(better, weaker, self.guidance))

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the guided estimate of the clean image."""
        better, weaker = self.denoiser.estimate(query), self.guide.estimate(query)
        return self.guidance * better - (self.guidance - 1.0) * weaker


def guided(
    model: Denoiser, guidance: float | None = None, guide: Denoiser | None = None
) -> Guided | Denoiser:
    """Return a guided model, to be sampled like any other model.

    Args:
        model: as `diffnca.load` returns it.
        guidance: how far to go, from 1 to 10; `None` is 2 with a guide, otherwise the choice of the model.
        guide: a weaker model of the same images; `None` is the model without its last cell steps. The
            configuration gives the number of these steps.

    Raises:
        ValueError: the two models do not fit, or the model has no cell steps to leave out.
    """
    check_model(model, guide=guide)
    if guide is not None:
        return Guided(model, guide, 2.0 if guidance is None else guidance)
    own = model.config.sampling
    strength = own.guidance if guidance is None else guidance
    _require_guidance(strength)
    config = replace(model.config, sampling=replace(own, guidance=strength))
    return self_guided(Denoiser(model.network, model.schedule, config))


def _require_guidance(strength: float) -> None:
    require(1.0 <= strength <= LARGEST_GUIDANCE, "guidance", strength, f"from 1 to {LARGEST_GUIDANCE:g}")


def self_guided(model: Denoiser) -> Denoiser:
    """Return a model whose cells guide themselves as its configuration asks; the copy shares the weights."""
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

    If `by_itself`, it is guided as configured, and has the pyramid of a model of whole images.
    """
    if isinstance(denoiser, Denoiser):
        own = self_guided(denoiser) if by_itself else denoiser
        ready = Denoiser(prepare_network(own.network, device, engine=engine), own.schedule, own.config)
        return with_pyramid(ready) if by_itself else ready
    prepared: ImageDenoiser = denoiser.prepare(device, engine) if hasattr(denoiser, "prepare") else denoiser
    return prepared


def _window_of(config: Config) -> tuple[int, str] | None:
    fourier = config.model.fourier if isinstance(config.model, NCAConfig) else None
    return None if fourier is None else (fourier.window, fourier.spectrum)
