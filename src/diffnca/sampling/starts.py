"""The noise from which new images start: independent pixels, or one tone for a whole texture.

A local model takes the colours of a place (stain of tissue, light) from the mean of its noise [1]. Over a
square, this mean varies by 1 / side from place to place. So does the tone of a large image. In `EvenNoise`,
all squares of the size that the model sees start with one mean.

[1] Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024.
"""

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
"""Noise is summed in whole multiples of 1 / UNIT, so the order of the sum changes no bit."""


@dataclass(frozen=True)
class PureNoise:
    """The start of a new image: independent noise in `channels` channels."""

    channels: int

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return noise of variance 1 on `region`."""
        return noise.normal(Stream.INITIAL, 0, region, self.channels)


@dataclass(frozen=True)
class EvenNoise:
    """The start of an image of one tone: noise of variance 1 whose squares all have one mean.

    The squares divide the canvas evenly; `side` is their largest side in pixels. `tone` is the mean of each
    channel, in standard deviations of the mean of independent noise (1 / side). `None` draws it per image.
    """

    channels: int
    side: int
    tone: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.tone is not None:
            allowed = f"{self.channels} finite numbers, one for each channel"
            has_all = isinstance(self.tone, Sequence) and len(self.tone) == self.channels
            require(has_all and all(map(math.isfinite, self.tone)), "tone", self.tone, allowed)

    def __call__(self, region: Region, noise: Noise) -> Float32[Tensor, "b c h w"]:
        """Return the noise on `region`, equal to the crop of the noise on the whole canvas."""
        grown, computed = region.grow(self.side), replace(noise, device=noise.computed_on)
        drawn = computed.normal(Stream.INITIAL, 0, grown, self.channels)
        rows, columns = (index.to(drawn.device) for index in self._squares(grown))
        common = self._common(region.canvas, noise).to(drawn.device)
        for image, mean in zip(drawn.flatten(0, 1), common.flatten(), strict=True):
            image += (mean - means_of(image, rows, columns))[rows][:, columns]
        return region.crop(drawn, grown).to(noise.device)

    def _squares(self, region: Region) -> tuple[Int64[Tensor, " h"], Int64[Tensor, " w"]]:
        canvas, numbers = region.canvas, []
        for index, size in ((region.rows(), canvas.height), (region.columns(), canvas.width)):
            square = ((index + 1) * -(-size // self.side) - 1) // size
            numbers.append(torch.unique(square, return_inverse=True)[1])
        return numbers[0], numbers[1]

    def _common(self, canvas: Canvas, noise: Noise) -> Float32[Tensor, "b c"]:
        pixels = min(self.side, canvas.height) * min(self.side, canvas.width)
        drawn = replace(noise, device="cpu").normal(Stream.INITIAL, 1, Canvas(1, 1).whole, self.channels)
        tone = drawn[..., 0, 0].double()
        if self.tone is not None:
            tone = tone.new_tensor(self.tone).expand_as(tone)
        return (tone / math.sqrt(pixels)).float()


def start_of(
    denoiser: ImageDenoiser, even_px: int | None = None, tone: Sequence[float] | None = None
) -> Initial:
    """Return the start of a new image; `even_px` (at most 1024) and `tone` are as for `generate`."""
    channels = denoiser.image_channels
    side = denoiser.config.sampling.even_px if even_px is None else whole_number("even_px", even_px)
    require(0 <= side <= LARGEST_SQUARE_PX, "even_px", side, f"from 0 to {LARGEST_SQUARE_PX}")
    if side:
        return EvenNoise(channels, side, tuple(tone) if isinstance(tone, Sequence) else tone)
    allowed = "left out where even_px=0, as each place then has its own; set even_px"
    require(tone is None, "tone", tone, allowed)
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
