"""What is to be sampled: where the walk starts, which noise levels it visits, what is known of the image."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.config import Config
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.samplers import Constrain, Progress, Sampler, Walk, sampler_named
from diffnca.diffusion.schedule import Level, NoiseSchedule
from diffnca.engine import Engine, prepare
from diffnca.geometry import Boundary, Canvas, Region
from diffnca.noise import CellNoise, Noise, Stream
from diffnca.variational.autoencoder import Autoencoder


@dataclass(frozen=True)
class Task:
    """One thing to sample, on a canvas; the same in memory and in tiles.

    Attributes:
        canvas: the image to make.
        levels: the noise levels to visit, noisiest first; the clean end is implied.
        initial: gives the image at `levels[0]` on a region, (region, noise) -> x.
        constrain: imposes what is known after each step; `None` if nothing is.
    """

    canvas: Canvas
    levels: tuple[Level, ...]
    initial: Callable[[Region, Noise], Tensor]
    constrain: Constrain | None = None


@runtime_checkable
class ImageDenoiser(Protocol):
    """What sampling needs to know of a denoiser."""

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        ...

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels that it knows."""
        ...

    @property
    def config(self) -> Config:
        """Its configuration, for the default sampler and number of steps."""
        ...

    @property
    def radius(self) -> int | None:
        """Pixels that one pixel of an estimate can see, the context being given; `None` for all."""
        ...

    @property
    def has_context(self) -> bool:
        """Whether an estimate needs to know something of the whole canvas."""
        ...

    def context(self, x_t: Tensor, level: Level, region: Region) -> Tensor | None:
        """Return what must be known of the whole canvas."""
        ...

    def x_0_estimate(
        self, x_t: Tensor, level: Level, region: Region, noise: CellNoise | None, context: Tensor | None
    ) -> Tensor:
        """Return the estimate of the clean image."""
        ...


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


@runtime_checkable
class HoldsDenoiser(Protocol):
    """A denoiser that is made of another one."""

    def made_ready(self, device: torch.device, engine: Engine) -> ImageDenoiser:
        """Return the same of one that is ready for `device`."""
        ...


def generate(
    model: ImageDenoiser | Autoencoder,
    *,
    height: int,
    width: int,
    region: Region | None = None,
    batch: int | None = None,
    seed: int | Sequence[int] = 0,
    sampler: str | Sampler | None = None,
    steps: int | None = None,
    boundary: tuple[Boundary, Boundary] = ("reflect", "reflect"),
    progress: Progress | None = None,
    device: str | torch.device | None = None,
    engine: Engine = "auto",
) -> Float[Tensor, "b c h w"]:
    """Make images out of noise.

    The walk starts from noise of variance 1, also where the schedule does not reach pure noise, as the
    published models with a linear schedule do. (In training the variance there is between `sigma**2` and 1.)

    Args:
        model: as `diffnca.load` returns it. What is said of steps holds for denoisers; an `Autoencoder` takes
            none, and makes whole images of its one size.
        height: rows in pixels, >= 1.
        width: columns in pixels, >= 1.
        region: the part of the image to make, equal to the crop of the whole. What it takes is computed on a
            region that reaches `radius` px farther for each step; `None` is the whole.
        batch: number of images; `None` is one per seed.
        seed: of the first image, where image i has seed + i; or a list of one seed per image. The same seed
            gives the same image in any batch.
        sampler: `"ddpm"`, `"ddim"`, `"dpmpp2m"` or any `Sampler`; `None` is the choice of the model.
        steps: diffusion steps, from 1 to those of the schedule; `None` is the choice of the model.
        boundary: how the image goes on beyond its edges, (y, x); `"circular"` makes a seamless tile.
        progress: called after each step with the steps done and their number.
        device: where to compute, the model being moved there; `None` is where the model lies.
        engine: `"auto"` runs the network as is fast and exact on the device, `"eager"` as trained, `"fused"`
            by the kernels for NVIDIA GPUs, which have not been run on one yet.

    Returns:
        Images in [-1, 1].

    Raises:
        ValueError: a size, seed, sampler, boundary or number of steps is not allowed, or the model needs to
            see the whole image to make the region.
    """
    canvas = Canvas(_whole("height", height), _whole("width", width), boundary)
    region = canvas.whole if region is None else region
    if region.canvas != canvas:
        raise ValueError(f"region on {region.canvas}: must lie on the canvas of the image, {canvas}")
    place = _place(model, device)
    noise = Noise(_seeds(seed, batch), place)
    if isinstance(model, Autoencoder):
        if sampler is not None or steps is not None:
            raise ValueError(f"model {model.config.name}: must be without sampler and steps; leave them out")
        return _drawn(model, region, noise)
    method, levels = walk_of(model, sampler, steps)
    denoiser = ready(model, place, engine)
    return _run(generation(denoiser, canvas, levels), denoiser, method, noise, region, progress)


