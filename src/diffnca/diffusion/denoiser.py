"""The denoiser: a network, a noise schedule, and what the output of the network means.

With `alpha` and `sigma` of the schedule at step t (`alpha**2 + sigma**2 = 1`):

| symbol | meaning |
|---|---|
| `x_0` | clean image, in [-1, 1] |
| `noise` | standard normal |
| `x_t` | `alpha * x_0 + sigma * noise` |
| `velocity` | `alpha * noise - sigma * x_0` |

[1] Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
[2] Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022.
[3] Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
[4] Kingma et al., "Variational Diffusion Models", 2021.
[5] Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Region
from diffnca.config.model import PYRAMID_REACH_PX, Config, LossConfig
from diffnca.diffusion.schedule import Level, NoiseSchedule
from diffnca.errors import require_members

Prediction = Literal["noise", "clean", "velocity"]

Beside = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A further loss: of estimates of clean images and clean images, `b n h w`, and the sigma of each, `b`."""

NETWORK_MEMBERS = ("radius", "has_context", "context")


@dataclass(frozen=True)
class Query:
    """A question to a denoiser: which clean image does this noisy image hold?

    Attributes:
        x_t: the noisy image, or the part of it on `region`.
        cell_noise: which cells update; `None` updates each cell by the expectation of its mask.
        context: the sum of `context` over the canvas; `None` if not needed, or if `x_t` is all of it.
        given: planes that the cells see, on `region`; `None` for none.
    """

    x_t: Float[Tensor, "b n h w"]
    level: Level
    region: Region
    cell_noise: CellNoise | None = None
    context: Tensor | None = None
    given: Float[Tensor, "b k h w"] | None = None


@runtime_checkable
class ImageDenoiser(Protocol):
    """The members that sampling needs; any object with them can be sampled."""

    @property
    def image_channels(self) -> int:
        """Channels of what is drawn: those of the images, then the planes of a map that the model makes."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that the denoiser knows."""

    @property
    def config(self) -> Config:
        """The configuration, with the default sampler and number of steps."""

    @property
    def radius(self) -> int | None:
        """Radius of an estimate in pixels, when the context is given; `None` if each pixel sees all."""

    @property
    def has_context(self) -> bool:
        """Whether an estimate needs a context."""

    def context(self, query: Query) -> Tensor | None:
        """Return what the region of the query adds to the context of the canvas."""

    def estimate(self, query: Query) -> Tensor:
        """Return the estimate of the clean image."""


def estimate_alone(denoiser: ImageDenoiser, query: Query) -> Tensor:
    """Return the estimate, with the context taken from the query itself."""
    return denoiser.estimate(replace(query, context=denoiser.context(query)))


def target_of(
    prediction: Prediction, x_0: Tensor, noise: Tensor, alpha: Tensor | float, sigma: Tensor | float
) -> Tensor:
    """Return what a network with this prediction type should output."""
    match prediction:
        case "noise":
            return noise
        case "clean":
            return x_0
        case "velocity":  # [2] appendix D
            return alpha * noise - sigma * x_0


def clean_of(
    prediction: Prediction, output: Tensor, x_t: Tensor, alpha: Tensor | float, sigma: Tensor | float
) -> Tensor:
    """Return the estimate of `x_0` from the network's `output`."""
    match prediction:
        case "noise":  # [1] Eq. 9, solved for x_0
            return (x_t - sigma * output) / alpha
        case "clean":
            return output
        case "velocity":  # [2] appendix D
            return alpha * x_t - sigma * output


