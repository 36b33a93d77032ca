"""Cell steps by torch, for machines without a C++ compiler: in blocks, which stay in the cache.

Matrix products, sums and exponentials may round differently in the last rows of an array, and with other
numbers of threads. So blocks have a fixed, padded number of cells, and one thread computes a block.
"""

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor
from torch.nn import functional as F

from diffnca.engine.cells import Grid, Modulations, Work
from diffnca.engine.layers import LANES, Dense
from diffnca.networks.cell import LEAKY_SLOPE, NORMALISATION_EPSILON, Modulation, modulate


class Blocks:
    """Cell steps in blocks, with matrix products in `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.line = dtype, LANES

    def laid(self, weight: Float[Tensor, "k o i"]) -> Tensor:
        """Return weights as they are."""
        return weight

    def surround(self, work: Work, rows: Int32[Tensor, " m"], columns: Int32[Tensor, " n"]) -> None:
        """Copy cells of all images to where they are seen beyond the edges."""
        grid, width = work.grid, work.dilation
        around = work.now.rows[:-LANES].view(len(work.state), -1, grid.pitch, work.widths.stride)
        near = slice(grid.halo - width, grid.halo + grid.lines + width)
        inner = slice(grid.halo, grid.halo + grid.length)
        around[:, near, inner] = around[:, near, inner].index_select(1, rows + width)
        near = slice(grid.halo - width, grid.halo + grid.length + width)
        around[:, :, near] = around[:, :, near].index_select(2, columns + width)

    def step(self, work: Work, lines: range, modulations: Modulations) -> None:
        """Do a cell step for these lines of the images."""
        is_complete = len(lines) == work.grid.lines
        for images in [work.images] if is_complete else [range(each, each + 1) for each in work.images]:
            self._step(work, images, lines, modulations)
        written = slice(work.images.start, work.images.stop), slice(lines.start, lines.stop)
        channels = slice(work.widths.first, work.widths.state)
        work.next.inner[(*written, slice(None), channels)] = work.state[(*written, slice(None), channels)]

    def _step(self, work: Work, images: range, lines: range, modulations: Modulations) -> None:
        """Do a cell step for lines of one image, or for complete images: cells that stand side by side."""
        grid, size, in_lines = work.grid, work.block_cells, len(lines) * work.grid.length
        first = (images.start * grid.lines + lines.start) * grid.length
        count = len(images) * in_lines
        places = _places(grid, torch.arange(first, first + count, dtype=torch.int32))
        offsets, state = _offsets(work), work.state.flatten(0, 2)
        taken = None if work.taken is None else work.taken.flatten()[:, None]
        for start in range(0, count, size):
            here = places[start : start + size]
            there = F.pad(here, (0, size - len(here)), value=int(here[0]))[:, None] + offsets
            near = work.now.rows.index_select(0, there.flatten()).view(size, 9, -1)
            rows = torch.arange(start, start + size) % in_lines
            chosen = [_rows_of(each, rows) for each in modulations]
            change = _change(work, near, (chosen[0], chosen[1]))[: len(here)].float()
            cells = slice(first + start, first + start + len(here))
            change = change * (work.share if taken is None else taken[cells])
            state[cells, work.widths.first :] += change


def _places(grid: Grid, cells: Int32[Tensor, " r"]) -> Int32[Tensor, " r"]:
    """Return in which rows of what cells see these cells are."""
    lines, along = cells // grid.length, cells % grid.length + grid.halo
    images, lines = lines // grid.lines, lines % grid.lines + grid.halo
    return (images * (grid.lines + 2 * grid.halo) + lines) * grid.pitch + along


def _offsets(work: Work) -> Int32[Tensor, "9"]:
    """Return how many rows from a cell each of its neighbours is."""
    steps = torch.arange(-work.dilation, work.dilation + 1, work.dilation, dtype=torch.int32)
    return (steps[:, None] * work.grid.stride_y + steps * work.grid.stride_x).flatten()


def _change(work: Work, near: Float[Tensor, "r 9 s"], modulations: Modulations) -> Float[Tensor, "r w"]:
    """Return the change of the channels from the first that changes on."""
    layers, widths, is_gated = work.layers, work.widths, work.config.modulation == "gate"
    perceived = torch.cat([near[:, 4, : widths.seen], _linear(near.flatten(1), layers.perceive)], dim=1)
    perceived = _padded(perceived, widths.perceived)
    hidden = _linear(modulate(perceived, modulations[0]), layers.expand)[:, : widths.plain_hidden]
    scale, shift = (
        None if part is None else part[: widths.plain_hidden].to(hidden.dtype)
        for part in (layers.scale, layers.shift)
    )
    hidden = F.layer_norm(hidden, hidden.shape[1:], scale, shift, NORMALISATION_EPSILON)
    hidden = _padded(hidden, widths.hidden)
    if is_gated:
        hidden = modulate(F.leaky_relu(hidden, LEAKY_SLOPE), modulations[1])
    else:
        hidden = F.leaky_relu(modulate(hidden, modulations[1]), LEAKY_SLOPE)
    return _linear(_padded(hidden, widths.activated), layers.project)


def _padded(rows: Float[Tensor, "r n"], width: int) -> Float[Tensor, "r m"]:
    missing = width - rows.shape[1]
    return F.pad(rows, (0, missing)) if missing else rows  # F.pad copies


def _linear(rows: Float[Tensor, "r i"], layer: Dense) -> Float[Tensor, "r o"]:
    return F.linear(rows, layer.weight, layer.bias.to(rows.dtype))


def _rows_of(modulation: Modulation, rows: Int[Tensor, " r"]) -> Modulation:
    return Modulation(*(None if part is None else part[rows] for part in modulation))
