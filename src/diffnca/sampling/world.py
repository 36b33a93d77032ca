"""A world: a canvas of any size whose pixels are made where they are wanted, and kept level by level.

A pixel of one level comes from pixels of the level before, within the radius of a step. So a region far out
on a canvas begins with `radius * steps` px more on each side. A world keeps what it has made of each level,
in blocks. A region beside it then needs the radius once a step.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser, estimate_alone
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.walk import Progress
from diffnca.errors import require
from diffnca.sampling.arguments import undisturbed
from diffnca.sampling.task import Task, check_canvas, check_parts

BLOCK_PX = 32
"""Side of a block: what is computed, kept and thrown away as a whole."""

Place = tuple[int, int]
"""Row and column of a block."""


class Blocks(NamedTuple):
    """A rectangle of blocks; on a circular axis it may hang over the edge of the canvas."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def over(cls, region: Region) -> "Blocks":
        """Return the blocks that a region touches; each block of an axis counts once."""
        canvas = region.canvas
        top, height = _touched(region.top, region.height, canvas.height)
        left, width = _touched(region.left, region.width, canvas.width)
        return cls(top, left, height, width)

    def on(self, canvas: Canvas) -> Region:
        """Return the pixels of the blocks."""
        top, height = _held(self.top, self.height, canvas.height, canvas.boundary[0])
        left, width = _held(self.left, self.width, canvas.width, canvas.boundary[1])
        return Region(top, left, height, width, canvas)

    @property
    def rows(self) -> range:
        """The rows of the blocks."""
        return range(self.top, self.top + self.height)

    @property
    def columns(self) -> range:
        """The columns of the blocks."""
        return range(self.left, self.left + self.width)


