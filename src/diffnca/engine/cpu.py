"""Cell steps on a CPU: fast, and equal to the bit wherever a cell lies in its image, tile or batch.

Matrix products, sums and exponentials may round differently in the last rows of an array, and with other
numbers of threads. So blocks have a fixed, padded number of cells, and one thread computes a block.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.region import Region, fold
from diffnca.engine.layers import Layers, lay_out, on_single_cells
from diffnca.engine.threads import computing_alone, work_off
from diffnca.networks.cell import NORMALISATION_EPSILON, CellRule, Modulation, edges, modulate
from diffnca.networks.embedding import positions

LARGEST_BLOCK = 1024
"""Cells of a block: enough for the full rate of the matrix products, few enough to stay in the cache."""

SMALLEST_BLOCK = 64
"""Matrix products of fewer rows round differently."""

BEYOND = -(2**31)
"""A number below all cell numbers, even after an offset is added."""


class BlockedRule:
    """A cell rule, prepared for a CPU. Its weights are copies; prepare a rule again after training it."""

    def __init__(self, rule: CellRule, dtype: torch.dtype, small_image_cells: int) -> None:
        """Lay out the weights of `rule` for matrix products in `dtype`, float32 or bfloat16.

        If possible a block has `small_image_cells` cells. One small image would leave a larger block mostly
        empty.
        """
        self.config, self.channels, self.guidance = rule.config, rule.channels, rule.guidance
        self.dtype, self.block_cells = dtype, min(max(small_image_cells, SMALLEST_BLOCK), LARGEST_BLOCK)
        self.rule = on_single_cells(rule)
        gates = (self.rule.gate_perception, self.rule.gate_hidden)
        self.gates = [copy.deepcopy(gate).to(dtype) for gate in gates]
        self.first_written = int(self.rule.writable.flatten().argmax())
        self.laid_out: dict[int, Layers] = {}

    def layers_for(self, active: int) -> Layers:
        """Return the layers for states that are zero from channel `active` on."""
        if active not in self.laid_out:
            self.laid_out[active] = lay_out(self.rule, active, self.first_written)
        return self.laid_out[active]

    @contextmanager
    def begin(
        self, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None = None
    ) -> "Iterator[BlockedCells]":
        """Return the cells before the first cell step; the arguments are those of `cell.Rule.begin`."""
        with torch.inference_mode(False), torch.no_grad(), computing_alone() as num_threads:
            yield BlockedCells(self, state, t, region, origin, num_threads)

    def embed(self, numbers: Float[Tensor, "r n"]) -> Float[Tensor, "r e"]:
        """Return the embedding of a block of cells, from row, column, t and cell step of each cell."""
        embedded: Tensor = self.rule.embedding.features(numbers[:, :, None, None])
        return embedded.flatten(1)

    def fold(self, layers: Layers, embedding: Float[Tensor, "1 e"]) -> Layers:
        """Return `layers` with the effect of an embedding folded in that is equal for all cells."""
        cells = embedding[:, :, None, None]
        perception, hidden = self.rule.gate_perception(cells), self.rule.gate_hidden(cells)
        return layers.modulate(perception, hidden, is_after_activation=self.config.modulation == "gate")

    def modulations(self, embedding: Float[Tensor, "r e"], order: Tensor) -> tuple[Modulation, Modulation]:
        """Return the modulations of the perceptions and of the hidden layers of a block of cells."""
        perception, hidden = (gate(embedding.to(self.dtype)[:, :, None, None]) for gate in self.gates)
        return _of_rows(perception, order), _of_rows(hidden, slice(None))

    def change(
        self, near: Float[Tensor, "r 9 s"], layers: Layers, modulations: tuple[Modulation, Modulation]
    ) -> Float[Tensor, "r w"]:
        """Return the change of the written channels, for a block of cells and their neighbours `near`."""
        perception = torch.cat([near[:, 4], layers.perceive(near.flatten(1))], dim=1)
        hidden = layers.expand(modulate(perception, modulations[0]))[:, : self.config.hidden]
        hidden = F.layer_norm(hidden, hidden.shape[1:], layers.scale, layers.shift, NORMALISATION_EPSILON)
        hidden = self.rule.activate(hidden, modulations[1])
        missing = layers.project.weight.shape[1] - hidden.shape[1]
        written = self.channels - self.first_written
        return layers.project(F.pad(hidden, (0, missing)) if missing else hidden)[:, :written]


class BlockedCells:
    """The cells of a batch of images while they are updated, row after row.

    A block holds cells of one image, or all cells of several small images.

    Attributes:
        order: position in the batch of each image here; images of equal time stand side by side.
        active: number of the first channels that may differ from zero.
        tables: the neighbours of each cell, by dilation.
        written: the channels that change; the channels before them are protected.
        seen: the state as cells perceive it, then the embedding, in the type of the matrix products.
        following: `seen` of the next cell step.
    """

    def __init__(
        self,
        rule: BlockedRule,
        state: Float[Tensor, "b a h w"],
        t: Float[Tensor, " b"],
        region: Region,
        origin: tuple[int, int] | None,
        num_threads: int,
    ) -> None:
        self.rule, self.config, self.region, self.num_threads = rule, rule.config, region, num_threads
        self.times, self.order = t.float().sort(stable=True)
        self.count = region.height * region.width
        self.written = slice(rule.first_written, rule.channels)
        self.cells = torch.zeros(len(state), self.count, rule.channels)
        self.cells[..., : state.shape[1]] = state[self.order].flatten(2).movedim(1, -1)
        is_shifted = self.config.modulation == "scale_shift" and self.config.positions != "none"
        self.active = rule.channels if is_shifted else state.shape[1]  # a shift makes zero channels matter
        self.seen = self.following = Seen(self.cells, rule.layers_for(self.active).kept, rule.dtype)
        self.seen.of_images[..., : self.active] = self.cells[..., : self.active]
        dilations = {*self.config.dilations[: self.config.num_cell_steps]}
        self.tables = {each: neighbours(region, each, self.config.padding) for each in dilations}
        places = positions(self.config.positions, region, torch.device("cpu"), origin)
        self.places = None if places is None else places.flatten(1).t()

    def state(self) -> Float[Tensor, "b c h w"]:
        """Return the current state."""
        state = torch.empty(len(self.cells), self.rule.channels, self.count)
        state[self.order] = self.cells.movedim(-1, 1)
        return state.view(*state.shape[:2], self.region.height, self.region.width)

    def advance(self, k: int, mask: Bool[Tensor, "b 1 h w"] | None) -> None:
        """Do cell step `k`; the arguments are those of `cell.Cells.advance`."""
        if k < 2:  # the first state may have fewer perceived channels
            kept = self.rule.layers_for(self.rule.channels).kept
            self.following = Seen(self.cells, kept, self.rule.dtype)
            self.following.of_images[..., : self.written.start] = self.cells[..., : self.written.start]
        layers, taken = self.rule.layers_for(self.active), None
        if mask is not None:
            taken = mask[self.order].flatten(2).movedim(1, -1).float()
        elif self.config.update_probability < 1.0:
            layers = layers.damp(self.config.update_probability)
        clock = k / self.rule.rule.embedding.period
        table = self.tables[self.config.dilation(k)]
        for time, images in alike(self.times):
            clocks = torch.stack([time, time.new_tensor(clock)])
            update = partial(self._update, table, taken, *self._embed(images, layers, clocks))
            work_off(update, self._parts(images), self.num_threads)
        self.seen, self.following = self.following, self.seen
        self.active = self.rule.channels

    @property
    def blocks(self) -> list[slice]:
        """The cells of an image, block by block."""
        size = self.rule.block_cells
        return [slice(start, min(start + size, self.count)) for start in range(0, self.count, size)]

    def _parts(self, images: range) -> list[tuple[slice, list[slice]]]:
        """Return each block with some images, so that all threads have work; small images share blocks."""
        size = max(1, self.rule.block_cells // self.count)
        packs = [slice(first, min(first + size, images.stop)) for first in images[::size]]
        shares = min(-(-self.num_threads // len(self.blocks)), len(packs))
        return [(block, packs[first::shares]) for block in self.blocks for first in range(shares)]

    def _embed(
        self, images: range, layers: Layers, clocks: Float[Tensor, "2"]
    ) -> tuple[Layers, Float[Tensor, "cells e"] | None]:
        """Write the embedding into `seen`; return layers, and embeddings unless the layers contain these."""
        rule = self.rule
        if self.places is None:
            embedding = rule.embed(clocks[None])
            layers = rule.fold(layers, embedding)
        else:
            numbers = torch.cat([self.places, clocks.expand(self.count, 2)], dim=1)
            embedding = torch.empty(self.count, self.config.embedding_channels)

            def embed(block: slice) -> None:
                missing = rule.block_cells - len(numbers[block])
                embedded = rule.embed(F.pad(numbers[block], (0, 0, 0, missing)))
                embedding[block] = embedded[: len(numbers[block])]

            work_off(embed, self.blocks, self.num_threads)
        if self.config.perceive_embedding:
            shown = slice(self.active, self.active + embedding.shape[1])
            self.seen.of_images[images.start : images.stop, :, shown] = embedding.to(rule.dtype)
        return layers.to(rule.dtype), None if self.places is None else embedding

    def _update(
        self,
        table: Int[Tensor, "cells 9"],
        taken: Float[Tensor, "b cells 1"] | None,
        layers: Layers,
        embedding: Float[Tensor, "cells e"] | None,
        part: tuple[slice, list[slice]],
    ) -> None:
        """Do a cell step for a block of some images; `taken` is the share of its change a cell takes."""
        block, packs = part
        rule, table = self.rule, table[block]
        modulations = (Modulation(), Modulation())
        if embedding is not None:
            cell_of_row = torch.arange(rule.block_cells) % len(table)
            modulations = rule.modulations(embedding[block][cell_of_row], layers.order)
        for images in packs:
            state = self.cells[images, block, self.written]
            near = self.seen.near(table, images, rule.block_cells)
            change = rule.change(near, layers, modulations)[: state.shape[:2].numel()].view_as(state)
            state += change if taken is None else change * taken[images, block]
            self.following.of_images[images, block, self.written] = state


class Seen:
    """Perceived numbers: a row of zeros, for neighbours beyond an edge, then a row (`of_images`) per cell."""

    def __init__(self, state: Float[Tensor, "b cells c"], kept: int, dtype: torch.dtype) -> None:
        images, self.count = state.shape[:2]
        self.rows = torch.zeros(images * self.count + 1, kept, dtype=dtype)
        self.of_images = self.rows[1:].view(images, self.count, kept)

    def near(self, table: Int[Tensor, "cells 9"], images: slice, rows: int) -> Float[Tensor, "rows 9 s"]:
        """Return the numbers of cells and their neighbours, with zeros up to this many `rows`."""
        first = 1 + self.count * torch.arange(images.start, images.stop, dtype=table.dtype)
        there = (table + first[:, None, None]).clamp_(min=0).flatten()
        missing = 9 * rows - len(there)
        there = F.pad(there, (0, missing)) if missing else there
        return self.rows.index_select(0, there).view(rows, 9, -1)


def neighbours(region: Region, dilation: int, padding: str) -> Int[Tensor, "cells 9"]:
    """Return which cells each cell perceives, as `networks.cell.pad` does; `BEYOND` is beyond an edge."""
    axes = []
    for size, edge in zip((region.height, region.width), edges(region), strict=True):
        index = torch.arange(size, dtype=torch.int32)
        index = index + dilation * torch.arange(-1, 2, dtype=torch.int32)[:, None]
        is_beyond = (index < 0) | (index >= size)
        axes.append(index.masked_fill(is_beyond, -1) if padding == "zeros" else fold(index, size, edge))
    rows, columns = axes[0][:, None, :, None], axes[1][None, :, None, :]
    table = (rows * region.width + columns).masked_fill((rows < 0) | (columns < 0), BEYOND)
    return table.reshape(9, -1).t().contiguous()


def alike(t: Float[Tensor, " b"]) -> Iterator[tuple[Float[Tensor, ""], range]]:
    """Yield each diffusion time with its images, which stand side by side."""
    stop = 0
    for time, count in zip(*torch.unique_consecutive(t, return_counts=True), strict=True):
        start, stop = stop, stop + int(count)
        yield time, range(start, stop)


def _of_rows(modulation: Modulation, order: Tensor | slice) -> Modulation:
    """Return a modulation of single cells (`r c 1 1`) as a modulation of rows, in this `order`."""
    return Modulation(*(None if part is None else part.flatten(1)[:, order] for part in modulation))
