"""What a row of a table takes: parameters, multiply-adds, time and memory."""

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
    """What a row takes.

    Attributes:
        parameters: numbers that are learnt.
        parameters_to_generate: those of them without which no image is made; not the encoder of VNCA.
        multiply_adds: per generated image, in all diffusion steps.
        training_seconds: wall-clock, once the code is compiled.
        training_images: seen in training.
        peak_memory_bytes: most memory held in training, by the process or on the GPU; `None` if not known.
    """

    parameters: int
    parameters_to_generate: int
    multiply_adds: int
    training_seconds: float
    training_images: int
    peak_memory_bytes: int | None


def multiply_adds(config: Config, sampler: str | None, steps: int | None) -> int:
    """Return how many multiply-adds it takes to make one image of the size of the training crops.

    Convolutions and matrix products are counted, as the network is trained; Fourier transforms and all that
    is done number by number are not.
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
    """Return how many numbers a model learns, and how many of them it takes to make images."""
    model = build_model(config)
    learnt = sum(p.numel() for p in model.parameters())
    if isinstance(model, Autoencoder):
        return learnt, sum(p.numel() for p in model.network.rule.parameters())
    return learnt, learnt