class World:
    """Makes regions of a canvas where they are wanted, and keeps finished parts of each level.

    Its pixels are those of a complete image, to the bit if an engine runs the model on a CPU. It keeps
    `kept_bytes` at most between calls; what was not read for longest is dropped first. It serves one thread.
    """

    def __init__(
        self, task: Task, denoiser: ImageDenoiser, sampler: Sampler, noise: Noise, kept_bytes: int
    ) -> None:
        """Begin a world in which nothing is made yet; `denoiser` is prepared for the device of `noise`.

        Raises:
            ValueError: the model must see the whole canvas, or the canvas does not fit it.
        """
        check_world(denoiser, task.canvas)
        require(kept_bytes >= 0, "kept_bytes", kept_bytes, ">= 0")
        self.canvas, self.kept_bytes = task.canvas, kept_bytes
        self.task, self.sampler, self.noise = task, sampler, noise
        self.estimate = partial(estimate_alone, denoiser)
        self.walk, self.radius = task.walk(sampler, noise), check_parts(denoiser) + task.reach
        self.known: OrderedDict[tuple[int, Place], Tensor] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Memory of all that is kept."""
        return sum(block.nbytes for block in self.known.values())

    @undisturbed()
    def pixels(
        self, top: int, left: int, height: int, width: int, progress: Progress | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Return the finished pixels of a region, in [-1, 1]; make what is not there.

        A circular axis goes on beyond its ends: `top` or `left` may be any number there. `progress` is called
        after each level with its number and the number of all levels.
        """
        region, last = Region(top, left, height, width, self.canvas), len(self.task.levels)
        for level, parts in enumerate(self._missing(region), start=1):
            for part in parts:
                self._make(level, part)
            if progress is not None:
                progress(level, last)
        image = self._read(last, region)
        self._forget()
        return image.clamp(-1.0, 1.0)

    def _missing(self, region: Region) -> list[list[Blocks]]:
        """Return what to make of each level, the first level first, so that a region gets finished."""
        last, wanted, missing = len(self.task.levels), [region], list[list[Blocks]]()
        for level in range(last, 0, -1):
            places = dict[tuple[int, Place], Place]()  # around an edge, a block has several places
            for blocks in map(Blocks.over, wanted):
                for place in product(blocks.rows, blocks.columns):
                    places.setdefault(self._key(level, place), place)
            missing.append(list(rectangles(place for key, place in places.items() if key not in self.known)))
            wanted = [blocks.on(self.canvas).grow(self.radius) for blocks in missing[-1]]
        return missing[::-1]

    def _make(self, level: int, blocks: Blocks) -> None:
        """Make blocks of a level from the level before."""
        region = blocks.on(self.canvas)
        around = region.grow(self.radius)
        x, remembered = self._before(level - 1, around)
        steps = range(level - 1, level)
        x, memory = self.walk.run(self.estimate, x, region, self.radius, steps, remembered)
        if self._has_estimate(level):
            x = torch.cat([x, x if memory is None else memory.x_0_estimate], dim=1)
        for row, column in product(blocks.rows, blocks.columns):
            y, x_first = (row - blocks.top) * BLOCK_PX, (column - blocks.left) * BLOCK_PX
            block = x[..., y : y + BLOCK_PX, x_first : x_first + BLOCK_PX]
            self.known[self._key(level, (row, column))] = block.clone()

    def _before(self, level: int, region: Region) -> tuple[Tensor, Tensor | None]:
        """Return a level, and the estimate that the sampler remembers, on a region that is known."""
        if level == 0:
            return self.task.initial(region, self.noise), None
        state = self._read(level, region)
        if not self._has_estimate(level):
            return state, None
        x, remembered = state.chunk(2, dim=1)
        return x, remembered

    def _has_estimate(self, level: int) -> bool:
        return self.sampler.is_multistep and level < len(self.task.levels)

    def _read(self, level: int, region: Region) -> Tensor:
        blocks = Blocks.over(region)
        lines = [[self._block(level, (row, column)) for column in blocks.columns] for row in blocks.rows]
        joined = torch.cat([torch.cat(line, dim=-1) for line in lines], dim=-2)
        return region.crop(joined, of=blocks.on(self.canvas))

    def _block(self, level: int, place: Place) -> Tensor:
        key = self._key(level, place)
        self.known.move_to_end(key)
        return self.known[key]

    def _key(self, level: int, place: Place) -> tuple[int, Place]:
        """Return by what a block is known: its row and column are counted from the corner of the canvas."""
        row, column = place
        return level, (row % -(-self.canvas.height // BLOCK_PX), column % -(-self.canvas.width // BLOCK_PX))

    def _forget(self) -> None:
        held = self.held_bytes
        while held > self.kept_bytes:
            held -= self.known.popitem(last=False)[1].nbytes


def rectangles(places: Iterable[Place]) -> Iterator[Blocks]:
    """Yield blocks as few rectangles: runs of a row, joined with equal runs below."""
    rows: dict[int, list[int]] = {}
    for row, column in sorted(places):
        rows.setdefault(row, []).append(column)
    growing: dict[tuple[int, int], Blocks] = {}
    for row, columns in rows.items():
        before, growing = growing, {}
        for left, width in _runs(columns):
            above = before.get((left, width))
            if above is not None and above.rows.stop == row:
                growing[left, width] = before.pop((left, width))._replace(height=above.height + 1)
            else:
                growing[left, width] = Blocks(row, left, 1, width)
        yield from before.values()
    yield from growing.values()


def check_world(denoiser: ImageDenoiser, canvas: Canvas) -> None:
    """Refuse a model that must see its whole canvas, and a circular axis that is no number of blocks."""
    check_canvas(denoiser, canvas)
    check_parts(denoiser)
    if denoiser.has_context:
        raise ValueError(
            "the model looks at the whole image in each step, so a part cannot be made "
            "alone; take diffnca.generate"
        )
    canvas.require_multiples(BLOCK_PX)


def _runs(columns: list[int]) -> Iterator[tuple[int, int]]:
    """Yield first and length of each run of consecutive numbers."""
    first = 0
    for index in range(1, len(columns) + 1):
        if index == len(columns) or columns[index] != columns[index - 1] + 1:
            yield columns[first], index - first
            first = index


def _touched(start: int, length: int, size: int) -> tuple[int, int]:
    """Return the first block and the number of blocks that a span touches, at most all of the axis."""
    first, end, count = start // BLOCK_PX, -(-(start + length) // BLOCK_PX), -(-size // BLOCK_PX)
    return (0, count) if end - first >= count else (first, end - first)


def _held(first: int, count: int, size: int, boundary: Boundary) -> tuple[int, int]:
    """Return start and length of the pixels of some blocks; the last block of an axis may be smaller."""
    start = first * BLOCK_PX
    return start, min(count * BLOCK_PX, size if boundary == "circular" else size - start)
