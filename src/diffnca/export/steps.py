"""A step of a sampler as numbers: what it takes of the noisy image, of the estimate, and of the rest."""

import torch

from diffnca.diffusion.samplers import Memory, Sampler, Step
from diffnca.diffusion.schedule import Level


def factors_of(sampler: Sampler, level_t: Level, level_s: Level, before: Level | None) -> list[float]:
    """Return the factors of noisy image, estimate, fresh noise and previous estimate in a step of a sampler.

    A step adds up its images, each times a number. So a step of four unit vectors gives the numbers.
    """
    x_t, estimate, noise, previous = torch.eye(4, dtype=torch.float64)[:, None, :, None, None]
    memory = None if before is None else Memory(previous, before)
    x_s, _ = sampler.step(Step(x_t, estimate, level_t, level_s, noise, memory))
    return [float(factor) for factor in x_s.flatten()]