def generation(denoiser: ImageDenoiser, canvas: Canvas, levels: tuple[Level, ...]) -> Task:
    """Return the task to make an image out of noise."""
    return Task(canvas, levels, PureNoise(denoiser.image_channels))


def ready(denoiser: ImageDenoiser, device: torch.device, engine: Engine = "auto") -> ImageDenoiser:
    """Return `denoiser` with its network made ready for `device`."""
    if isinstance(denoiser, HoldsDenoiser):
        return denoiser.made_ready(device, engine)
    if not isinstance(denoiser, Denoiser):
        return denoiser
    network = prepare(denoiser.network, device, engine=engine)
    return Denoiser(network, denoiser.schedule, denoiser.config)


def check_parts(denoiser: ImageDenoiser) -> int:
    """Return the radius of a denoiser that can make a part of an image by itself.

    Raises:
        ValueError: it sees the whole image at once.
    """
    if denoiser.radius is None:
        raise ValueError(
            f"model {denoiser.config.name}: must see a finite radius, but takes statistics over the whole "
            "image; take blended windows (--windows), or make it in one piece in memory"
        )
    return denoiser.radius


@torch.no_grad()
def _drawn(model: Autoencoder, region: Region, noise: Noise) -> Float[Tensor, "b c h w"]:
    """Let an autoencoder make images, of its one size.

    Raises:
        ValueError: another size, a part, or a seamless image is asked for.
    """
    size = model.choices.size
    if region != Canvas(size, size).whole:
        raise ValueError(
            f"model {model.config.name}: must make whole images of {size}x{size} px with edges; ask for these"
        )
    return model.draw(noise).clamp(-1.0, 1.0)


@torch.no_grad()
def _run(
    task: Task,
    denoiser: ImageDenoiser,
    sampler: Sampler,
    noise: Noise,
    region: Region,
    progress: Progress | None,
) -> Float[Tensor, "b c h w"]:
    """Sample a region of a task in memory."""
    radius = 0 if region == task.canvas.whole else check_parts(denoiser)
    if radius and denoiser.has_context:
        raise ValueError(
            f"region of {region.height}x{region.width} px: must be the whole canvas for "
            f"{denoiser.config.name}, which looks at the whole image in each step; make the whole and crop it"
        )

    def denoise(x_t: Tensor, level: Level, region: Region, cell_noise: CellNoise) -> Tensor:
        context = denoiser.context(x_t, level, region)
        return denoiser.x_0_estimate(x_t, level, region, cell_noise, context)

    walk = Walk(task.levels, sampler, noise, task.constrain)
    x = task.initial(region.grow(radius * len(task.levels)), noise)
    return walk.run(denoise, x, region, radius, progress=progress)[0].clamp(-1.0, 1.0)


def walk_of(
    denoiser: ImageDenoiser, sampler: str | Sampler | None, steps: int | None
) -> tuple[Sampler, tuple[Level, ...]]:
    """Return the sampler and the levels it visits, by default those of the model."""
    default = denoiser.config.sampling
    sampler = default.sampler if sampler is None else sampler
    method = sampler_named(sampler) if isinstance(sampler, str) else sampler
    steps = default.steps if steps is None else _whole("steps", steps)
    own = default.visited if steps == default.steps else None
    visited = denoiser.schedule.visited(steps) if own is None else own
    return method, tuple(denoiser.schedule.level(index) for index in visited)


def _seeds(seed: int | Sequence[int], batch: int | None) -> tuple[int, ...]:
    """Return one seed per image."""
    if not isinstance(seed, Sequence):
        first, count = _whole("seed", seed), 1 if batch is None else _whole("batch", batch)
        if count < 1:
            raise ValueError(f"batch={batch}: must be >= 1, the number of images to make")
        return tuple(range(first, first + count))
    if batch is not None and batch != len(seed):
        raise ValueError(f"batch={batch} with {len(seed)} seeds: give one seed per image, or no batch")
    return tuple(_whole("seed", each) for each in seed)


def _whole(name: str, value: int) -> int:
    """Return `value` if it is a whole number, of whatever type."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}={value!r}: must be a whole number, without a decimal point") from None


def _place(model: ImageDenoiser | Autoencoder, device: str | torch.device | None) -> torch.device:
    """Return the device to compute on, and move the model there if one is asked for."""
    if isinstance(model, nn.Module):
        if device is not None:
            model.to(device)
        return next((weight.device for weight in model.parameters()), torch.device(device or "cpu"))
    return torch.device(device or "cpu")
