"""What a row of a table costs: parameters, multiply-adds, time and memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import Query, estimate_alone
from diffnca.models.build import build_model
from diffnca.sampling.denoisers import walk_of


@dataclass(frozen=True)
class Cost:
    """What a row costs.

    Attributes:
        parameters: all learnt numbers.
        parameters_to_generate: the parameters that make images; without the encoder of VNCA.
        multiply_adds: per generated image, in all diffusion steps.
        training_seconds: wall-clock, after the compilation.
        training_images: seen in training.
        peak_memory_bytes: in training, of the process or the GPU; `None` if unknown.
    """

    parameters: int
    parameters_to_generate: int
    multiply_adds: int
    training_seconds: float
    training_images: int
    peak_memory_bytes: int | None


def multiply_adds(config: Config, sampler: str | None, steps: int | None) -> int:
    """Return the multiply-adds for one image of the size of the training crops.

    They include convolutions and matrix products, without Fourier transforms and elementwise operations.
    """
    model, side = build_model(config).eval(), config.data.crop
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(model, Autoencoder):
            model.draw(Noise((0,)))
            calls = 1
        else:
            region, x_t = Canvas(side, side).whole, torch.zeros(1, model.image_channels, side, side)
            _, levels = walk_of(model, sampler, steps)
            estimate_alone(model, Query(x_t, levels[0], region))
            calls = len(levels)
    return int(counter.get_total_flops()) // 2 * calls


def parameters(config: Config) -> tuple[int, int]:
    """Return how many numbers a model learns, and how many of them make images."""
    model = build_model(config)
    learnt = sum(p.numel() for p in model.parameters())
    if isinstance(model, Autoencoder):
        return learnt, sum(p.numel() for p in model.network.rule.parameters())
    return learnt, learnt
