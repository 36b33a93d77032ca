"""The error of a denoiser on held-out images: what training makes small, without the hours that KID needs."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas
from diffnca.diffusion.denoiser import ImageDenoiser, Query, estimate_alone

BATCH = 16


@torch.no_grad()
def velocity_error(
    denoiser: ImageDenoiser, images: UInt8[Tensor, "n c h w"], num_levels: int = 8, seed: int = 0
) -> float:
    """Return the mean squared error of the velocity, comparable between all kinds of prediction.

    The noise levels lie in the middle of `num_levels` equal parts of the diffusion time. Image i, clean and
    unseen, has the noise of `seed` + i at all levels.
    """
    schedule = denoiser.schedule
    parts, steps = 2 * num_levels, schedule.num_diffusion_steps
    levels = [schedule.level(part * steps // parts) for part in range(1, parts, 2)]
    region = Canvas(*images.shape[2:]).whole
    total = 0.0
    for first in range(0, len(images), BATCH):
        x_0 = images[first : first + BATCH].float() / 127.5 - 1.0
        draws = Noise(tuple(range(seed + first, seed + first + len(x_0))), x_0.device)
        noise = draws.normal(Stream.INITIAL, 0, region, x_0.shape[1])
        for number, level in enumerate(levels):
            x_t = level.alpha * x_0 + level.sigma * noise
            clean = estimate_alone(denoiser, Query(x_t, level, region, draws.at(number)))
            error = (clean - x_0) / level.sigma  # error of the velocity (alpha * x_t - x_0) / sigma
            total += float(error.double().square().mean()) * len(x_0)
    return total / (len(images) * num_levels)
