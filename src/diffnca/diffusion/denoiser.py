"""A network, a noise schedule, and what the one predicts of the other: the denoiser.

Notation, with the schedule's `alpha` and `sigma` at step t (`alpha**2 + sigma**2 = 1`):

| symbol | meaning |
|---|---|
| `x_0` | clean image, in [-1, 1] |
| `noise` | standard normal |
| `x_t` | `alpha * x_0 + sigma * noise` |
| `velocity` | `alpha * noise - sigma * x_0` |

References:
    [1] Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    [2] Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022.
    [3] Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", 2023.
    [4] Kingma et al., "Variational Diffusion Models", 2021.
    [5] Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffnca.config.model import Config, LossConfig
from diffnca.diffusion.schedule import Level, NoiseSchedule

Prediction = Literal["noise", "clean", "velocity"]


def target_of(
    prediction: Prediction, x_0: Tensor, noise: Tensor, alpha: Tensor | float, sigma: Tensor | float
) -> Tensor:
    """Return what a network of this prediction type should answer."""
    match prediction:
        case "noise":
            return noise
        case "clean":
            return x_0
        case "velocity":  # [2] appendix D
            return alpha * noise - sigma * x_0


def clean_of(prediction: Prediction, output: Tensor, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
    """Return the estimate of `x_0` that the network's `output` means."""
    match prediction:
        case "noise":  # [1] Eq. 9, solved for x_0
            return (x_t - sigma * output) / alpha
        case "clean":
            return output
        case "velocity":  # [2] appendix D
            return alpha * x_t - sigma * output


def noise_of(clean: Tensor, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
    """Return the noise that `x_t` holds if `clean` is its image."""
    return (x_t - alpha * clean) / sigma


def loss_weight(prediction: Prediction, loss: LossConfig, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return the weight of the squared error of each step, in terms of the predicted quantity ([3] Eq. 8)."""
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
    """Draw steps that have the distribution of `loss` one by one, and are evenly spread over the batch.

    They share one random offset ([4] appendix I.1).
    """
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    t = (torch.arange(batch) + offset) / batch
    if loss.timesteps == "logit_normal":  # [5] Eq. 19, by its quantiles
        t = torch.sigmoid(loss.logit_mean + loss.logit_std * torch.special.ndtri(t))
    return (t * num_diffusion_steps).long().clamp(max=num_diffusion_steps - 1)


class Denoiser(nn.Module):
    """Estimates clean images from noisy ones; knows, alone, what its network predicts.

    Attributes:
        network: the network, called as `network(x_t, t, region, noise, context)`.
        schedule: the noise schedule.
        prediction: what the network's output means.
        config: everything it was built from.
    """

    def __init__(self, network: Any, schedule: NoiseSchedule, config: Config) -> None:
        """Join a network and a schedule as `config` says."""
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.config = config
        self.prediction: Prediction = config.prediction

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.config.model.image_channels

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see, the context being given; `None` for all."""
        radius: int | None = self.network.radius
        return radius

    @property
    def has_context(self) -> bool:
        """Whether an estimate needs to know something of the whole canvas."""
        return bool(self.network.has_context)

    def context(self, x_t: Float[Tensor, "b n h w"], level: Level, region: Any = None) -> Tensor | None:
        """Return what the network must know of the whole canvas; additive over the parts of it."""
        context: Tensor | None = self.network.context(x_t, self._time(x_t, level), region)
        return context

    def x_0_estimate(
        self,
        x_t: Float[Tensor, "b n h w"],
        level: Level,
        region: Any = None,
        noise: Any = None,
        context: Tensor | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image.

        Args:
            x_t: the noisy image, or the part of it on `region`.
            level: the noise level of `x_t`.
            region: where `x_t` lies; `None` is the whole canvas.
            noise: which cells update; `None` updates each by the expectation of its mask.
            context: as `context` gives it for the whole canvas; `None` takes it from `x_t`.
        """
        output = self.network(x_t, self._time(x_t, level), region, noise, context)
        return clean_of(self.prediction, output, x_t, level.alpha, level.sigma)

    def loss(
        self, x_0: Float[Tensor, "b n h w"], generator: torch.Generator, masks: Any = None
    ) -> Float[Tensor, ""]:
        """Return the training loss on clean images.

        Args:
            x_0: clean images in [-1, 1].
            generator: a CPU generator for steps and noise.
            masks: which cells update; `None` updates each by the expectation of its mask.
        """
        loss = self.config.loss
        steps = stratified_steps(len(x_0), self.schedule.num_diffusion_steps, generator, loss)
        noise = torch.randn(x_0.shape, generator=generator).to(x_0)
        alpha = self.schedule.alphas()[steps].to(x_0)[:, None, None, None]
        sigma = self.schedule.sigmas()[steps].to(x_0)[:, None, None, None]
        t = (steps.double() / self.schedule.num_diffusion_steps).to(x_0)
        output = self.network(alpha * x_0 + sigma * noise, t, None, masks).float()
        error = output - target_of(self.prediction, x_0, noise, alpha, sigma)
        distance = error.square()
        if loss.distance == "l1_l2":
            distance = distance + error.abs()
        weighted: Tensor = loss_weight(self.prediction, loss, alpha, sigma) * distance
        return weighted.mean()

    def forward(self, x_0: Tensor, generator: torch.Generator, masks: Any = None) -> Tensor:
        """Return `loss`: the one call that training, also on several devices, goes through."""
        return self.loss(x_0, generator, masks)

    def _time(self, x_t: Tensor, level: Level) -> Float[Tensor, " b"]:
        """Return the diffusion time of `level`, once per image."""
        return x_t.new_full((len(x_t),), self.schedule.time(level.index))
