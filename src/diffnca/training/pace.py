"""The pace of a training: its learning rate and its batches, as functions of the spent budget.

[1] Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022.
"""

import math

from diffnca.config.model import TrainingConfig
from diffnca.training.state import Progress

FINAL_LEARNING_RATE = 0.01
LONGEST_WARMUP = 0.05
"""Largest share of the budget that the warm-up takes."""

HALF_LATE, LATE = 2 / 3, 5 / 6
"""Shares of the budget from which on a step takes half of `late_batch`, and all of it."""


def learning_rate(training: TrainingConfig, progress: Progress) -> float:
    """Return the learning rate of the next step.

    A step of k batches takes the root of k times the rate, at most the peak. An image then counts as much as
    before, and steps draw as much noise into the weights ([1], the square root rule).
    """
    longer = math.sqrt(batches_of_step(training, progress))
    if training.decay == "exponential":
        return training.learning_rate * min(1.0, longer * training.decay_per_batch**progress.step)
    share = progress.share(training)
    cosine = FINAL_LEARNING_RATE + (1.0 - FINAL_LEARNING_RATE) * 0.5 * (1.0 + math.cos(math.pi * share))
    warmed = (progress.images + training.batch) / max(training.warmup_images, 1)
    warmup = min(1.0, max(warmed, share / LONGEST_WARMUP))
    return training.learning_rate * min(1.0, longer * cosine) * warmup


def batches_of_step(training: TrainingConfig, progress: Progress) -> int:
    """Return the number of batches whose gradients the next step adds up."""
    share = progress.share(training)
    if share < HALF_LATE:
        return 1
    return most_batches(training) if share >= LATE else max(1, most_batches(training) // 2)


def most_batches(training: TrainingConfig) -> int:
    """Return the largest number of batches that a step takes."""
    return (training.late_batch or training.batch) // training.batch
