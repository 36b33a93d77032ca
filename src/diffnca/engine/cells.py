"""Cell steps on a CPU: fast, and equal to the bit wherever a cell lies in its image, tile or batch.

The state is kept twice: in float32, and as cells see it, in the type of the matrix products, with the cells
beyond the edges around it. A `Stepper` does the cell step itself for some lines of cells.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int32, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.region import Region, fold
from diffnca.config.networks import CellConfig
from diffnca.engine.layers import LANES, Layers, Layout, Order, Widths, on_single_cells
from diffnca.engine.threads import computing_alone, work_off
from diffnca.networks.cell import CellRule, Modulation, edges
from diffnca.networks.embedding import positions

LARGEST_BLOCK = 1024
"""Most cells of a block, in which torch computes: few enough to stay in the cache."""

SMALLEST_BLOCK = 64
"""Matrix products of fewer rows round differently."""

FEWEST_CELLS = 2048
"""Fewer cells are not divided among threads, which take some time to start."""


class Grid(NamedTuple):
    """Where cells lie in memory: line by line, in the buffers of what cells see with `halo` cells around.

    `stride_y` and `stride_x` lead there from a cell to the next row and to the next column. A line is a row
    of the region, or a column if the region is then better divided into runs of `LANES` cells.
    """

    lines: int
    length: int
    halo: int
    stride_y: int
    stride_x: int

    @classmethod
    def of(cls, region: Region, halo: int) -> "Grid":
        """Return the grid of a region."""
        rows, columns = region.height, region.width
        if columns * -(-rows // LANES) < rows * -(-columns // LANES):
            return cls(columns, rows, halo, 1, rows + 2 * halo)
        return cls(rows, columns, halo, columns + 2 * halo, 1)

    @property
    def is_turned(self) -> bool:
        """Whether lines are columns."""
        return self.stride_y < self.stride_x

    @property
    def pitch(self) -> int:
        """Cells of a line with those around it."""
        return self.length + 2 * self.halo

    def laid(self, planes: Tensor) -> Tensor:
        """Return planes `... y x` line by line, or the other way round."""
        return planes.mT if self.is_turned else planes

    def seen(self, images: int, width: int, dtype: torch.dtype) -> "Seen":
        """Return a buffer of zeros for what cells see; it ends with a run that nobody sees."""
        count = images * (self.lines + 2 * self.halo) * self.pitch
        rows = torch.zeros(count + LANES, width, dtype=dtype)
        around = rows[:count].view(images, -1, self.pitch, width)
        inner = slice(self.halo, self.halo + self.lines), slice(self.halo, self.halo + self.length)
        return Seen(rows, around[:, *inner])


class Seen(NamedTuple):
    """What cells see: all rows of the buffer, and the cells of the images without those around them."""

    rows: Float[Tensor, "r s"]
    inner: Float[Tensor, "b lines length s"]


@dataclass(frozen=True)
class Work:
    """A cell step of some images of equal time, with their memory.

    Attributes:
        images: their numbers in the memory.
        cells: which cells of a line to update at least.
        layers: the layers of this cell step.
        share: what share of its change each cell takes, if `taken` is `None`.
        taken: which cells update.
        state: of all cells, in place.
        now: what cells see.
        next: what cells will see after the cell step; the changed channels are written.
        block_cells: cells of a block, if the step computes in blocks.
    """

    config: CellConfig
    grid: Grid
    widths: Widths
    dilation: int
    images: range
    cells: range
    layers: Layers
    share: float
    taken: UInt8[Tensor, "b lines length"] | None
    state: Float[Tensor, "b lines length c"]
    now: Seen
    next: Seen
    block_cells: int


Modulations = tuple[Modulation, Modulation]
"""Of the perceptions and of the hidden layers of the cells of some lines, as rows."""


@runtime_checkable
class Stepper(Order, Protocol):
    """Code that does cell steps, with matrix products in `dtype`, whose inputs are a multiple of `line`."""

    def surround(self, work: Work, rows: Int32[Tensor, " m"], columns: Int32[Tensor, " n"]) -> None:
        """Copy cells of all images to where they are seen beyond the edges.

        `rows` and `columns` tell of each place, up to the dilation around the grid, which cell is there.
        """

    def step(self, work: Work, lines: range, modulations: Modulations) -> None:
        """Do a cell step for these lines of the images."""


class FastRule:
    """A cell rule, prepared for a CPU. Its weights are copies; prepare a rule again after training it."""

    def __init__(self, rule: CellRule, stepper: Stepper, small_image_cells: int) -> None:
        """Lay out the weights of `rule` for cell steps by `stepper`.

        If possible a block has `small_image_cells` cells. One small image would leave a larger block mostly
        empty.
        """
        self.config, self.channels, self.guidance = rule.config, rule.channels, rule.guidance
        self.dtype, self.stepper = stepper.dtype, stepper
        self.block_cells = min(max(small_image_cells, SMALLEST_BLOCK), LARGEST_BLOCK)
        self.rule = on_single_cells(rule)
        self.layout = Layout(self.rule, stepper)
        self.plain = [self.layout.plain] * self.config.num_cell_steps
        gates = (self.rule.gate_perception, self.rule.gate_hidden)
        self.gates = [copy.deepcopy(gate).to(self.dtype) for gate in gates]

    @contextmanager
    def begin(
        self, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None = None
    ) -> "Iterator[FastCells]":
        """Return the cells before the first cell step; the arguments are those of `cell.Rule.begin`."""
        with torch.inference_mode(False), torch.no_grad(), computing_alone() as num_threads:
            yield FastCells(self, state, t, region, origin, num_threads)

    def clock(self, k: int) -> float:
        """Return what the embedding sees of cell step `k`."""
        return k / self.rule.embedding.period

    def embed(self, numbers: Float[Tensor, "r n"]) -> Float[Tensor, "r e"]:
        """Return the embedding of some cells, from row, column, t and cell step of each cell."""
        embedded: Tensor = self.rule.embedding.features(numbers[:, :, None, None])
        return embedded.flatten(1)

    def blocks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return rows in blocks of one size, the last of them padded with zeros."""
        padded = F.pad(rows, (0, 0, 0, -len(rows) % self.block_cells))
        return torch.split(padded, self.block_cells)

    def modulations(self, embedding: Float[Tensor, "r e"]) -> Modulations:
        """Return the modulations of the perceptions and of the hidden layers of some cells."""
        blocks = [block.to(self.dtype)[:, :, None, None] for block in self.blocks(embedding)]
        perception, hidden = (_joined([gate(block) for block in blocks]) for gate in self.gates)
        return perception, hidden


