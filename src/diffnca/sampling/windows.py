"""Blended windows: make large images with a network that must see its whole image, evenly but not exactly.

Overlapping windows cover the canvas; each is a separate image to the network. The estimate of a pixel is the
weighted mean over its windows ([1], section 4). Weights grow towards the middle of a window, so edges never
show. But the image is not coherent beyond a window, and windows cost about four times the calls.

[1] Bar-Tal et al., "MultiDiffusion: Fusing Diffusion Paths for Controlled Image Generation", 2023.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser, Query, estimate_alone
from diffnca.networks.cell import edges
from diffnca.sampling.guidance import AroundDenoiser


@dataclass(frozen=True)
class Blended(AroundDenoiser):
    """A denoiser of any canvas, from a denoiser of windows of `window_px` a side, which overlap by half."""

    denoiser: ImageDenoiser
    window_px: int
    has_context = False

    def __post_init__(self) -> None:
        if self.window_px < 2:
            best = "the side of the training crops is best"
            raise ValueError(f"window={self.window_px} px: must be >= 2; {best}")

    @property
    def radius(self) -> int:
        """Pixels that one pixel of an estimate can see: to the far edge of a window."""
        return self.window_px - 1

    def context(self, query: Query) -> None:
        """Return nothing: each window is a whole image."""

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image, good up to `radius` px from edges inside the canvas."""
        x_t, region, noise = query.x_t, query.region, query.cell_noise
        total = torch.zeros_like(x_t)
        weights = x_t.new_zeros(1, 1, *x_t.shape[-2:])
        for window, rows, columns in self._windows(region):
            place = (..., rows[:, None].to(x_t.device), columns.to(x_t.device))
            own = Canvas(window.height, window.width, edges(window)).whole
            masks = None if noise is None else WindowNoise(noise, window, own.canvas)
            given = None if query.given is None else query.given[place]
            weight = (_tent(window.height)[:, None] * _tent(window.width)).to(x_t)
            asked = Query(x_t[place], query.level, own, masks, given=given)
            total[place] += weight * estimate_alone(self.denoiser, asked)
            weights[place] += weight
        return total / weights.clamp(min=1.0)

    def _windows(self, region: Region) -> Iterator[tuple[Region, Tensor, Tensor]]:
        canvas = region.canvas
        for y in _starts(canvas.height, self.window_px, canvas.boundary[0]):
            for x in _starts(canvas.width, self.window_px, canvas.boundary[1]):
                rows = _inside(y, self.window_px, region.top, region.height, canvas.height)
                columns = _inside(x, self.window_px, region.left, region.width, canvas.width)
                if rows is not None and columns is not None:
                    yield Region(y, x, len(rows), len(columns), canvas), rows, columns


@dataclass(frozen=True)
class WindowNoise:
    """The masks of a window's cells: cells of one pixel update as at this place of the canvas.

    Larger cells, and frequencies, lie on other canvases than `own` and update alike in all windows.
    """

    noise: CellNoise
    window: Region
    own: Canvas

    def mask(self, cell_step: int, region: Region, probability: float) -> Bool[Tensor, "b 1 h w"]:
        """Return true where a cell of `region`, in the window, updates in this cell step."""
        if region.canvas == self.own:
            top, left = self.window.top + region.top, self.window.left + region.left
            region = Region(top, left, region.height, region.width, self.window.canvas)
        return self.noise.mask(cell_step, region, probability)


def _starts(size: int, window_px: int, boundary: Boundary) -> list[int]:
    if size <= window_px:
        return [0]
    if boundary == "circular":
        return list(range(0, size, window_px // 2))
    return [*range(0, size - window_px, window_px // 2), size - window_px]


def _inside(start: int, window_px: int, first: int, length: int, size: int) -> Tensor | None:
    """Return where the pixels of a window lie in a span of an axis; `None` if the span lacks some of them."""
    offset, count = (start - first) % size, min(window_px, size)
    fits = offset + count <= length or length == size
    return torch.arange(offset, offset + count) % length if fits else None


def _tent(length: int) -> Float32[Tensor, " length"]:
    places = torch.arange(length)
    return torch.minimum(places + 1, length - places).float()
