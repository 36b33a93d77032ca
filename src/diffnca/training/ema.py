"""The exponential moving average of the weights, with its memory counted in images.

References:
    [1] Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from diffnca.config.model import TrainingConfig

WARMUP_SHARE = 0.1
"""With warm-up, the half-life is at most this share of the images seen so far."""


def ema_decay(training: TrainingConfig, images_seen: int, batch: int) -> float:
    """Return the factor that the old average keeps when a batch of `batch` images has been seen.

    Args:
        training: says whether there is an average, its half-life and its warm-up.
        images_seen: images before this batch.
        batch: images in this batch.
    """
    if training.ema == "none":
        return 0.0
    halflife = float(training.ema_halflife_images)
    if training.ema_warmup:
        halflife = min(halflife, WARMUP_SHARE * images_seen)
    return 0.0 if halflife <= 0.0 else float(0.5 ** (batch / halflife))


@torch.no_grad()
def update_ema(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Move each tensor of `average` towards that of the same name in `weights`, in place."""
    for name, kept in average.items():
        kept.lerp_(weights[name].to(kept), 1.0 - decay)
