"""Given images, and what is known of an image because of them.

What is known is imposed on a noisy image as if it had been noised itself: `alpha` times it, and `sigma` times
fresh noise, which is drawn for each step from a stream of its own. On the clean image it then holds as it is.

References:
    [1] Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022.
    [2] Choi et al., "ILVR: Conditioning Method for Denoising Diffusion Probabilistic Models", 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffnca.diffusion.samplers import Constraint
from diffnca.diffusion.schedule import Level
from diffnca.geometry import Canvas, Region
from diffnca.noise import Noise, Stream
from diffnca.tasks.grids import Grid
from diffnca.tasks.task import Initial

HALVINGS = 30
"""Of the interval from -2 to 2, in which the shift is sought that gives a block its mean."""

CORRECTIONS = 8
"""Of means over blocks that share pixels."""


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

    def on(self, region: Region) -> tuple[Float[Tensor, "b c h w"], Bool[Tensor, "h w"]]:
        """Return its values on a region, and where on the region it lies; beyond, the values mean nothing."""
        height, width = self.pixels.shape[-2:]
        rows, columns = region.rows() - self.top, region.columns() - self.left
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        return self.pixels[..., rows[:, None], columns], inside


@dataclass(frozen=True)
class KnownPixels:
    """Some pixels are those of a picture.

    Attributes:
        picture: the picture.
        unknown: its pixels that are not known; `None` if all are.
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
        values, known = self.picture.on(region)
        if self.unknown is not None:
            holes = Picture(self.unknown[None, None].float(), self.picture.top, self.picture.left)
            known = known & (holes.on(region)[0][0, 0] == 0.0)
        values = values.to(x)
        if self.is_noised and level.sigma > 0.0:
            values = level.alpha * values + level.sigma * _fresh(noise, step, region, x)
        return torch.where(known.to(x.device), values, x)


@dataclass(frozen=True)
class KnownMeans:
    """The means over blocks of pixels are the pixels of a smaller picture (as [2] Eq. 7, with true means).

    On the clean image they hold within [-1, 1]: to 1e-5 if the blocks share no pixels, nearly otherwise.

    Attributes:
        small: the picture, in [-1, 1]; its pixels are blocks of the canvas.
    """

    small: Float[Tensor, "b c y x"]

    @property
    def grid(self) -> Grid:
        """The blocks."""
        return Grid(*self.small.shape[-2:])

    def reach(self, canvas: Canvas) -> int:
        """Return the pixels around a pixel that must be there: those of its blocks."""
        return self.grid.reach(canvas) * (1 if self.grid.is_even(canvas) else CORRECTIONS)

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with the known means."""
        small = self.grid.own(self.small.to(x), region)
        if level.sigma > 0.0:
            fresh = self.grid.means(_fresh(noise, step, region, x), region)
            return self._shifted(x, level.alpha * small + level.sigma * fresh, region)
        if self.grid.is_even(region.canvas):
            return self._within_range(x, small, region)
        for _ in range(CORRECTIONS):
            x = self._shifted(x, small, region).clamp(-1.0, 1.0)
        return x

    def _shifted(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return `x` with these means, each block shifted as a whole."""
        return x + self.grid.spread(means - self.grid.means(x, region), region)

    def _within_range(self, x: Tensor, means: Tensor, region: Region) -> Tensor:
        """Return `x` with these means and inside [-1, 1].

        A block is shifted and clamped. Its mean rises with the shift, which is found by halving an interval.
        """
        low, high = torch.full_like(means, -2.0), torch.full_like(means, 2.0)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            is_low = self.grid.means(self._clamped(x, middle, region), region) < means
            low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
        return self._clamped(x, high, region)

    def _clamped(self, x: Tensor, shift: Tensor, region: Region) -> Tensor:
        """Return `x` with each block shifted, inside [-1, 1]."""
        return (x.clamp(-1.0, 1.0) + self.grid.spread(shift, region)).clamp(-1.0, 1.0)


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
