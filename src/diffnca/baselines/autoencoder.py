"""VNCA: an encoder, and cells that grow an image from a latent code; their loss, and images from noise.

[1] Palm et al., "Variational Neural Cellular Automata", ICLR 2022, section 3 and appendix A.
[2] Kingma and Welling, "Auto-Encoding Variational Bayes", 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffnca.baselines.likelihood import DiscretisedLogistic
from diffnca.canvas.noise import CellNoise, Noise, Stream
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.config.networks import FEWEST_DAMAGED, VNCAConfig

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


class Autoencoder(nn.Module):
    """Makes images of a fixed size from Gaussian noise, without diffusion."""

    def __init__(self, network: VNCA, config: Config) -> None:
        super().__init__()
        assert isinstance(config.model, VNCAConfig)
        self.network, self.config, self.choices = network, config, config.model
        self.image_channels = config.model.image_channels

    def loss(
        self, x_0: Float[Tensor, "b n h w"], generator: torch.Generator, masks: Any = None
    ) -> Float[Tensor, ""]:
        """Return the negative evidence lower bound in nats per image ([2] Eq. 3), with one draw.

        `x_0` is in [-1, 1], with 8-bit levels; `masks=None` updates cells by the expectation of their mask.
        """
        mean, log_deviation = self.network.encode(x_0)
        latent = mean + log_deviation.exp() * torch.randn(mean.shape, generator=generator).to(mean)
        extra = int(torch.randint(self.choices.extra_cell_steps + 1, (), generator=generator))
        steps = self.choices.num_cell_steps + extra
        first = self.network.seed(latent)
        if self.choices.damage and len(x_0) >= FEWEST_DAMAGED:
            first = self._partly_grown(first, steps, generator, masks)
        grown = self.network.grow(first, masks, steps).float()
        reconstruction = self._distribution(grown).log_prob(x_0)
        divergence = 0.5 * (mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation).sum(1)
        bound: Tensor = (divergence - reconstruction).mean()
        return bound

    forward = loss  # training calls the module, on one device or on several

    def draw(self, noise: Noise) -> Float[Tensor, "b n h w"]:
        """Return an image in [-1, 1] for each seed of `noise`."""
        latent = noise.normal(Stream.INITIAL, 0, Canvas(1, 1).whole, self.choices.latent)
        return self.shown(self.network.grow(self.network.seed(latent[:, :, 0, 0]), noise.at(0)))

    def reconstruct(
        self, images: Float[Tensor, "b n h w"], noise: CellNoise | None = None
    ) -> Float[Tensor, "b n h w"]:
        """Encode images, and return the images in [-1, 1] that grow from their latent codes."""
        return self.shown(self.network.grow(self.network.seed(self.network.encode(images)[0]), noise))

    def shown(self, state: Float[Tensor, "b z h w"]) -> Float[Tensor, "b n h w"]:
        """Return the images in [-1, 1] of grown cells: the middle of their distributions."""
        return self._distribution(state.float()).centre()

    def _distribution(self, state: Tensor) -> DiscretisedLogistic:
        return DiscretisedLogistic(state, self.image_channels)

    def _partly_grown(
        self, first: Tensor, steps: int, generator: torch.Generator, masks: CellNoise | None
    ) -> Tensor:
        """Return first grids: the last half of them is already grown, and the last quarter is then damaged.

        Unlike the published pool ([1] section 4.3), a training step depends only on its number.
        """
        half, quarter = len(first) // 2, len(first) // 4
        with torch.no_grad():
            of_half = None if masks is None else _LastOf(masks, half)
            grown = self.network.grow(first[-half:], of_half, steps).to(first)
        wiped = damaged(grown[-quarter:], self.choices.damage, generator)
        return torch.cat([first[:-half], grown[:-quarter], wiped])


@dataclass(frozen=True)
class _LastOf:
    masks: CellNoise
    count: int

    def mask(self, cell_step: int, region: Any, probability: float) -> Tensor:
        return self.masks.mask(cell_step, region, probability)[-self.count :]


def damaged(
    state: Float[Tensor, "b z h w"], side: int, generator: torch.Generator
) -> Float[Tensor, "b z h w"]:
    """Return grown cells with zeros in a square of `side` px, at another place in each image."""
    damaged = state.clone()
    for cells in damaged:
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator)) for size in state.shape[-2:]
        )
        cells[:, top : top + side, left : left + side] = 0.0
    return damaged
