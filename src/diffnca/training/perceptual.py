"""A perceptual loss: estimates should have the features of the clean images, where the noise allows it.

The squared error of pixels asks for the mean of what is possible. Features ask for edges and grain of the
right kind, too. At high noise levels nothing of this can be known, and at low levels pixels say all. So the
loss counts at the levels between, where samples lose most. [1] leaves it out at high levels, for variety.

[1] Ma et al., "PixelGen: Improving Pixel Diffusion with Perceptual Supervision", arXiv 2602.02493, 2026.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.config.model import LossConfig
from diffnca.models.build import Generator
from diffnca.training.features import Features
from diffnca.training.objectives import OwnLoss


@dataclass(frozen=True)
class Perceptual:
    """The mean squared difference of features over all levels, times `loss.perceptual`.

    It is the mean over the images whose sigma lies in `loss.perceptual_band`: its weight does not depend on
    how many they are, and is 0 if there are none. So it is less, on average, in batches of one or two images.
    Planes of a map, after the first `channels`, have no features.
    """

    features: Features
    loss: LossConfig
    channels: int

    def __call__(
        self, estimate: Float[Tensor, "b n h w"], x_0: Float[Tensor, "b n h w"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, ""]:
        """Return the loss of estimates of clean images, at the `sigma` of each."""
        least, most = self.loss.perceptual_band
        counts = (sigma >= least) & (sigma <= most)
        if not counts.any():
            return estimate.new_zeros(())
        with torch.no_grad():
            wanted = self.features.levels(x_0[counts, : self.channels])
        found = self.features.levels(estimate[counts, : self.channels])
        distances = [(one - other).square().mean() for one, other in zip(found, wanted, strict=True)]
        return self.loss.perceptual * torch.stack(distances).mean()


def with_perceptual(features: Features, model: Generator, device: torch.device) -> OwnLoss:
    """Return the loss of a denoiser with the perceptual loss beside it."""
    config = model.config
    beside = Perceptual(features.to(device), config.loss, config.model.image_channels)
    return OwnLoss(model, device, beside)
