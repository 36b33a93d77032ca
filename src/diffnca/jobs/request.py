"""An image as somebody asks for it: model, task, canvas, seeds, how to sample.

A request is complete: no choice is left to the model any more. Two requests of equal identity give equal
pixels. Where they are made, and on how many workers, is no part of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import MAX_SEED
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.data.given import Given, mask_of, read_mask
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.schedule import Level
from diffnca.engine import Engine
from diffnca.errors import require
from diffnca.jobs.options import Choices
from diffnca.models.file import find_model, load, load_denoiser, read_config
from diffnca.sampling.denoisers import walk_of
from diffnca.sampling.growth import canvases_of
from diffnca.sampling.guidance import guided
from diffnca.sampling.inpaint import check_mask, completion, margins
from diffnca.sampling.known import KnownPixels, Picture
from diffnca.sampling.task import Task
from diffnca.sampling.upscale import enlarged_canvas, enlargement
from diffnca.sampling.vary import variation
from diffnca.sampling.windows import Blended

MakeTask = Callable[[ImageDenoiser, tuple[Level, ...]], Task]
"""Gives the task, for the model and the levels of its walk from pure noise."""

SEAMLESS: dict[str, tuple[Boundary, Boundary]] = {
    "none": ("reflect", "reflect"),
    "x": ("reflect", "circular"),
    "y": ("circular", "reflect"),
    "both": ("circular", "circular"),
}

MOST_FRAMES = 10_000
"""Frames of a film, at most: they are kept in memory."""

MOST_MILLISECONDS = 60_000
"""Time of a frame, at most; GIF files know no more than eleven minutes."""


@dataclass(frozen=True)
class Weights:
    """The weights of a model.

    Attributes:
        name: of the model as it was given: a bundled one, a file, a run's folder, or a hub id.
        digest: tells its file from any other.
    """

    name: str
    digest: str

    @classmethod
    def of(cls, name: str) -> Weights:
        """Return the weights of a model as they are now."""
        return cls(name, sha256(find_model(name).read_bytes()).hexdigest()[:16])


@dataclass(frozen=True)
class New:
    """A new image.

    Attributes:
        region: the part to make: top, left, height, width; `None` is the whole.
        even_px: side of the squares whose noise starts with one mean; `None` is the model's own choice.
        tone: that mean, one number for each channel; `None` is drawn by the seed.
        grown: height and width of each smaller image out of which this one grows; `None` leaves this to the
            model, until the request is complete.
    """

    region: tuple[int, int, int, int] | None = None
    even_px: int | None = None
    tone: tuple[float, ...] | None = None
    grown: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Repaint:
    """Known pixels are noised as the image is, and each part of the way is walked several times."""

    jump: int
    rounds: int


@dataclass(frozen=True)
class Paste:
    """Known pixels are put in as they are, as published."""

    jump: ClassVar[int] = 1
    rounds: ClassVar[int] = 1


Method = Repaint | Paste


@dataclass(frozen=True)
class Inpaint:
    """Fill holes of an image.

    Attributes:
        given: the image.
        mask: true where to fill.
        method: how the known pixels are imposed.
    """

    given: Given
    mask: Bool[Tensor, "h w"]
    method: Method

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        height, width = self.given.pixels.shape[:2]
        canvas = Canvas(height, width, boundary)
        check_mask(self.mask, height, width)
        name = _name(self.method)
        known = KnownPixels(Picture(self.given.image), self.mask, name == "repaint")
        return canvas, completion(canvas, known, name, self.method.jump, self.method.rounds)


@dataclass(frozen=True)
class Extend:
    """Grow an image at its sides.

    Attributes:
        given: the image.
        top: pixels to add above.
        bottom: pixels to add below.
        left: pixels to add on the left.
        right: pixels to add on the right.
        method: how the known pixels are imposed.
    """

    given: Given
    top: int
    bottom: int
    left: int
    right: int
    method: Method

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        name, sides = _name(self.method), (self.top, self.bottom, self.left, self.right)
        canvas, known = margins(self.given.image, sides, boundary, name)
        known = replace(known, unknown=self.given.holes)
        return canvas, completion(canvas, known, name, self.method.jump, self.method.rounds)


@dataclass(frozen=True)
class Upscale:
    """Make an image larger.

    Attributes:
        given: the image.
        factor: how many times as high and wide.
        method: consistent or noise.
        strength: where the walk starts; `None` is the choice of the method.
    """

    given: Given
    factor: float
    method: Literal["consistent", "noise"]
    strength: float | None

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        canvas = enlarged_canvas(*_opaque(self.given), self.factor, boundary)
        return canvas, enlargement(canvas, self.given.image, self.method, self.strength)


@dataclass(frozen=True)
class Vary:
    """Make an image that is like a given one.

    Attributes:
        given: the image.
        strength: where the walk starts.
    """

    given: Given
    strength: float

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        canvas = Canvas(*_opaque(self.given), boundary)
        return canvas, variation(canvas, self.given.image, self.strength)


@dataclass(frozen=True)
class Interpolate:
    """Make the images between those of two seeds.

    Attributes:
        seeds: those of the first and the last image.
        frames: how many images, the first and the last included.
        milliseconds: time of a frame in a film.
    """

    seeds: tuple[int, int]
    frames: int
    milliseconds: int

    def __post_init__(self) -> None:
        """Refuse films that cannot be."""
        require(2 <= self.frames <= MOST_FRAMES, "frames", self.frames, f"from 2 to {MOST_FRAMES}")
        name, milliseconds = "milliseconds", self.milliseconds
        require(1 <= milliseconds <= MOST_MILLISECONDS, name, milliseconds, f"from 1 to {MOST_MILLISECONDS}")


Edit = Inpaint | Extend | Upscale | Vary


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image, or several that differ by their seeds.

    A field without a default is written into every file; a field with one where it differs from it.

    Attributes:
        model: its weights.
        canvas: of the image.
        guide: the weights of a weaker model that guides it.
        guidance: how far; `None` is the choice of the model, or of the guide.
        windows: side of blended windows; `None` has none.
        engine: how the network runs.
        task: what is made.
        sampler: how a step is taken; `None` for a model that takes no steps.
        steps: diffusion steps from pure noise on.
        seed: of the first image; image i has seed + i.
        compression: of a TIFF file, which may lose something.
        count: how many images.
    """

    model: Weights
    canvas: Canvas
    guide: Weights | None = None
    guidance: float | None = None
    windows: int | None = None
    engine: Engine = "auto"
    task: New | Edit | Interpolate
    sampler: str | None = None
    steps: int | None = None
    seed: int
    compression: Literal["jpeg", "deflate"] | None = None
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse seeds that do not exist, and no image at all."""
        require(self.count >= 1, "count", self.count, ">= 1")
        seeds = self.task.seeds if isinstance(self.task, Interpolate) else (self.seed, self.last_seed)
        for seed in seeds:
            require(0 <= seed <= MAX_SEED, "seed", seed, f"from 0 to {MAX_SEED}, also of the last image")

    @property
    def last_seed(self) -> int:
        """Seed of the last image."""
        return self.seed + self.count - 1

    @property
    def region(self) -> Region:
        """The part of the canvas that is made."""
        part = self.task.region if isinstance(self.task, New) else None
        return self.canvas.whole if part is None else Region(*part, self.canvas)

    def image(self, index: int) -> Request:
        """Return the request of one of the images alone."""
        return replace(self, seed=self.seed + index, count=1)

    def identity(self) -> dict[str, str]:
        """Return what tells the images from others: all fields, but for the name of the model."""
        return {key: value for key, value in self.written().items() if key != "model"}

    def written(self) -> dict[str, str]:
        """Return all fields as text, and theirs in turn."""
        return dict(_written(self))

    def opened(self) -> Any:
        """Return the model on the CPU, as it is sampled; `Any` is a denoiser or an `Autoencoder`."""
        return _opened(self.model, self.guide, self.guidance, self.windows)

    def walk(self) -> tuple[Sampler, tuple[Level, ...]]:
        """Return the sampler, and the levels of the walk from pure noise."""
        return walk_of(self.opened(), self.sampler, self.steps)


def channels_of(model: str) -> int:
    """Return the channels of the images of a model."""
    return read_config(find_model(model)).model.image_channels


def asked(
    model: str,
    task: New | Edit | Interpolate,
    choices: Choices,
    size: tuple[int | None, int | None] = (None, None),
    compression: Literal["jpeg", "deflate"] | None = None,
) -> Request:
    """Return the complete request of what is asked for.

    Args:
        model: a bundled model, a model file, a run's folder, or a hub id.
        task: what to make.
        choices: how to sample; the model makes those that are left open.
        size: height and width of a new image; `None` is the size of the training crops.
        compression: of a TIFF file.

    Raises:
        ValueError: a choice is not allowed.
    """
    guide = None if choices.guide is None else Weights.of(choices.guide)
    weights, boundary = Weights.of(model), SEAMLESS[choices.seamless]
    opened = _opened(weights, guide, choices.guidance, choices.windows)
    if isinstance(task, New | Interpolate):
        height, width = (opened.config.data.crop if side is None else side for side in size)
        canvas = Canvas(height, width, boundary)
    else:
        canvas = _canvas_of_edit(task, boundary)
    sampler, steps = choices.sampler, choices.steps
    if isinstance(opened, Autoencoder):
        if not isinstance(task, New):
            raise ValueError(f"model {model}: must be a denoiser; this one only makes new images")
    else:
        method, levels = walk_of(opened, sampler, steps)
        sampler, steps = method.name, len(levels)  # type: ignore[assignment]
    if isinstance(task, New):
        is_direct = task.grown == () or isinstance(opened, Autoencoder)
        canvases = (canvas,) if is_direct else canvases_of(opened, canvas)
        task = replace(task, grown=tuple((each.height, each.width) for each in canvases[:-1]))
    return Request(
        model=weights,
        canvas=canvas,
        guide=guide,
        guidance=choices.guidance,
        windows=choices.windows,
        engine=choices.engine,
        task=task,
        sampler=sampler,
        steps=steps,
        seed=task.seeds[0] if isinstance(task, Interpolate) else choices.seed,
        compression=compression,
        count=choices.count,
    )


def holes_of(given: Given, mask: Path | None, box: tuple[int, int, int, int] | None) -> Bool[Tensor, "h w"]:
    """Return where to fill an image: the mask or the box, and where the image is not opaque.

    Args:
        given: the image.
        mask: an image that is white where to fill, or a folder of such images.
        box: top, left, height, width.

    Raises:
        ValueError: nothing says where, or two things do.
    """
    if mask is not None and box is not None:
        raise ValueError("--mask and --box: give one of them")
    if box is not None:
        holes = _inside(given, box)
    elif mask is not None:
        path = mask_of(given.path, mask)
        holes = read_mask(path)
        try:
            check_mask(holes, *given.pixels.shape[:2])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    elif given.holes is not None:
        return given.holes
    else:
        raise ValueError(f"{given.path}: is opaque everywhere; say where to fill with --mask or --box")
    return holes if given.holes is None else holes | given.holes


def _inside(given: Given, box: tuple[int, int, int, int]) -> Bool[Tensor, "h w"]:
    """Return where a box lies on an image.

    Raises:
        ValueError: it is empty, or does not lie on the image.
    """
    top, left, rows, columns = box
    height, width = given.pixels.shape[:2]
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
        where = ",".join(map(str, box))
        raise ValueError(f"{given.path}: --box {where}: must lie in the {height}x{width} px of the image")
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top : top + rows, left : left + columns] = True
    return inside


@lru_cache(maxsize=2)
def _opened(model: Weights, guide: Weights | None, guidance: float | None, windows: int | None) -> Any:
    """Return the model of a request on the CPU, as workers may have other devices."""
    if guide is None and guidance is None:
        opened: Any = load(model.name)
    else:
        weaker = None if guide is None else load_denoiser(guide.name)
        opened = guided(load_denoiser(model.name), guidance, weaker)
    if windows is None:
        return opened
    if isinstance(opened, Autoencoder):
        raise ValueError(f"model {model.name}: must be a denoiser for windows={windows}; leave them out")
    return Blended(opened, windows)


def _canvas_of_edit(task: Edit, boundary: tuple[Boundary, Boundary]) -> Canvas:
    """Return the canvas of the result.

    Raises:
        ValueError: the image cannot be edited so; the message names its file.
    """
    try:
        return task.on(boundary)[0]
    except ValueError as error:
        raise ValueError(f"{task.given.path}: {error}") from None


def _opaque(given: Given) -> tuple[int, int]:
    """Return the height and width of an image without holes.

    Raises:
        ValueError: it has some.
    """
    if given.holes is not None:
        raise ValueError("is not opaque everywhere; flatten it, or fill it with `diffnca inpaint`")
    height, width = given.pixels.shape[:2]
    return height, width


def _written(record: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record as text, but those that are as their default."""
    for each in fields(record):
        value = getattr(record, each.name)
        if each.default is MISSING or value != each.default:
            yield from _texts(each.name, value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield a value as text, by the keys that files have."""
    match name, value:
        case "model", Weights():
            yield from (("model", value.name), ("weights", value.digest))
        case _, Weights():
            yield name, f"{value.name} {value.digest}"
        case _, Canvas():
            yield "seamless", next(key for key, boundary in SEAMLESS.items() if boundary == value.boundary)
            yield from (("height", str(value.height)), ("width", str(value.width)))
        case _, Given():
            yield "image", _fingerprint(value.pixels)
            if value.holes is not None:
                yield "mask", _fingerprint(value.holes.numpy())
        case _, Tensor():
            yield name, _fingerprint(value.numpy())
        case "guidance", _:
            yield name, f"{value:g}"
        case "region", _:
            yield name, ",".join(map(str, value))
        case "grown", _:
            if value:
                yield name, ", ".join(f"{height}x{width}" for height, width in value)
        case _, New():
            yield from _written(value)
        case _ if is_dataclass(value):
            yield name, _name(value)
            yield from _written(value)
        case _:
            yield name, str(value)


def _name(record: object) -> str:
    return type(record).__name__.lower()


def _fingerprint(array: np.ndarray) -> str:
    """Return what tells an array from another of the same shape."""
    return sha256(array.tobytes()).hexdigest()[:16]
