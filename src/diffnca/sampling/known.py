"""Given images, and what is known of an image because of them.

What is known is imposed on a noisy image as if it had been noised itself: `alpha` times it, and `sigma` times
fresh noise, which is drawn for each step from a stream of its own. On the clean image it then holds as it is.

References:
    [1] Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022.
    [2] Choi et al., "ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models", 2021.
    [3] Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.schedule import Level
from diffnca.diffusion.walk import Constraint
from diffnca.sampling.blocks import NEIGHBOURS, Grid
from diffnca.sampling.starts import Initial

HALVINGS = 30
"""Of the interval from -2 to 2, in which the shift is sought that gives a block its mean."""

CORRECTIONS = 8
"""Of means over blocks that share pixels, where black and white stand in the way."""

STEP, MOMENTUM = 1.9, 0.15
"""Of these corrections: the best ones for a matrix whose eigenvalues lie from 0.2 to 1 [3]."""

LEAST_FREE = 0.1
"""Share of a block that is taken to be neither black nor white, at least."""


@dataclass(frozen=True)
class Picture:
    """A given image, at its place on a canvas.

    Attributes:
        pixels: in [-1, 1]; one image for all, or one for each.
        top: row of the canvas on which its first row lies.
        left: column of the canvas on which its first column lies.
    """

    pixels: Float[Tensor, "b c y x"]
    top: int = 0
    left: int = 0

    def __call__(self, region: Region, noise: Noise) -> Float[Tensor, "b c h w"]:
        """Return its values on a region, as the start of a task."""
        return self.on(region)[0]

    def on(self, region: Region) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "h w"]]:
        """Return its values on a region, and where on the region it lies; beyond, the values mean nothing."""
        rows, columns, inside = self.place_of(region)
        return self.pixels[..., rows, columns], inside

    def place_of(
        self, region: Region
    ) -> tuple[Int64[Tensor, "h 1"], Int64[Tensor, " w"], Bool[Tensor, "h w"]]:
        """Return the rows and columns of the picture on a region, and where they are its own.

        Beyond the picture they are those of its edge.
        """
        height, width = self.pixels.shape[-2:]
        rows, columns = region.rows()[:, None] - self.top, region.columns() - self.left
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return rows.clamp(0, height - 1), columns.clamp(0, width - 1), inside


@dataclass(frozen=True)
class KnownPixels:
    """Some pixels are those of a picture.

    Attributes:
        picture: the picture.
        unknown: its pixels that are not known; `None` if all are known.
        is_noised: whether they are noised to the level of the image that they are put into ([1] Eq. 8a);
            otherwise they are pasted as they are, as the published Diff-NCA does.
    """

    picture: Picture
    unknown: Bool[Tensor, "y x"] | None = None
    is_noised: bool = True

    def reach(self, canvas: Canvas) -> int:
        """Return the pixels around a pixel that must be there: none."""
        return 0

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with the known pixels in their place."""
        rows, columns, known = self.picture.place_of(region)
        values = self.picture.pixels[..., rows, columns].to(x)
        if self.unknown is not None:
            known = known & ~self.unknown[rows, columns].to(known.device)
        if self.is_noised and level.sigma > 0.0:
            values = level.alpha * values + level.sigma * _fresh(noise, step, region, x)
        return torch.where(known.to(x.device), values, x)


@dataclass(frozen=True)
class KnownMeans:
    """The means over blocks of pixels are the pixels of a smaller picture (as [2] Eq. 7, with true means).

    The image is changed as little as can be: each block is shifted as a whole, and blocks that share pixels
    together. The clean image also stays within [-1, 1]. Then its means hold to 1e-5 if no pixels are shared,
    otherwise as closely as `CORRECTIONS` bring them: there may be no such image.

    Attributes:
        small: the picture, in [-1, 1]; its pixels are blocks of the canvas.
    """

    small: Float[Tensor, "b c y x"]

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return Grid(*self.small.shape[-2:])

    def reach(self, canvas: Canvas) -> int:
        """Return the pixels around a pixel that must be there: those of all blocks that it depends on."""
        is_even = self.grid.is_even(canvas)
        return self.grid.reach(canvas, 1 if is_even else 1 + NEIGHBOURS + CORRECTIONS)

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with the known means."""
        small = self.grid.own(self.small.to(x), region)
        if level.sigma > 0.0:
            fresh = self.grid.means(_fresh(noise, step, region, x), region)
            shift = self._shift(x, level.alpha * small + level.sigma * fresh, region)
            return self._shifted(x, shift, region)
        x = x.clamp(-1.0, 1.0)
        is_even = self.grid.is_even(region.canvas)
        shift = self._halved(x, small, region) if is_even else self._corrected(x, small, region)
        return self._shifted(x, shift, region).clamp(-1.0, 1.0)

    def _shift(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return the shifts of the blocks that give them these means."""
        return self.grid.solved(means - self.grid.means(x, region), region)

    def _shifted(self, x: Tensor, shift: Tensor, region: Region) -> Tensor:
        """Return `x` with each block shifted."""
        return x + self.grid.spread(shift, region)

    def _halved(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return the shifts that give blocks which share no pixels these means, once they are clamped.

        The mean of a block rises with its shift, which is found by halving an interval.
        """
        low, high = torch.full_like(means, -2.0), torch.full_like(means, 2.0)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            clamped = self._shifted(x, middle, region).clamp(-1.0, 1.0)
            is_low = self.grid.means(clamped, region) < means
            low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
        return high

    def _corrected(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return the shifts that give blocks which share pixels nearly these means, once they are clamped.

        Of all images with the means, that of the shifts is the nearest to `x`: they are Lagrange multipliers.
        A block is corrected the more, the more of it is black or white and does not move.
        """
        shift = before = self._shift(x, means, region)
        for _ in range(CORRECTIONS):
            shifted = self._shifted(x, shift, region)
            missing = means - self.grid.means(shifted.clamp(-1.0, 1.0), region)
            is_free = (shifted > -1.0) & (shifted < 1.0)
            share = self.grid.means(is_free.to(x), region).clamp(min=LEAST_FREE)
            shift, before = shift + STEP * missing / share + MOMENTUM * (shift - before), shift
        return shift


@dataclass(frozen=True)
class Known:
    """A start of which something is known.

    Attributes:
        initial: the start without it.
        constraint: what is known.
        level: the noise level of the start.
    """

    initial: Initial
    constraint: Constraint
    level: Level

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return the start on `region`."""
        seen = region.grow(self.constraint.reach(region.canvas))
        x = self.constraint.impose(self.initial(seen, noise), self.level, 0, seen, noise)
        return region.crop(x, of=seen)


@dataclass(frozen=True)
class Noised:
    """A start from an image that is noised to a level.

    Attributes:
        image: gives the image on a region.
        level: the level.
    """

    image: Initial
    level: Level

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return the start on `region`."""
        x = self.image(region, noise)
        fresh = noise.normal(Stream.INITIAL, 0, region, x.shape[1])
        return self.level.alpha * x.to(fresh) + self.level.sigma * fresh


def _fresh(noise: Noise, step: int, region: Region, x: Tensor) -> Tensor:
    """Return noise for what is known, before this step."""
    return noise.normal(Stream.TASK, step, region, x.shape[1]).to(x)
