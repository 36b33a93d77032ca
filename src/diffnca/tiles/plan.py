"""The cost of an image in tiles: sweeps, pixels computed twice, memory, disk and time.

A sweep moves every tile one or more steps on (`fused`). Each step needs `radius` px more around the tile,
which neighbouring tiles compute too. Within a step, each stage s of the network reaches fewer pixels around a
tile, the longer it lasts: from f_s to l_s. The stages on halves of the canvas count, too. Each sweep reads
and writes the whole image; the first sweep draws it, and the last one finishes it. Let c be the seconds per
pixel of a step, p_s the share of a stage, and b the seconds per pixel read or written. With A(n) for the area
of a tile grown by n, a sweep of m steps costs about

    sum over tiles of sum over s, k < m of c * p_s * (A(k * r + f_s) + A(k * r + l_s)) / 2
                    + b * (A(m * r) + A(0))

`make_plan` takes the m with the lowest cost of all sweeps. But a tile may not work longer than
`PATIENCE_SECONDS`. A canvas of one tile has no halo, so all its steps are one sweep, in memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from diffnca.canvas.region import Canvas, Region, grow_span
from diffnca.config.networks import StageWork

TILE_OVERHEAD = 0.08
"""Extra share that a tile of the default side computes for its halo, up to `LARGEST_TILE_PX`."""

LARGEST_TILE_PX = 4096

PATIENCE_SECONDS = 30.0
"""Longest work on a tile before it is kept; stopping loses all later work."""

MOST_OVERHEAD = 0.4
"""Largest extra share of smaller tiles, which a slow machine needs to keep a tile in time."""


@dataclass(frozen=True)
class Rates:
    """Seconds per pixel of each kind of work.

    Attributes:
        compute: a diffusion step.
        transfer: to read or write a state.
        draw: to draw the image at the first level.
        finish: to bring the image into 8 bits, compress it and reduce it to its smaller levels.
    """

    compute: float = 5e-6
    transfer: float = 5e-8
    draw: float = 0.0
    finish: float = 1.5e-7


@dataclass(frozen=True)
class Plan:
    """How to make an image in tiles: arguments of `make_plan`, and the most steps of a sweep (`fused`).

    Without `stages`, all that a step computes reaches `radius` px around a tile.
    """

    canvas: Canvas
    tile_px: int
    radius: int
    steps: int
    fused: int
    numbers: int
    rates: Rates
    shard_px: int = 1
    stages: tuple[StageWork, ...] = ()

    def side(self, sweep: range) -> int:
        """Return the side of the tiles of a sweep; tiles of the last sweep are unions of shards."""
        if sweep.stop < self.steps:
            return self.tile_px
        return self.shard_px * math.ceil(self.tile_px / self.shard_px)

    def tiles(self, sweep: range) -> list[Region]:
        """Return the tiles of a sweep, row by row."""
        side = self.side(sweep)
        return list(self.canvas.whole.tiles(side, side))

    @property
    def num_tiles(self) -> int:
        """Number of tiles of `tile_px`."""
        return math.ceil(self.canvas.height / self.tile_px) * math.ceil(self.canvas.width / self.tile_px)

    @property
    def sweeps(self) -> list[range]:
        """The steps of each sweep."""
        return parts_of(range(self.steps), self.fused)

    @property
    def pixels(self) -> float:
        """Pixels that all denoiser calls together compute; a stage counts by its share."""
        return sum(self._computed(sweep) for sweep in self.sweeps)

    @property
    def overhead(self) -> float:
        """Share of `pixels` beyond those of one tile as large as the canvas."""
        return self.pixels / (self.calls_per_px * self.canvas.whole.area * self.steps) - 1.0

    @property
    def calls_per_px(self) -> float:
        """Work on a pixel in a step, in calls of the network alone; more than 1 if there are halves."""
        return sum(each.share for each in self._works)

    @property
    def seconds_per_px(self) -> float:
        """Time of a step for a pixel, if nothing is computed twice."""
        return self.rates.compute * self.calls_per_px

    @property
    def seconds(self) -> float:
        """Time of all sweeps with one worker."""
        return sum(self.seconds_of(sweep) for sweep in self.sweeps)

    def seconds_of(self, sweep: range) -> float:
        """Return the time of one sweep with one worker."""
        around = self._around(sweep)
        begin = self.rates.transfer * around if sweep.start else self.rates.draw * around
        end = self.rates.transfer if sweep.stop < self.steps else self.rates.finish
        return begin + self.rates.compute * self._computed(sweep) + end * self.canvas.whole.area

    @property
    def seconds_of_tile(self) -> float:
        """Longest time of one tile in a sweep."""
        return self.seconds_per_px * self.largest.area * self.fused

    @property
    def disk_bytes(self) -> int:
        """Disk space of the states: two at a time, fewer if there are one or two sweeps."""
        return min(len(self.sweeps) - 1, 2) * 4 * self.numbers * self.canvas.whole.area

    @property
    def largest(self) -> Region:
        """A region as large as the largest region that is computed at once."""
        reach = self.radius * self.fused
        heights, widths = _sides(self.canvas, max(self.side(sweep) for sweep in self.sweeps), reach)
        return Region(0, 0, max(heights), max(widths), self.canvas)

    @property
    def _works(self) -> tuple[StageWork, ...]:
        return self.stages or (StageWork(1.0, self.radius, self.radius),)

    def _computed(self, sweep: range) -> float:
        side = self.side(sweep)
        works = [each.beside(self.radius * later) for later in range(len(sweep)) for each in self._works]
        return sum(
            each.share * _grown_area(self.canvas, side, reach) / 2.0
            for each in works
            for reach in (each.first_px, each.last_px)
        )

    def _around(self, sweep: range) -> int:
        """Return how many pixels the tiles of a sweep begin with, all together."""
        return _grown_area(self.canvas, self.side(sweep), self.radius * len(sweep))


def make_plan(
    canvas: Canvas,
    tile_px: int | None,
    radius: int,
    steps: int,
    numbers: int,
    has_context: bool,
    rates: Rates,
    shard_px: int = 1,
    stages: tuple[StageWork, ...] = (),
) -> Plan:
    """Return the plan that costs least; `tile_px=None` takes the default side for this machine.

    `radius` is the pixels that one step sees, `stages` what it computes, and `numbers` the floats per pixel
    of a state. A network with a context, which each step sums over the canvas, takes one step per sweep in
    several tiles.
    """
    if tile_px is None:
        tile_px = default_tile(canvas, radius, shard_px, rates.compute)
    is_whole = tile_px >= max(canvas.height, canvas.width)
    possible = range(1, 2 if has_context and not is_whole else steps + 1)
    own = (numbers, rates, shard_px, stages)
    plans = [Plan(canvas, tile_px, radius, steps, fused, *own) for fused in possible]
    quick = [plan for plan in plans if plan.seconds_of_tile <= PATIENCE_SECONDS]
    return min(quick or plans[:1], key=lambda plan: plan.seconds)


def parts_of(steps: range, fused: int) -> list[range]:
    """Return `steps` in the fewest parts of at most `fused` steps, as even as possible."""
    count = math.ceil(len(steps) / fused)
    cuts = [steps.start + part * len(steps) // count for part in range(count + 1)] if count else []
    return [range(first, last) for first, last in pairwise(cuts)]


def default_tile(canvas: Canvas, radius: int, unit_px: int, seconds_per_px: float = 0.0) -> int:
    """Return the side of tiles, a multiple of `unit_px`, whose halo costs few pixels.

    Slow machines get smaller tiles, down to an extra share of `MOST_OVERHEAD`. A step of a tile then takes at
    most `PATIENCE_SECONDS`.
    """
    enough = 2 * radius / (math.sqrt(1.0 + TILE_OVERHEAD) - 1.0)
    longer = max(canvas.height, canvas.width)
    side = _even(longer, unit_px, min(enough, float(LARGEST_TILE_PX)))
    least = 2 * radius / (math.sqrt(1.0 + MOST_OVERHEAD) - 1.0)
    while side > unit_px and seconds_per_px * min(side + 2 * radius, longer) ** 2 > PATIENCE_SECONDS:
        smaller = _even(longer, unit_px, side / 2)
        if smaller < least or smaller == side:
            break
        side = smaller
    return side


def _even(longer: int, unit_px: int, wanted: float) -> int:
    largest = unit_px * max(1, min(math.ceil(wanted / unit_px), LARGEST_TILE_PX // unit_px))
    return unit_px * math.ceil(longer / math.ceil(longer / largest) / unit_px)


@lru_cache(maxsize=10_000)  # a plan of many steps repeats its questions
def _grown_area(canvas: Canvas, tile_px: int, reach: int) -> int:
    heights, widths = _sides(canvas, tile_px, reach)
    return sum(heights) * sum(widths)


def _sides(canvas: Canvas, tile_px: int, reach: int) -> Iterator[list[int]]:
    """Yield the heights of all rows of grown tiles, then the widths of all columns."""
    for size, boundary in zip((canvas.height, canvas.width), canvas.boundary, strict=True):
        tiles = ((start, min(tile_px, size - start)) for start in range(0, size, tile_px))
        yield [grow_span(*tile, reach, size, boundary)[1] for tile in tiles]
