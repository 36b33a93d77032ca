"""A denoiser with random weights, as tests of sampling want it."""

import torch

from diffnca.config.model import Config
from diffnca.diffusion.denoiser import Denoiser
from diffnca.models.build import build_denoiser


def denoiser_of(config: Config) -> Denoiser:
    """Return a denoiser with random weights."""
    torch.manual_seed(0)
    denoiser = build_denoiser(config).requires_grad_(False)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    return denoiser
