"""The variational autoencoder: its loss, how likely a pixel is, and images from noise.

[1] Palm et al., "Variational Neural Cellular Automata", ICLR 2022.
[2] Kingma and Welling, "Auto-Encoding Variational Bayes", 2013.
[3] Salimans et al., "PixelCNN++", ICLR 2017; here with one component.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.canvas.noise import CellNoise, Noise, Stream
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.config.networks import FEWEST_DAMAGED, VNCAConfig

HALF_LEVEL = 1.0 / 255.0
SMALLEST_LOG_SCALE = -7.0
EDGE = 0.999
"""Only the lowest and the highest level, which hold the tails, lie beyond this value."""


class DiscretisedLogistic:
    """The distribution of images with independent pixels, given the numbers of each cell ([3] section 2).

    Each channel has a logistic distribution, cut into the 256 levels of an 8-bit pixel. The mean of green
    depends on the red of the pixel, and the mean of blue depends on red and green.

    Attributes:
        mean: mean of each channel, without the other colours.
        log_scale: logarithm of the scale of each channel.
        coupling: how far red moves green, red blue, and green blue; `None` for gray.
    """

    def __init__(self, numbers: Float[Tensor, "b c h w"], image_channels: int) -> None:
        """Take the distribution from the first channels of a state: 9 for colour, 2 for gray."""
        n = image_channels
        self.mean = numbers[:, :n]
        self.log_scale = numbers[:, n : 2 * n].clamp(min=SMALLEST_LOG_SCALE)
        self.coupling = numbers[:, 2 * n : 3 * n].tanh() if n == 3 else None

    def log_prob(self, images: Float[Tensor, "b n h w"]) -> Float[Tensor, " b"]:
        """Return the log-probability of each image, whose pixels are 8-bit levels in [-1, 1]."""
        away, inverse_scale = images - self._moved(images), torch.exp(-self.log_scale)
        upper, lower = inverse_scale * (away + HALF_LEVEL), inverse_scale * (away - HALF_LEVEL)
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        # sigmoid(upper) - sigmoid(lower), the probability of a level, without cancellation
        within = below + above + torch.log(-torch.expm1(-2.0 * HALF_LEVEL * inverse_scale))
        chosen = torch.where(images < -EDGE, below, torch.where(images > EDGE, above, within))
        return chosen.sum((1, 2, 3))

    def centre(self) -> Float[Tensor, "b n h w"]:
        """Return the middle of the distribution, in [-1, 1]; each colour uses the middle of earlier ones."""
        if self.coupling is None:
            return self.mean.clamp(-1.0, 1.0)
        red_green, red_blue, green_blue = self.coupling.unbind(1)
        red = self.mean[:, 0].clamp(-1.0, 1.0)
        green = (self.mean[:, 1] + red_green * red).clamp(-1.0, 1.0)
        blue = (self.mean[:, 2] + red_blue * red + green_blue * green).clamp(-1.0, 1.0)
        return torch.stack([red, green, blue], dim=1)

    def _moved(self, images: Tensor) -> Tensor:
        if self.coupling is None:
            return self.mean
        (red, green, _), (red_green, red_blue, green_blue) = images.unbind(1), self.coupling.unbind(1)
        move = [torch.zeros_like(red), red_green * red, red_blue * red + green_blue * green]
        return self.mean + torch.stack(move, dim=1)


class Autoencoder(nn.Module):
    """Makes images of a fixed size from Gaussian noise, without diffusion; `network` is a `VNCA`."""

    def __init__(self, network: Any, config: Config) -> None:
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
