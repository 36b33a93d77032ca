"""What can be asked for: new images, and what is done to given ones. A new task is one dataclass here."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from diffnca.canvas.region import Boundary, Canvas
from diffnca.data.given import Given, companion_of, read_mask
from diffnca.data.styles import Style
from diffnca.errors import number, require_within
from diffnca.sampling.inpaint import check_mask, completion, margins
from diffnca.sampling.known import KnownPixels, Picture
from diffnca.sampling.layouts import Layout, check_obey
from diffnca.sampling.maps import sides_of
from diffnca.sampling.task import MakeTask
from diffnca.sampling.upscale import enlarged_canvas, enlargement
from diffnca.sampling.vary import variation

MOST_FRAMES, MOST_MILLISECONDS = 10_000, 60_000
"""Frames of a film are kept in memory; GIF files know no more than eleven minutes."""


DRAWN_STRENGTH = 0.75
"""Start of the walk from a flat drawing: colours become texture, and places stay."""


@dataclass(frozen=True, kw_only=True)
class Led:
    """What leads the model in a task.

    Attributes:
        layout: what stands where; `None` leaves it to the seed.
        label: what the image shows, one of the names that the model knows; `None` leaves it to the seed.
        like: the style; `None` leaves it to the seed, or to the given image.
        obey: how closely the model follows layout and label, as for `generate`.
    """

    layout: Layout | None = None
    label: str | None = None
    like: Style | None = None
    obey: float = 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels that the task names."""
        return () if self.label is None else (self.label,)

    @property
    def is_led(self) -> bool:
        """Whether there is something to obey."""
        return self.layout is not None or self.label is not None

    @property
    def styles(self) -> Float64[Tensor, "1 s"] | None:
        """The style as sampling takes it."""
        return None if self.like is None else torch.tensor([self.like], dtype=torch.float64)

    def __post_init__(self) -> None:
        check_obey(self.obey, has_layout=True)


@dataclass(frozen=True)
class New(Led):
    """A new image.

    Attributes:
        region: the part to make: top, left, height, width; `None` is the whole.
        even_px, tone: as for `generate`; `None` leaves them to the model and to the seed.
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


def steps_of(method: Method) -> tuple[str, int, int]:
    """Return name, jump and rounds of a method."""
    return name_of(method), method.jump, method.rounds


@dataclass(frozen=True)
class Inpaint(Led):
    """Fill an image where `mask` is true; `method` says how the known pixels are imposed."""

    given: Given
    mask: Bool[Tensor, "h w"]
    method: Method

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        height, width = self.given.pixels.shape[:2]
        canvas = Canvas(height, width, boundary)
        check_mask(self.mask, height, width)
        known = KnownPixels(Picture(self.given.image), self.mask, name_of(self.method) == "repaint")
        return canvas, completion(canvas, known, *steps_of(self.method))


@dataclass(frozen=True)
class Extend(Led):
    """Grow an image at its sides, by so many pixels."""

    given: Given
    top: int
    bottom: int
    left: int
    right: int
    method: Method

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        sides = (self.top, self.bottom, self.left, self.right)
        canvas, known = margins(self.given.image, sides, boundary, name_of(self.method))
        known = replace(known, unknown=self.given.holes)
        return canvas, completion(canvas, known, *steps_of(self.method))


@dataclass(frozen=True)
class Upscale(Led):
    """Make an image `factor` times as high and wide; a `strength` of `None` is the choice of the method."""

    given: Given
    factor: float
    method: Literal["consistent", "noise"]
    strength: float | None

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        canvas = enlarged_canvas(*_opaque(self.given), self.factor, boundary)
        return canvas, enlargement(canvas, self.given.image, self.method, self.strength)


@dataclass(frozen=True)
class Vary(Led):
    """Make an image that is like a given one, stretched to a `size`; the walk starts at `strength`."""

    given: Given
    strength: float
    size: tuple[int, int] | None = None

    def on(self, boundary: tuple[Boundary, Boundary]) -> tuple[Canvas, MakeTask]:
        """Return the canvas of the result, and what gives the task."""
        own = _opaque(self.given)
        canvas = Canvas(*(self.size or own), boundary)
        return canvas, variation(canvas, self.given.image, self.strength)


@dataclass(frozen=True)
class Interpolate(Led):
    """Make `frames` images from that of the first seed to that of the second, both included.

    The first image shows `label`, the last one `last_label`; `None` is `label` too.
    """

    seeds: tuple[int, int]
    frames: int = number(within=(2, MOST_FRAMES))
    milliseconds: int = number(within=(1, MOST_MILLISECONDS))
    last_label: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the two images; one for both, or none."""
        return super().labels if self.last_label is None else (*super().labels, self.last_label)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(self, "")


def drawn(given: Given, height: int | None, width: int | None) -> Vary:
    """Return the task to make an image out of a flat drawing; sides are as for a layout."""
    own = given.pixels.shape[0], given.pixels.shape[1]
    size = sides_of(own, height, width)
    return Vary(given, DRAWN_STRENGTH, None if size == own else size)


Edit = Inpaint | Extend | Upscale | Vary


def holes_of(given: Given, mask: Path | None, box: tuple[int, int, int, int] | None) -> Bool[Tensor, "h w"]:
    """Return where to fill an image: in the mask, in the box, and where it is not opaque.

    A mask is white where to fill; it may lie in a folder of masks. A box is top, left, height, width.
    """
    holes = [] if given.holes is None else [given.holes]
    if box is not None:
        holes.append(_inside(given, box))
    if mask is not None:
        path = companion_of(given.path, mask, "mask")
        holes.append(read_mask(path))
        try:
            check_mask(holes[-1], *given.pixels.shape[:2])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if not holes:
        raise ValueError(f"{given.path}: is opaque everywhere; say where to fill with --mask or --box")
    return torch.stack(holes).any(dim=0)


def _inside(given: Given, box: tuple[int, int, int, int]) -> Bool[Tensor, "h w"]:
    top, left, rows, columns = box
    height, width = given.pixels.shape[:2]
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
        where = ",".join(map(str, box))
        raise ValueError(f"{given.path}: --box {where}: must lie in the {height}x{width} px of the image")
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top : top + rows, left : left + columns] = True
    return inside


def _opaque(given: Given) -> tuple[int, int]:
    """Return the height and width of an image; refuse one with holes."""
    if given.holes is not None:
        raise ValueError("is not opaque everywhere; flatten it, or fill it with `diffnca inpaint`")
    height, width = given.pixels.shape[:2]
    return height, width


def name_of(record: object) -> str:
    """Return the name of a kind of record, as files have it."""
    return type(record).__name__.lower()
