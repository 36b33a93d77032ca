"""Whole images larger than in training: coarse structure from a canvas of half the size.

A network with a Fourier stage knows whole images at one size. On a larger canvas it draws small eyes into a
large face. But the means over squares of 2x2 px of a noisy image are a noisy image too, at a cleaner level:

    mean(alpha * x_0 + sigma * noise) = alpha * mean(x_0) + (sigma / 2) * noise'

So the log-SNR rises by log 4 [1]. The network estimates this smaller clean image as well, by the same rule,
down to a canvas about as large as in training. The change from the means of the large estimate to the small
one is interpolated and added: what is coarse has the size that the network knows, and the large canvas adds
what is fine. A cubic interpolation nearly keeps means [2]; a linear one keeps less of them.

[1] Hoogeboom et al., "simple diffusion: End-to-end diffusion for high resolution images", ICML 2023.
[2] Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import ImageDenoiser, Query, all_planes
from diffnca.diffusion.schedule import Level
from diffnca.networks.cell import padded
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.around import Around

SIDE, NEAR = 2, 2
"""Side of the squares in pixels; squares on each side from which their pixels are interpolated."""

CUBIC = (-0.03515625, 0.26171875, 0.87890625, -0.10546875)
"""Weights in the middle of the first half of a square, of the squares from the second before to the next [2].

The kernel has the slope -0.75 at 1, as that of `torch.nn.functional.interpolate`.
"""

LEAST_FACTOR = 1.5
"""A canvas is halved from this factor between its smaller side and the side in training on."""

LARGEST_PX = 2048**2
"""Area of the largest canvas that is halved: each step keeps its half in memory."""


def half_of(canvas: Canvas, config: Config) -> Canvas | None:
    """Return the canvas of the means over squares; `None` for a canvas that a model estimates by itself."""
    sides, unit = (canvas.height, canvas.width), SIDE * getattr(config.model, "patch", 1)
    is_small = min(sides) < LEAST_FACTOR * config.data.crop
    is_torn = any(
        boundary == "circular" and side % unit for side, boundary in zip(sides, canvas.boundary, strict=True)
    )
    if not config.has_pyramid or is_small or is_torn or canvas.whole.area > LARGEST_PX:
        return None
    return PatchGrid(canvas.whole, SIDE).cells.canvas


def num_halves(canvas: Canvas, config: Config) -> int:
    """Return how many smaller canvases a model estimates beside this one."""
    half = half_of(canvas, config)
    return 0 if half is None else 1 + num_halves(half, config)


def with_pyramid(denoiser: ImageDenoiser) -> ImageDenoiser:
    """Return a denoiser with a pyramid, if its configuration has one."""
    return Pyramid(denoiser) if denoiser.config.has_pyramid and denoiser.has_context else denoiser


@dataclass(frozen=True)
class Pyramid(Around):
    """A denoiser of whole images whose estimates on large canvases agree with those on their halves.

    The context of a canvas with a half is `b n 1 1`: that of the denoiser, then the means over squares. Parts
    of a canvas of which contexts are summed begin at even rows and columns.
    """

    denoiser: ImageDenoiser

    def context(self, query: Query) -> Tensor | None:
        """Return what the region of the query adds to the context of the canvas."""
        spectrum, half = self.denoiser.context(query), half_of(query.region.canvas, self.config)
        if spectrum is None or half is None:
            return spectrum
        given = all_planes(query.x_t, query.given, self.config)
        seen = query.x_t if given is None else torch.cat([given.to(query.x_t), query.x_t], dim=1)
        means = padded(means_of(seen), PatchGrid(query.region, SIDE).cells, half.whole)
        return torch.cat([spectrum.flatten(1), means.flatten(1).to(spectrum)], dim=1)[..., None, None]

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image; its means over squares nearly are those of the half."""
        region, half = query.region, half_of(query.region.canvas, self.config)
        if half is None:
            return self.denoiser.estimate(query)
        spectrum, means = self._parts(query, half)
        own = self.denoiser.estimate(replace(query, context=spectrum))
        inner = region.shrink(self.radius or 0) or region
        squares = PatchGrid(region, SIDE)
        squares = squares.part(PatchGrid(inner, SIDE).cells.grow(NEAR).within(squares.cells))
        change = self._estimate_of_half(query, means, squares.cells)
        change = change - means_of(squares.pixels.crop(own, of=region))
        return own + padded(enlarged(change, squares), squares.pixels, region)

    def _parts(self, query: Query, half: Canvas) -> tuple[Tensor, Float[Tensor, "b m v u"]]:
        """Return the context of the denoiser, and the means over the squares of the whole canvas."""
        context = self.context(query) if query.context is None else query.context
        planes = all_planes(query.x_t, query.given, self.config)
        fourier = self._model.fourier
        assert context is not None, "a Fourier stage has a context"
        assert fourier is not None, "only a Fourier stage has a pyramid"
        window = Window(fourier, query.region.canvas).region
        channels = query.x_t.shape[1] + (0 if planes is None else planes.shape[1])
        numbers = channels * half.whole.area
        spectrum, means = context[..., 0, 0].split([context.shape[1] - numbers, numbers], dim=1)
        means = means.unflatten(1, (channels, half.height, half.width))
        return spectrum.unflatten(1, (-1, window.height, window.width)), means.to(query.x_t)

    def _estimate_of_half(
        self, query: Query, means: Float[Tensor, "b m v u"], where: Region
    ) -> Float[Tensor, "b n y x"]:
        """Return the estimate of the clean means on a part of their canvas."""
        level, whole, seen = query.level, where.canvas.whole, where.grow(self.radius or 0)
        cleaner = Level.of_log_snr(level.log_snr + 2.0 * math.log(SIDE))
        planes = means.shape[1] - query.x_t.shape[1]
        x_t = means[:, planes:] / math.hypot(level.alpha, level.sigma / SIDE)
        given = means[:, :planes] if planes else None
        noise = None if query.cell_noise is None else Later(query.cell_noise, self._num_masks)
        small = Query(x_t, cleaner, whole, noise, given=given)
        if seen != whole:
            context, x_t = self.context(small), seen.crop(x_t, of=whole)
            given = None if given is None else seen.crop(given, of=whole)
            small = Query(x_t, cleaner, seen, noise, context, given)
        return where.crop(self.estimate(small), of=seen)

    @property
    def _num_masks(self) -> int:
        return sum(stage.num_cell_steps for stage in self._model.stages)

    @property
    def _model(self) -> NCAConfig:
        model = self.config.model
        assert isinstance(model, NCAConfig), "only cells have a Fourier stage"
        return model


