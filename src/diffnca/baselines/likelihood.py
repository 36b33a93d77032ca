"""The probability of a pixel: a logistic distribution cut into the 256 levels of an 8-bit pixel.

The mean of green depends on the red of the pixel, and the mean of blue depends on red and green.

[1] Salimans et al., "PixelCNN++", ICLR 2017, section 2.1 and 2.2; here with one component.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

HALF_LEVEL = 1.0 / 255.0
SMALLEST_LOG_SCALE = -7.0
EDGE = 0.999
"""Only the lowest and the highest level, which hold the tails, lie beyond this value."""


class DiscretisedLogistic:
    """The distribution of images with independent pixels, given the numbers of each cell.

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
