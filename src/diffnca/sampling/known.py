"""Given images, and what they make known of a new image.

A noisy image receives known values as if they had been noised too: `alpha` times the values plus `sigma`
times fresh noise from a separate stream. A clean image receives exact values.

[1] Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022.
[2] Choi et al., "ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models", 2021.
[3] Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.schedule import Level
from diffnca.diffusion.walk import Constraint, Planes
from diffnca.sampling.blocks import NEIGHBOURS, Grid
from diffnca.sampling.starts import Initial

HALVINGS = 30
"""Bisection steps on [-2, 2] for the shift that gives a block its mean."""

CORRECTIONS = 8
"""Iterations for the means over blocks that share pixels, where clamping to black and white changes means."""

STEP, MOMENTUM = 1.9, 0.15
"""Of these iterations: the best values for a matrix with eigenvalues from 0.2 to 1 [3]."""

LEAST_FREE = 0.5
"""Lower bound of the share of a block that counts as neither black nor white.

A correction frees pixels that the share counts as fixed. With 0.1 it overshoots: a photo of stones, 1.5 times
larger and noised by 0.4, ends 54 of 255 levels off, with 0.5 one level, with 1 (no share) three levels.
"""


@dataclass(frozen=True)
class Picture:
    """A given image in [-1, 1], or one for each image of a batch, from (`top`, `left`) of a canvas on."""

    pixels: Float[Tensor, "b c y x"]
    top: int = 0
    left: int = 0

    def __call__(self, region: Region, noise: Noise) -> Float[Tensor, "b c h w"]:
        """Return the values on a region, as the start of a task; values beside the picture mean nothing."""
        rows, columns, _ = self.place_of(region)
        return self.pixels[..., rows, columns]

    def place_of(
        self, region: Region
    ) -> tuple[Int64[Tensor, "h 1"], Int64[Tensor, " w"], Bool[Tensor, "h w"]]:
        """Return the rows and columns of the picture, clamped to its edge, and where the picture lies."""
        height, width = self.pixels.shape[-2:]
        rows, columns = region.rows()[:, None] - self.top, region.columns() - self.left
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        return rows.clamp(0, height - 1), columns.clamp(0, width - 1), inside


@dataclass(frozen=True)
class KnownPixels:
    """Some pixels equal the pixels of a picture: all pixels, or the pixels outside `unknown`.

    `is_noised` noises them to the level of the image ([1] Eq. 8a); else they are pasted as published.
    """

    picture: Picture
    unknown: Bool[Tensor, "y x"] | None = None
    is_noised: bool = True

    def reach(self, canvas: Canvas) -> int:
        """Return how many pixels around a pixel `impose` needs: none."""
        return 0

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with the known pixels."""
        rows, columns, known = self.picture.place_of(region)
        values = self.picture.pixels[..., rows, columns].to(x)
        if self.unknown is not None:
            known = known & ~self.unknown[rows, columns].to(known.device)
        if self.is_noised and level.sigma > 0.0:
            values = level.alpha * values + level.sigma * _fresh(noise, step, region, x)
        return torch.where(known.to(x.device), values, x)


@dataclass(frozen=True, eq=False)
class KnownClasses:
    """The planes of a map, which a model makes after its colours, are those of a layout where it is known.

    Attributes:
        layout: planes that are 1 for the known class of a place; all are 0 where it is unknown.
        colours: channels of the image before the planes; they stay as they are.
    """

    layout: Planes
    colours: int

    def reach(self, canvas: Canvas) -> int:
        """Return how many pixels around a pixel `impose` needs: none."""
        return 0

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with the known classes, noised to its level ([1] Eq. 8a)."""
        planes = self.layout(region).to(x)
        known, values = planes.sum(dim=1, keepdim=True) > 0.5, 2.0 * planes - 1.0
        if level.sigma > 0.0:
            fresh = noise.normal(Stream.TASK, step, region, planes.shape[1]).to(x)
            values = level.alpha * values + level.sigma * fresh
        colours, made = x[:, : self.colours], x[:, self.colours :]
        return torch.cat([colours, torch.where(known, values, made)], dim=1)


@dataclass(frozen=True)
class KnownMeans:
    """The means over blocks of pixels equal the pixels of a smaller picture (as [2] Eq. 7, with true means).

    `small` is the picture, in [-1, 1]. The image changes as little as possible: each block is shifted as a
    whole, blocks that share pixels together. The clean image stays within [-1, 1]. Without shared pixels, its
    means hold to 1e-5. Otherwise an image with these means may not exist; `CORRECTIONS` iterations come near.
    """

    small: Float[Tensor, "b c y x"]

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return Grid(*self.small.shape[-2:])

    def reach(self, canvas: Canvas) -> int:
        """Return how many pixels around a pixel `impose` needs: all blocks that influence the pixel."""
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
        return self.grid.solved(means - self.grid.means(x, region), region)

    def _shifted(self, x: Tensor, shift: Tensor, region: Region) -> Tensor:
        return x + self.grid.spread(shift, region)

    def _halved(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return the shifts that give separate blocks these means after clamping, by bisection."""
        low, high = torch.full_like(means, -2.0), torch.full_like(means, 2.0)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            clamped = self._shifted(x, middle, region).clamp(-1.0, 1.0)
            is_low = self.grid.means(clamped, region) < means
            low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
        return high

    def _corrected(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return the shifts that give blocks with shared pixels nearly these means after clamping.

        The shifts are Lagrange multipliers: of all images with these means, theirs is the nearest to `x`. A
        block gets a larger correction if more of its pixels are black or white and cannot move.
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
class NearMeans:
    """The means over blocks of the clean image are near the pixels of a smaller picture.

    `small` is the picture, in [-1, 1]. The image changes once, by a linear interpolation of what its means
    lack. So the edges of the blocks do not show, but the means hold only nearly.
    """

    small: Float[Tensor, "b c y x"]

    def reach(self, canvas: Canvas) -> int:
        """Return how many pixels around a pixel `impose` needs: the blocks on both sides of its own."""
        return Grid(*self.small.shape[-2:]).reach(canvas, 2)

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return a clean image with means nearer to the picture; a noisy image stays as it is."""
        if level.sigma > 0.0:
            return x
        grid, x = Grid(*self.small.shape[-2:]), x.clamp(-1.0, 1.0)
        missing = grid.own(self.small.to(x), region) - grid.means(x, region)
        return (x + grid.smoothed(missing, region)).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Known:
    """A start, at a noise `level`, on which a constraint is imposed."""

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
    """A start from an image that is noised to a level."""

    image: Initial
    level: Level

    def __call__(self, region: Region, noise: Noise) -> Tensor:
        """Return the start on `region`."""
        x = self.image(region, noise)
        fresh = noise.normal(Stream.INITIAL, 0, region, x.shape[1])
        return self.level.alpha * x.to(fresh) + self.level.sigma * fresh


def _fresh(noise: Noise, step: int, region: Region, x: Tensor) -> Tensor:
    return noise.normal(Stream.TASK, step, region, x.shape[1]).to(x)
