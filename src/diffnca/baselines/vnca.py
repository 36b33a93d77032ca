"""VNCA: a convolutional encoder, and a cellular automaton that grows an image from a latent code.

[1] Palm et al., "Variational Neural Cellular Automata", ICLR 2022, section 3 and appendix A.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas
from diffnca.config.networks import VNCAConfig

NUM_HALVINGS = 4


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.second(F.elu(self.first(x)))
        return x + added


class _GrowthRule(nn.Module):
    """The update rule of all cells: perceive, then residual blocks; an untrained rule changes nothing."""

    def __init__(self, config: VNCAConfig) -> None:
        super().__init__()
        self.perceive = nn.Conv2d(config.latent, config.hidden, 3, padding=1)
        self.think = nn.Sequential(*(_Residual(config.hidden) for _ in range(config.num_residual_blocks)))
        self.project = nn.Conv2d(config.hidden, config.latent, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, state: Tensor) -> Tensor:
        change: Tensor = self.project(self.think(self.perceive(state)))
        return change


class VNCA(nn.Module):
    """Encoder and decoder; with `checkpoint_cells` the backward pass computes each cell step again.

    The radius is `None`, because each pixel depends on the latent code of the image.
    """

    radius: int | None = None

    def __init__(self, config: VNCAConfig) -> None:
        super().__init__()
        self.config = config
        self.image_channels = config.image_channels
        self.checkpoint_cells = False
        self.encoder = _encoder(config)
        self.rule = _GrowthRule(config)

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that training compiles."""
        return [self.rule]

    def encode(self, images: Float[Tensor, "b n h w"]) -> tuple[Float[Tensor, "b z"], Float[Tensor, "b z"]]:
        """Return mean and log of the deviation of each image's latent Gaussian, for images in [-1, 1]."""
        mean, log_deviation = self.encoder(images).float().chunk(2, dim=1)
        return mean, log_deviation

    def seed(self, latent: Float[Tensor, "b z"]) -> Float[Tensor, "b z s s"]:
        """Return the first grid, in which all cells hold the latent code of the image."""
        return latent[:, :, None, None].expand(-1, -1, self.config.start, self.config.start)

    def grow(
        self,
        state: Float[Tensor, "b z s s"],
        noise: CellNoise | None = None,
        num_cell_steps: int | None = None,
    ) -> Float[Tensor, "b z h w"]:
        """Return the state with one cell for each pixel, from `start` cells a side, or from `size` on.

        `noise=None` updates each cell by the expectation of its mask. `num_cell_steps` counts for each grid.
        """
        count = self.config.num_cell_steps if num_cell_steps is None else num_cell_steps
        first = 0
        while True:
            for step in range(first, first + count):
                state = self._updated(state, step, noise)
            if state.shape[-1] >= self.config.size:
                return state
            state = state.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            first += count

    def _updated(self, state: Tensor, step: int, noise: CellNoise | None) -> Tensor:
        keep = self.checkpoint_cells and torch.is_grad_enabled()
        change: Tensor = checkpoint(self.rule, state, use_reentrant=False) if keep else self.rule(state)
        probability = self.config.update_probability
        if probability < 1.0:
            region = Canvas(*state.shape[-2:]).whole
            mask = None if noise is None else noise.mask(step, region, probability)
            change = change * (probability if mask is None else mask.to(change))
        return state + change


def _encoder(config: VNCAConfig) -> nn.Sequential:
    widths = [config.image_channels] + [config.encoder_channels << k for k in range(NUM_HALVINGS + 1)]
    layers: list[nn.Module] = []
    for stride, (inputs, outputs) in zip((1, *(2,) * NUM_HALVINGS), pairwise(widths), strict=True):
        layers += [nn.Conv2d(inputs, outputs, 5, stride, padding=2), nn.ELU()]
    side = config.size >> NUM_HALVINGS
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, 2 * config.latent))