class Later(NamedTuple):
    """The masks of later cell steps, for the half: no two canvases of a pyramid have equal ones."""

    noise: CellNoise
    cell_steps: int

    def mask(self, cell_step: int, region: Region, probability: float) -> Bool[Tensor, "b 1 h w"]:
        """Return true where a cell of `region` updates."""
        return self.noise.mask(cell_step + self.cell_steps, region, probability)


def means_of(image: Float[Tensor, "b n h w"]) -> Float[Tensor, "b n v u"]:
    """Return the means over squares; at an odd edge of the canvas, the last pixels count twice.

    The image begins at even places of its canvas.
    """
    height, width = image.shape[-2:]
    image = F.pad(image, (0, width % SIDE, 0, height % SIDE), mode="replicate")
    rows = image[..., ::SIDE, :] + image[..., 1::SIDE, :]
    return (rows[..., ::SIDE] + rows[..., 1::SIDE]) / SIDE**2


def enlarged(means: Float[Tensor, "b n v u"], squares: PatchGrid) -> Float[Tensor, "b n h w"]:
    """Return means over `squares` as the pixels of their bicubic interpolation.

    Sums have one order, so each pixel has equal bits in every region. Other edges than those of a circular
    axis go on as they end.
    """
    cells, (boundary_y, boundary_x) = squares.cells, squares.pixels.canvas.boundary
    rows = places(cells.height, boundary_y == "circular" and cells.is_whole_y).to(means.device)
    columns = places(cells.width, boundary_x == "circular" and cells.is_whole_x).to(means.device)
    means = means.index_select(2, rows).index_select(3, columns)
    pixels = torch.stack(halves_of(means, 2), dim=2)
    pixels = torch.stack(halves_of(pixels, 4), dim=3)
    return squares.scatter(pixels.flatten(1, 3))


def places(length: int, is_joined: bool) -> Int64[Tensor, " n"]:
    """Return the places of a span and of two more on each side."""
    numbers = torch.arange(-NEAR, length + NEAR)
    return numbers % length if is_joined else numbers.clamp(0, length - 1)


def halves_of(means: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the values in the middle of the first and of the second half of each place but the outer two."""
    length = means.shape[dim] - 2 * NEAR
    first, second, third, fourth, fifth = (means.narrow(dim, start, length) for start in range(5))

    def weighted(*each: Tensor) -> Tensor:
        terms = [weight * term for weight, term in zip(CUBIC, each, strict=True)]
        return terms[0] + terms[1] + terms[2] + terms[3]

    return weighted(first, second, third, fourth), weighted(fifth, fourth, third, second)
