"""The low frequencies of a canvas: a window of the discrete Fourier transform (DFT), there and back.

Each direction is two small matrix products over rows and columns, so a tile needs no transform of the canvas.
A spectrum has r x c frequencies. Its channels hold all real parts, then all imaginary parts.

**Scaling.** N is the number of pixels of the canvas, and K the number of pixels of a training image
(`trained_px` squared). k is a frequency in cycles per canvas. In the orthonormal transform, white noise has
unit variance at every size and frequency. Images follow a scale-invariant power law, 1/k^2 ([2]). So the
expected power of a coefficient is `P = IMAGE_POWER * N / k^2`. P grows with the canvas, and falls over the
window by three orders of magnitude.

No constant factor serves both noise and image. With `forward` (1/N) the noise vanishes on large canvases;
with plain `ortho` the image explodes. So `ortho` divides each coefficient by `sqrt(1 + P)`, and the way back
multiplies by it. The power in `x_t = alpha * x_0 + sigma * noise` then lies between `alpha^2` and `sigma^2`.

At equal t, larger canvases show more of their low frequencies. So either the image or the noise must differ
from training, and `ortho` weakens one of them. Canvases smaller than in training keep the noise and weaken
the image. Larger canvases keep the image and weaken the noise: P and the orthonormal factor stay as for K
pixels, with a further factor `K / N`.

[1] Kalkhof et al., arXiv 2401.06291, section 3.3.
[2] Field, "Relations between the statistics of natural images and the response properties of cortical cells",
    1987.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import FourierConfig

BLOCK_PX = 64

IMAGE_POWER = 0.005
"""Power at k = 1 of images in [-1, 1], per pixel: 0.004 in tissue and canopy, 0.005 to 0.02 in faces."""

MEAN_FREQUENCY_SQUARED = 0.05
"""Summand of k^2: gives the mean of an image the power 0.1 (canopy 0.05, faces 0.1, tissue 0.25)."""

HEADROOM_BITS = 6
"""Sums over the canvas are exact for pixel values within +-2**6."""


@dataclass(frozen=True)
class Window:
    """The low frequencies of a canvas, in cycles per canvas; small canvases have fewer."""

    config: FourierConfig
    canvas: Canvas

    @property
    def rows(self) -> range:
        """Vertical frequencies."""
        size, k = self.canvas.height, self.config.window
        first = 0 if self.config.spectrum == "quadrant" else max(-k, -(size // 2))
        return range(first, min(k, (size + 1) // 2))

    @property
    def columns(self) -> range:
        """Horizontal frequencies."""
        size, k = self.canvas.width, self.config.window
        available = (size + 1) // 2 if self.config.spectrum == "quadrant" else size // 2 + 1
        return range(min(k, available))

    @property
    def region(self) -> Region:
        """The window as a canvas with a cell per frequency."""
        return Canvas(len(self.rows), len(self.columns)).whole

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the cell of frequency zero."""
        return -self.rows.start, 0

    def analysis_scale(self) -> Float64[Tensor, "r c"]:
        """Return the factors from sums over the canvas to the input of the cells (see Scaling, above)."""
        known, pixels = self._known_pixels, self.canvas.whole.area
        if self.config.scaling == "forward":
            return torch.full((len(self.rows), len(self.columns)), 1.0 / pixels, dtype=torch.float64)
        return (known / pixels) / (self._expected_deviation() * math.sqrt(known))

    def synthesis_scale(self) -> Float64[Tensor, "r c"]:
        """Return the factors from the output of the cells to the waves.

        In the half plane each frequency also stands for its mirror image. Column 0, and the last column of an
        even width, hold their mirror images too. Only the first row, `-window`, has none there, so its output
        in these columns comes back at half. The cells learn with this.
        """
        scale = torch.ones(len(self.rows), len(self.columns), dtype=torch.float64)
        if self.config.scaling == "ortho":
            scale = self._expected_deviation() / math.sqrt(self._known_pixels)
        if self.config.spectrum == "half_plane":
            scale = scale * torch.tensor(
                [1.0 if 2 * column % self.canvas.width == 0 else 2.0 for column in self.columns]
            )
        return scale

    @property
    def _known_pixels(self) -> int:
        return min(self.canvas.whole.area, self.config.trained_px**2)

    def _expected_deviation(self) -> Float64[Tensor, "r c"]:
        rows = torch.tensor(self.rows, dtype=torch.float64)[:, None]
        columns = torch.tensor(self.columns, dtype=torch.float64)[None, :]
        squared = rows**2 + columns**2 + MEAN_FREQUENCY_SQUARED
        return (1.0 + IMAGE_POWER * self._known_pixels / squared).sqrt()