def loss_weight(prediction: Prediction, loss: LossConfig, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return the weight of the squared error of the predicted quantity at each step ([3] Eq. 8)."""
    if loss.weighting == "uniform":
        return torch.ones_like(alpha)
    snr = (alpha / sigma) ** 2
    of_clean = (snr if loss.weighting == "min_snr" else snr + 1.0).clamp(max=loss.min_snr_gamma)
    match prediction:
        case "noise":
            return of_clean / snr
        case "clean":
            return of_clean
        case "velocity":
            return of_clean / (snr + 1.0)


def stratified_steps(
    batch: int, num_diffusion_steps: int, generator: torch.Generator, loss: LossConfig
) -> Int[Tensor, " b"]:
    """Draw steps by the distribution of `loss`, evenly over a batch by one offset ([4] appendix I.1)."""
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    t = (torch.arange(batch) + offset) / batch
    if loss.timesteps == "logit_normal":  # [5] Eq. 19, by its quantiles
        t = torch.sigmoid(loss.logit_mean + loss.logit_std * torch.special.ndtri(t))
    return (t * num_diffusion_steps).long().clamp(max=num_diffusion_steps - 1)


def all_planes(x_t: Float[Tensor, "b n h w"], given: Tensor | None, config: Config) -> Tensor | None:
    """Return the planes that a model sees: those that are given, then zeros; `None` for no planes."""
    count = config.layout.num_planes(config.model.image_channels)
    known = 0 if given is None else given.shape[1]
    if known >= count:
        return given
    unknown = x_t.new_zeros(len(x_t), count - known, *x_t.shape[-2:])
    return unknown if given is None else torch.cat([given.to(x_t), unknown], dim=1)


class Denoiser(nn.Module):
    """Estimates clean images from noisy images.

    It calls `network(x_t, t, region, noise, context, given)`; `prediction` says what the output means.
    """

    image_channels = property(attrgetter("config.drawn_channels"))
    has_context = property(attrgetter("network.has_context"))

    def __init__(self, network: Any, schedule: NoiseSchedule, config: Config) -> None:
        """Join a network and a schedule as `config` says; refuse a network without `NETWORK_MEMBERS`."""
        super().__init__()
        require_members("network", network, NETWORK_MEMBERS)
        self.network, self.schedule, self.config = network, schedule, config
        self.prediction: Prediction = config.prediction

    @property
    def radius(self) -> int | None:
        """Radius of an estimate in pixels, also of one with a pyramid; `None` for all of the image."""
        own: int | None = self.network.radius
        return own + PYRAMID_REACH_PX if own is not None and self.config.has_pyramid else own

    def context(self, query: Query) -> Tensor | None:
        """Return what the region of the query adds to the context of the canvas."""
        planes = self.planes(query.x_t, query.given)
        context: Tensor | None = self.network.context(query.x_t, self.times(query), query.region, **planes)
        return context

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image."""
        asked = (query.x_t, self.times(query), query.region, query.cell_noise, query.context)
        return self.clean(self.network(*asked, **self.planes(query.x_t, query.given)), query)

    def planes(self, x_t: Float[Tensor, "b n h w"], given: Tensor | None) -> dict[str, Tensor]:
        """Return the given planes as an argument of the network; no argument for a network without planes.

        A model with a legend sees zeros where no layout is given, and where a layout has no colours.
        """
        given = all_planes(x_t, given, self.config)
        return {} if given is None else {"given": given}

    def clean(self, output: Tensor, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image from an output of the network."""
        level = query.level
        return clean_of(self.prediction, output, query.x_t, level.alpha, level.sigma)

    def times(self, query: Query) -> Float[Tensor, " b"]:
        """Return the diffusion time of the level, once per image."""
        return query.x_t.new_full((len(query.x_t),), self.schedule.time_of(query.level))

    def loss(
        self,
        x_0: Float[Tensor, "b n h w"],
        generator: torch.Generator,
        masks: CellNoise | None = None,
        given: Float[Tensor, "b k h w"] | None = None,
        beside: Beside | None = None,
    ) -> Float[Tensor, ""]:
        """Return the training loss on clean images in [-1, 1]; a CPU generator draws steps and noise.

        `masks=None` updates each cell by the expectation of its mask. The cells see the `given` planes.
        The loss `beside` is added.
        """
        loss = self.config.loss
        steps = stratified_steps(len(x_0), self.schedule.num_diffusion_steps, generator, loss)
        noise = torch.randn(x_0.shape, generator=generator).to(x_0)
        alpha = self.schedule.alphas()[steps].to(x_0)[:, None, None, None]
        sigma = self.schedule.sigmas()[steps].to(x_0)[:, None, None, None]
        t = (steps.double() / self.schedule.num_diffusion_steps).to(x_0)
        x_t, planes = alpha * x_0 + sigma * noise, self.planes(x_0, given)
        output = self.network(x_t, t, None, masks, **planes).float()
        error = output - target_of(self.prediction, x_0, noise, alpha, sigma)
        distance = error.square()
        if loss.distance == "l1_l2":
            distance = distance + error.abs()
        weighted: Tensor = loss_weight(self.prediction, loss, alpha, sigma) * distance
        if beside is None:
            return weighted.mean()
        estimate = clean_of(self.prediction, output, x_t, alpha, sigma)
        return weighted.mean() + beside(estimate, x_0, sigma.flatten())

    forward = loss
