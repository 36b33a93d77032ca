"""The optimisers: Adam, or Muon for hidden layers and Adam for the rest.

[1] Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
[2] Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, 2025: the size of a step.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.baselines.unet import UNet
from diffnca.config.model import TrainingConfig
from diffnca.networks.cell import CellRule

MOMENTUM = 0.95
RMS_OF_ADAM = 0.2
"""Typical root mean square of an update by Adam, as a share of the learning rate [2]."""

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration of [1]: after few steps, singular values are near 1 (0.7 to 1.2)."""
NUM_ITERATIONS = 5
SMALLEST_NORM = 1e-7


def build_optimizer(training: TrainingConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of `network`."""
    rate, betas = training.learning_rate, (training.beta1, training.beta2)
    if training.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=rate, betas=betas)
    return Muon(network.parameters(), hidden_matrices(network), lr=rate, betas=betas)


def hidden_matrices(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights for Muon: the layers of a cell rule, or of the blocks of a UNet, no others [1]."""
    if isinstance(network, UNet):
        return [weight for block in network.blocks() for weight in block.parameters() if weight.ndim > 1]
    rules = [module for module in network.modules() if isinstance(module, CellRule)]
    layers = [layer for rule in rules for layer in (rule.perceive, rule.expand, rule.project)]
    return [layer.weight for layer in layers if isinstance(layer.weight, nn.Parameter)]


class Muon(torch.optim.Adam):
    """Muon for some parameters, Adam for all others; updates have equal sizes for one learning rate."""

    def __init__(self, parameters: Any, matrices: list[nn.Parameter], **options: Any) -> None:
        """Use Muon for the `matrices` among `parameters` (`o i ...`, with `o` rows); `options` go to Adam."""
        super().__init__(parameters, **options)
        self.matrices = matrices

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        rate = self.param_groups[0]["lr"]
        for weight in self.matrices:
            gradient, weight.grad = weight.grad, None  # Adam skips parameters without a gradient
            if gradient is not None:
                weight.sub_(rate * self._update(weight, gradient))
        return super().step(closure)

    def _update(self, weight: nn.Parameter, gradient: Tensor) -> Tensor:
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state |= {"step": torch.tensor(0.0), "momentum": torch.zeros_like(gradient)}
        state["step"] += 1.0  # Adam needs a `step` in every state
        momentum = state["momentum"].lerp_(gradient, 1.0 - MOMENTUM)
        ahead = gradient.lerp(momentum, MOMENTUM).flatten(1)
        size = RMS_OF_ADAM * math.sqrt(max(ahead.shape))
        return size * orthogonalised(ahead).reshape(gradient.shape)


def orthogonalised(matrix: Float[Tensor, "o i"]) -> Float[Tensor, "o i"]:
    """Return about `U @ V.T` of the singular value decomposition `U @ S @ V.T`, by Newton-Schulz steps."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.t() if is_tall else matrix
    x = x / x.norm().clamp(min=SMALLEST_NORM)
    a, b, c = QUINTIC
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.t()
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.t() if is_tall else x