def analyse(x: Float[Tensor, "b n h w"], region: Region, window: Window) -> Float64[Tensor, "b two_n r c"]:
    """Return the share of `region` in the unscaled DFT of the canvas, `sum(x * exp(-2 pi i k . position))`.

    The shares of a partition add up to the DFT. They are sums over canvas-aligned blocks, rounded to a
    multiple of a small power of two. So float64 adds them without rounding, in any order.
    """
    bits = math.ceil(math.log2(window.canvas.whole.area)) + HEADROOM_BITS
    grid = math.ldexp(1.0, bits - 52)  # float64 holds sums of multiples of this power of two exactly
    share = x.new_zeros(len(x), 2 * x.shape[1], len(window.rows), len(window.columns), dtype=torch.float64)
    for top in _block_starts(region.top, region.height):
        rows = _waves(window.rows, top, window.canvas.height, x.device)
        for left in _block_starts(region.left, region.width):
            columns = _waves(window.columns, left, window.canvas.width, x.device)
            block = _block_at(x, top - region.top, left - region.left).double()
            cosine, sine = (rows @ block @ columns.mT).chunk(2, dim=-2)
            (cos_cos, cos_sin), (sin_cos, sin_sin) = cosine.chunk(2, dim=-1), sine.chunk(2, dim=-1)
            part = torch.cat([cos_cos - sin_sin, -(sin_cos + cos_sin)], dim=1)  # real, imaginary
            # rounding has no gradient; the last summand is zero and adds the gradient of `part`
            share = share + torch.round(part / grid) * grid + (part - part.detach())
    return share


def synthesise(
    spectrum: Float[Tensor, "b two_c r k"], region: Region, window: Window, block: int = BLOCK_PX
) -> Float[Tensor, "b c h w"]:
    """Return the real part of the sum of `coefficient * exp(2 pi i k . position)` on `region`.

    `spectrum` holds scaled coefficients, in cycles per canvas, so `region` may lie on a coarser canvas. The
    blocks are aligned with the canvas. So a pixel has equal bits in every region, at equal `block`.
    """
    real, imaginary = spectrum.movedim(1, -1).chunk(2, dim=-1)
    upper, lower = torch.cat([real, -imaginary], dim=2), torch.cat([-imaginary, -real], dim=2)
    # b 2r 2k c: coefficients of cos/sin of the row x cos/sin of the column
    waves = torch.cat([upper, lower], dim=1)

    def waves_at(frequencies: range, first: int, size: int) -> Tensor:
        return _waves(frequencies, first, size, spectrum.device, block).to(spectrum.dtype).mT

    lefts = _block_starts(region.left, region.width, block)
    columns = [waves_at(window.columns, left, region.canvas.width) for left in lefts]
    bands = []
    for top in _block_starts(region.top, region.height, block):
        rows = waves_at(window.rows, top, region.canvas.height)
        band = (rows @ waves.flatten(2)).reshape(len(waves), block, *waves.shape[2:])
        bands.append(torch.cat([each @ band for each in columns], dim=2))
    drawn = torch.cat(bands, dim=1).movedim(-1, 1)
    top, left = region.top % block, region.left % block
    return drawn[..., top : top + region.height, left : left + region.width]


def _waves(
    frequencies: range, first: int, size: int, device: torch.device, block: int = BLOCK_PX
) -> Float64[Tensor, "two_k block"]:
    """Return cosines, then sines, over a block from `first` on; integers keep the phase exact at any size."""
    numbers = torch.tensor(frequencies, device=device)
    turns = torch.outer(numbers, torch.arange(first, first + block, device=device)) % size
    angles = turns.double() * (2.0 * math.pi / size)
    return torch.cat([angles.cos(), angles.sin()])


def _block_starts(start: int, length: int, block: int = BLOCK_PX) -> range:
    return range(start - start % block, start + length, block)


def _block_at(x: Tensor, top: int, left: int) -> Tensor:
    bottom, right = top + BLOCK_PX - x.shape[-2], left + BLOCK_PX - x.shape[-1]
    return F.pad(x, [-left, right, -top, bottom])
