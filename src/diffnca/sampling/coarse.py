"""Maps that a model makes, as given planes of a larger image: classes, colours, and how far to trust colours.

A model that makes maps draws a small image of the complete canvas, with the classes of its places. Places
that a layout knows keep its classes; the model draws the others so that they fit. Another model fills the
map in. The colours are noised, and the cells see by how much, so they can follow colours that are
not quite those of real images [1].

[1] Ho et al., "Cascaded Diffusion Models for High Fidelity Image Generation", 2022, section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from math import lcm

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.walk import Planes, Progress
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.blocks import Axis
from diffnca.sampling.known import Known, KnownClasses
from diffnca.sampling.starts import start_of
from diffnca.sampling.task import Task, radius_on, sample_task, walk_of

TRUST = 0.8
"""How far the colours that a model has made are trusted; training trusts colours from 0.5 to 1."""

TIE = 1e-6
"""Difference of shares, in 255ths, by which a class is put behind that of the number before it."""


def coarse_planes(
    colours: Float[Tensor, "b c y x"], noise: Float[Tensor, "b c y x"], trust: Float[Tensor, " b"]
) -> Float[Tensor, "b c_1 y x"]:
    """Return the planes of the colours of an image, each pixel of which is a square of a larger one.

    `trust` is from 0 (colours are unknown, all planes are 0) to 1 (no noise); it is the last plane. `noise`
    has variance 1, its deviation becomes `1 - trust`.
    """
    trust = trust[:, None, None, None].to(colours)
    shown = trust * (colours + (1.0 - trust) * noise)
    return torch.cat([shown, trust.expand_as(shown[:, :1])], dim=1)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of a part of a canvas, in memory, as a function of the region."""

    pixels: UInt8[Tensor, "b c y x"]
    part: Region

    def __call__(self, region: Region) -> UInt8[Tensor, "b c h w"]:
        """Return the pixels of a region within the part."""
        return region.crop(self.pixels, self.part)


@dataclass(frozen=True, eq=False)
class MadeMap:
    """A small image with the planes of its classes, as the given planes of the image that it lays out.

    Attributes:
        pixels: the small image with its planes, as a function of the region.
        noise: the numbers of the images.
        colours: channels of the small image; planes of its classes follow.
        factor: how many times smaller it is.
        layout: known classes, by which the large image goes; `None` if no class is known.
    """

    pixels: Callable[[Region], UInt8[Tensor, "b c h w"]]
    noise: Noise
    colours: int
    factor: int
    layout: Planes | None = None

    def __call__(self, region: Region) -> Float[Tensor, "b k h w"]:
        """Return the planes on a region of the large image: of its classes, colours and their trust."""
        cells = covered(region, self.factor)
        around = cells.grow(1)
        pixels = self.pixels(around)
        classes = largest_shares(pixels[:, self.colours :], around, region, self.factor)
        if self.layout is not None:
            known = self.layout(region).to(classes)
            classes = torch.where(known.sum(dim=1, keepdim=True) > 0.5, known, classes)
        own = 2.0 * cells.crop(pixels[:, : self.colours], around) / 255.0 - 1.0
        noise = self.noise.normal(Stream.COARSE, 0, cells, self.colours)
        planes = coarse_planes(own.to(noise), noise, torch.full((len(noise),), TRUST))
        return torch.cat([classes, PatchGrid(region, self.factor).spread(planes).to(classes)], dim=1)


def make_map(
    maker: ImageDenoiser,
    denoiser: ImageDenoiser,
    region: Region,
    num_steps: int,
    noise: Noise,
    progress: Progress | None = None,
    layout: Planes | None = None,
    given: Planes | None = None,
) -> MadeMap:
    """Return the map that `maker` draws, as far as `num_steps` of the denoiser see around a region.

    The maker keeps the known classes of a layout, and sees the planes of `given`.
    """
    config = denoiser.config
    check_maker(maker.config, config)
    check_sides(region.canvas, maker.config, config)
    seen = region.grow(radius_on(denoiser, region) * num_steps)
    part = covered(seen, config.layout.coarse).grow(1)
    method, levels = walk_of(maker, None, None)
    task = completing(Task(part.canvas, levels, start_of(maker), given=given), layout, maker.config)
    drawn = sample_task(task, maker, method, noise, part, progress)
    pixels = torch.from_numpy(to_uint8(drawn)).movedim(-1, 1)
    return map_of(config, Pixels(pixels, part), noise, layout)


def map_of(
    config: Config,
    pixels: Callable[[Region], UInt8[Tensor, "b c h w"]],
    noise: Noise,
    layout: Planes | None = None,
) -> MadeMap:
    """Return what a model of `config` sees of the pixels of a map, and of the layout that it completes."""
    own = replace(noise, device="cpu")
    return MadeMap(pixels, own, config.model.image_channels, config.layout.coarse, layout)


def completing(task: Task, layout: Planes | None, config: Config) -> Task:
    """Return the task of a new image; a model that makes maps keeps the known classes of a layout."""
    if layout is None or not config.layout.made:
        return task
    known = KnownClasses(layout, config.model.image_channels)
    return replace(task, initial=Known(task.initial, known, task.levels[0]), constraint=known)


def check_maker(maker: Config, config: Config) -> None:
    """Refuse a model that makes no maps, or other maps than a model of `config` follows."""
    if not config.layout.coarse:
        raise ValueError("maker: must be left out for a model that knows no coarse colours")
    if not maker.layout.made:
        raise ValueError("maker: must be a model that makes maps, and this one makes none")
    found = (maker.layout.names, maker.model.image_channels)
    if found != (config.layout.names, config.model.image_channels):
        classes = ", ".join(maker.layout.names)
        raise ValueError(
            f"maker: makes maps of {classes}: must be of {', '.join(config.layout.names)}, and in "
            "the colours of the image"
        )


def check_sides(canvas: Canvas, maker: Config, config: Config) -> None:
    """Refuse circular sides that the cells of the image or of its map do not divide."""
    assert isinstance(maker.model, NCAConfig)
    assert isinstance(config.model, NCAConfig)
    on_map = config.layout.coarse * maker.model.largest_cell_px
    canvas.require_multiples(lcm(on_map, config.model.largest_cell_px))


def covered(region: Region, factor: int) -> Region:
    """Return the part of the small canvas whose pixels a region touches; refuse a size that does not fit."""
    return PatchGrid(region, factor).cells


def largest_shares(
    shares: UInt8[Tensor, "b k y x"], around: Region, region: Region, factor: int
) -> Float[Tensor, "b k h w"]:
    """Return planes that are 1 for the class of each pixel: that of the largest share between small pixels.

    Shares lie at the middles of squares of `factor` pixels on the part `around` of the small canvas. Between
    them they change linearly.
    """
    small, (boundary_y, boundary_x) = around.canvas, region.canvas.boundary
    rows = Axis(region.top, region.height, factor * small.height, small.height, boundary_y).interpolated()
    columns = Axis(region.left, region.width, factor * small.width, small.width, boundary_x).interpolated()
    corners = [
        shares[:, :, (y - around.top) % small.height][..., (x - around.left) % small.width] * (v[:, None] * u)
        for (y, v), (x, u) in product(rows, columns)
    ]
    mixed = corners[0] + corners[1] + corners[2] + corners[3]  # in this order for any region
    numbers = torch.arange(mixed.shape[1])[:, None, None]
    largest = (mixed - TIE * numbers).argmax(dim=1, keepdim=True)
    return torch.zeros(mixed.shape).scatter_(1, largest, 1.0)
