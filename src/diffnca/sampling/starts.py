"""The noise that new images start from: each pixel by itself, or with one tone for a whole texture.

A local model takes the colours of a region (the stain of tissue, the light of a photo) from what the noise
there happens to be on average [1]. These averages differ from place to place, by one over the side of the
square they are taken over, and so does the tone of a large image. In `EvenNoise`, squares as large as what
the model sees start with one mean, drawn once for the image or chosen by the user. Nothing else is changed.

References:
    [1] Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024: the mean of the
        noise at the start decides how bright the image is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import LARGEST_SQUARE_PX
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.errors import require
from diffnca.sampling.arguments import whole_number

Initial = Callable[[Region, Noise], Tensor]
"""Gives the image at the first level on a region: `(region, noise) -> x`."""

UNIT = 2.0**40
"""Numbers of noise are summed as whole multiples of 1 / UNIT, so that the order of the sum is none."""


@dataclass(frozen=True)
class PureNoise:
    """The start of an image that is made out of nothing.

    Attributes:
        channels: of the image.
    """

    channels: int

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return noise of variance 1 on `region`."""
        return noise.normal(Stream.INITIAL, 0, region, self.channels)


@dataclass(frozen=True)
class EvenNoise:
    """The start of an image of one tone: noise of variance 1 whose squares all have the same mean.

    Attributes:
        channels: of the image.
        side: of the squares in pixels, at most; they divide the canvas evenly.
        tone: the mean of each channel, in the standard deviations that the mean of a full square of
            independent noise has (one over its side); `None` draws it for each image.
    """

    channels: int
    side: int
    tone: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a tone of other channels, or none at all."""
        if self.tone is not None:
            allowed = f"{self.channels} finite numbers, one for each channel"
            is_told = len(self.tone) == self.channels and all(map(math.isfinite, self.tone))
            require(is_told, "tone", self.tone, allowed)

    def __call__(self, region: Region, noise: Noise) -> Float32[Tensor, "b c h w"]:
        """Return the noise on `region`, the same as in the whole."""
        grown, computed = region.grow(self.side), replace(noise, device=noise.computed_on)
        drawn = computed.normal(Stream.INITIAL, 0, grown, self.channels)
        rows, columns = (index.to(drawn.device) for index in self._squares(grown))
        common = self._common(region.canvas, noise).to(drawn.device)
        for image, mean in zip(drawn.flatten(0, 1), common.flatten(), strict=True):
            image += (mean - means_of(image, rows, columns))[rows][:, columns]
        return region.crop(drawn, grown).to(noise.device)

    def _squares(self, region: Region) -> tuple[Int64[Tensor, " h"], Int64[Tensor, " w"]]:
        """Return in which square each row and each column of a region lies, counted from 0."""

        def squares(index: Tensor, size: int) -> Tensor:
            count = -(-size // self.side)
            inverse: Tensor = torch.unique(((index + 1) * count - 1) // size, return_inverse=True)[1]
            return inverse

        canvas = region.canvas
        return squares(region.rows(), canvas.height), squares(region.columns(), canvas.width)

    def _common(self, canvas: Canvas, noise: Noise) -> Float32[Tensor, "b c"]:
        """Return the mean that all squares shall have, of each image."""
        pixels = min(self.side, canvas.height) * min(self.side, canvas.width)
        drawn = replace(noise, device="cpu").normal(Stream.INITIAL, 1, Canvas(1, 1).whole, self.channels)
        tone = drawn[..., 0, 0].double()
        if self.tone is not None:
            tone = tone.new_tensor(self.tone).expand_as(tone)
        return (tone / math.sqrt(pixels)).float()


def start_of(
    denoiser: ImageDenoiser, even_px: int | None = None, tone: Sequence[float] | None = None
) -> Initial:
    """Return the start of a new image.

    Args:
        denoiser: the model.
        even_px: side of the squares that start with one mean, 0 for none, at most 1024; `None` is the choice
            of the model.
        tone: the mean; `None` draws it for each image.

    Raises:
        ValueError: the side is out of range, or a tone is asked for where each place has its own.
    """
    channels = denoiser.image_channels
    side = denoiser.config.sampling.even_px if even_px is None else whole_number("even_px", even_px)
    require(0 <= side <= LARGEST_SQUARE_PX, "even_px", side, f"from 0 to {LARGEST_SQUARE_PX}")
    if side:
        allowed = f"{channels} finite numbers, one for each channel"
        require(tone is None or isinstance(tone, Sequence), "tone", tone, allowed)
        return EvenNoise(channels, side, None if tone is None else tuple(tone))
    require(
        tone is None, "tone", tone, "left out where even_px=0, as each place then has its own; set even_px"
    )
    return PureNoise(channels)


def means_of(
    image: Float[Tensor, "h w"], rows: Int64[Tensor, " h"], columns: Int64[Tensor, " w"]
) -> Float32[Tensor, "y x"]:
    """Return the mean of each square, given in which its rows and columns lie."""
    counts = torch.outer(rows.bincount(), columns.bincount())
    of_rows = counts.new_zeros(len(counts), image.shape[1])
    of_rows.index_add_(0, rows, (image.double() * UNIT).round().long())
    sums = torch.zeros_like(counts).index_add_(1, columns, of_rows)
    return (sums.double() / (counts * UNIT)).float()