class Images(NamedTuple):
    """The images of equal time `t`, side by side in memory, with the layers of all their cell steps."""

    t: Float[Tensor, ""]
    numbers: range
    layers: list[Layers]
    embedding: Float[Tensor, "k e"] | None  # of all cells in each cell step, if they know no places

    @property
    def slice(self) -> slice:
        """Where they are in memory."""
        return slice(self.numbers.start, self.numbers.stop)


class FastCells:
    """The cells of a batch of images while they are updated.

    Attributes:
        order: position in the batch of each image here, where images of equal time stand side by side; `None`
            if these are the positions here too.
        cells: the state, line by line.
        now: what cells see; `next`: the same for the next cell step.
        tables: which cells are seen beyond the edges, by dilation; `None` if zeros are.
    """

    def __init__(
        self,
        rule: FastRule,
        state: Float[Tensor, "b a h w"],
        t: Float[Tensor, " b"],
        region: Region,
        origin: tuple[int, int] | None,
        num_threads: int,
    ) -> None:
        self.rule, self.config, self.region, self.num_threads = rule, rule.config, region, num_threads
        dilations, widths = {*self.config.dilations[: self.config.num_cell_steps]}, rule.layout.widths
        self.grid, self.widths = Grid.of(region, max(dilations)), widths
        times, order = t.float().sort(stable=True)
        self.order = None if torch.equal(order, torch.arange(len(t))) else order
        self.cells = torch.zeros(len(state), self.grid.lines, self.grid.length, widths.state)
        self.cells[..., : state.shape[1]] = self.grid.laid(self._sorted(state)).movedim(1, -1)
        self.now, self.next = (self.grid.seen(len(state), widths.stride, rule.dtype) for _ in range(2))
        self.now.inner[..., : widths.state] = self.cells
        self.next.inner[..., : widths.first] = self.cells[..., : widths.first]
        self.tables = {each: self._beyond(each) for each in dilations if self.config.padding != "zeros"}
        places = positions(self.config.positions, region, torch.device("cpu"), origin)
        self.places = None if places is None else self.grid.laid(places).flatten(1).t()
        self.images = [self._images(time, numbers) for time, numbers in alike(times)]

    def state(self) -> Float[Tensor, "b c h w"]:
        """Return the current state."""
        state = self.grid.laid(self.cells[..., : self.rule.channels].movedim(-1, 1))
        return state.clone() if self.order is None else state[self.order.argsort()]

    def advance(self, k: int, mask: Bool[Tensor, "b 1 h w"] | None, needed: Region) -> None:
        """Do cell step `k`; the arguments are those of `cell.Cells.advance`."""
        rule, dilation = self.rule, self.config.dilation(k)
        lines, cells = self._spans(needed)
        taken = (
            None if mask is None else self.grid.laid(self._sorted(mask)[:, 0]).contiguous().view(torch.uint8)
        )
        works = []
        for images in self.images:
            embedding = self._embedded(images, k)
            layers, share = images.layers[k], self.config.update_probability
            work = Work(
                self.config, self.grid, self.widths, dilation, images.numbers, cells, layers, share, taken,
                self.cells, self.now, self.next, rule.block_cells,
            )  # fmt: skip
            works.append((work, embedding))
        if dilation in self.tables:
            rule.stepper.surround(works[0][0], *self.tables[dilation])
        for work, embedding in works:
            work_off(partial(self._step, work, embedding), self._parts(work, lines), self.num_threads)
        self.now, self.next = self.next, self.now

    def _sorted(self, images: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "b ..."]:
        """Return the images of a batch in their order here."""
        return images if self.order is None else images[self.order]

    def _images(self, t: Float[Tensor, ""], numbers: range) -> Images:
        rule, steps = self.rule, self.config.num_cell_steps
        if self.places is not None:
            return Images(t, numbers, rule.plain, None)
        clocks = torch.tensor([rule.clock(k) for k in range(steps)])
        embedding = rule.embed(torch.stack([t.expand(steps), clocks], dim=1))
        return Images(t, numbers, rule.layout.fold(embedding), embedding)

    def _beyond(self, dilation: int) -> list[Int32[Tensor, " n"]]:
        """Return which line, and which cell of it, is seen at each place up to `dilation` cells around."""
        sides = zip((self.region.height, self.region.width), edges(self.region), strict=True)
        axes = [fold(torch.arange(-dilation, side + dilation), side, edge).int() for side, edge in sides]
        return axes[::-1] if self.grid.is_turned else axes

    def _embedded(self, images: Images, k: int) -> Float[Tensor, "cells e"] | None:
        """Show the embedding where cells perceive it; return that of each cell, `None` without places."""
        rule, embedding = self.rule, None
        if self.places is not None:
            clocks = torch.stack([images.t, images.t.new_tensor(rule.clock(k))])
            numbers = torch.cat([self.places, clocks.expand(len(self.places), 2)], dim=1)
            embedding = torch.cat([rule.embed(block) for block in rule.blocks(numbers)])[: len(numbers)]
        if self.config.perceive_embedding:
            shape = self.grid.lines, self.grid.length, -1
            shown = embedding.view(shape) if embedding is not None else images.embedding[k]  # type: ignore[index]
            first = self.widths.state
            self.now.inner[images.slice, ..., first : first + shown.shape[-1]] = shown
        return embedding

    def _spans(self, needed: Region) -> tuple[range, range]:
        """Return the lines of a part of the region, and the cells of these lines."""
        canvas = self.region.canvas
        top, left = (
            (needed.top - self.region.top) % canvas.height,
            (needed.left - self.region.left) % canvas.width,
        )
        spans = range(top, top + needed.height), range(left, left + needed.width)
        return spans[::-1] if self.grid.is_turned else spans

    def _parts(self, work: Work, lines: range) -> list[range]:
        """Return the lines for each piece of work."""
        length = self.grid.length
        if self.places is not None:
            size = max(self.rule.block_cells // length, 1)
        elif self.num_threads == 1 or len(work.images) * len(lines) * length < FEWEST_CELLS:
            size = len(lines)
        else:
            size = -(-len(lines) // (4 * self.num_threads))
        return [range(first, min(first + size, lines.stop)) for first in range(lines.start, lines.stop, size)]

    def _step(self, work: Work, embedding: Float[Tensor, "cells e"] | None, lines: range) -> None:
        modulations = (Modulation(), Modulation())
        if embedding is not None:
            cells = slice(lines.start * self.grid.length, lines.stop * self.grid.length)
            modulations = self.rule.modulations(embedding[cells])
        self.rule.stepper.step(work, lines, modulations)


def alike(t: Float[Tensor, " b"]) -> Iterator[tuple[Float[Tensor, ""], range]]:
    """Yield each diffusion time with its images, which stand side by side."""
    stop = 0
    for time, count in zip(*torch.unique_consecutive(t, return_counts=True), strict=True):
        start, stop = stop, stop + int(count)
        yield time, range(start, stop)


def _joined(modulations: list[Modulation]) -> Modulation:
    """Return modulations of single cells (`r c 1 1`), block after block, as one modulation of rows."""
    parts = zip(*modulations, strict=True)
    return Modulation(*(None if part[0] is None else torch.cat(part).flatten(1) for part in parts))
