"""Cell steps on a GPU: each step is a fused kernel, and only the state passes through memory between steps.

The kernels have not run on a GPU yet. Triton's interpreter has run them, and its compiler has compiled them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd

import torch
import triton
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.canvas.noise import CellMasks
from diffnca.canvas.region import Region
from diffnca.engine import kernels
from diffnca.engine.layers import lay_out, on_single_cells, parameters_of
from diffnca.engine.neighbours import perceived
from diffnca.networks.cell import CellRule, Share
from diffnca.networks.embedding import positions

BLOCK_CELLS = 64
"""Cells of a block, and rows of a block in all other products."""

PERCEIVED_BLOCK = 128
HIDDEN_BLOCK = 128
"""Outputs of a matrix product, at most."""

SMALLEST_BLOCK = 32
"""Widths are padded with zeros to multiples of this number."""

NUM_WARPS = 8


class FusedRule:
    """A cell rule, prepared for a GPU. Its weights are copies; prepare a rule again after training it."""

    def __init__(self, rule: CellRule, device: torch.device, dtype: torch.dtype) -> None:
        """Lay out the weights of `rule` for matrix products in `dtype` on `device`."""
        self.config, self.channels, self.device = rule.config, rule.channels, device
        self.guidance = rule.guidance
        rule = on_single_cells(rule, lambda convolution: Tiled(*parameters_of(convolution)))
        self.period, self.embedding = rule.embedding.period, rule.embedding.features.to(device)
        self.layers = FusedLayers(rule, device, dtype)
        # float32, unless each cell reads its own modulation
        modulated = torch.float32 if self.config.positions == "none" else dtype
        self.modulators = Modulators(rule, self.layers).to(device, modulated)

    @contextmanager
    def begin(
        self, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None = None
    ) -> Iterator[FusedCells]:
        """Return the cells before the first cell step; the arguments are those of `cell.Rule.begin`."""
        with torch.no_grad(), torch.cuda.device_of(state):  # Triton starts kernels on the current GPU
            yield FusedCells(self, state, t, region, origin)

    def conditions(
        self, times: Float[Tensor, " t"], region: Region, origin: tuple[int, int] | None
    ) -> Iterator[tuple[Float[Tensor, "t cells e"], Float[Tensor, "t cells m"]]]:
        """Yield embedding and modulations of each cell step; without positions, of a single cell."""
        grid = positions(self.config.positions, region, self.device, origin)
        places = torch.zeros(1, 0, device=self.device)
        if grid is not None:  # complete blocks, as an activation may round the last rows differently
            places = F.pad(grid.flatten(1).t(), (0, 0, 0, -region.area % BLOCK_CELLS))
        steps = torch.arange(self.config.num_cell_steps, device=self.device)
        for some in steps.split(len(steps) if grid is None else 1):
            clocks = torch.cartesian_prod(some / self.period, times).flip(1)
            of_cells = clocks[:, None].expand(-1, len(places), -1)
            numbers = torch.cat([places.expand(len(clocks), -1, -1), of_cells], dim=2).flatten(0, 1)
            embedding = self.embedding(numbers[:, :, None, None]).flatten(1)
            modulations = self.modulators(embedding)
            shape = (len(some), len(times), len(places))
            yield from zip(embedding.unflatten(0, shape), modulations.unflatten(0, shape), strict=True)

    def taken(self, share: Share | None, images: int, cells: int) -> Float32[Tensor, "b cells"]:
        """Return the share of its change that each cell takes."""
        if share is None:
            probability = self.config.update_probability
            return torch.full((1, 1), probability, device=self.device).expand(images, cells)
        noise, region = share.noise, share.region
        if type(noise) is not CellMasks:
            return share.mask().flatten(1).to(self.device, torch.float32)
        taken = torch.empty(images, cells, device=self.device)
        seeds = torch.tensor([seed - (seed >> 63 << 64) for seed in noise.noise.seeds], device=self.device)
        rows, columns = (axis.to(self.device, torch.int32) for axis in (region.rows(), region.columns()))
        grid = (triton.cdiv(cells, BLOCK_CELLS), images)
        place = (*noise.draw(share.number, share.probability), region.height, region.width)
        kernels.draw_share[grid](taken, seeds, rows, columns, *place, block=BLOCK_CELLS)
        return taken


class FusedLayers:
    """The layers of a cell rule as the kernel takes them, padded with zeros to complete blocks.

    `widths` holds the padded widths of `seen`, the state and the hidden layer, with their block widths.
    """

    def __init__(self, rule: CellRule, device: torch.device, dtype: torch.dtype) -> None:
        """Lay out the layers of `rule`."""
        self.dtype, self.layers = dtype, lay_out(rule, rule.channels)
        kept, near = self.layers.kept, len(self.layers.perceive.bias)
        seen_width, seen_block = _blocks(kept, PERCEIVED_BLOCK)
        channels_width, channels_block = _blocks(rule.channels, PERCEIVED_BLOCK)
        hidden_width, hidden_block = _blocks(rule.config.hidden, HIDDEN_BLOCK)
        self.widths = {
            "seen_width": seen_width,
            "seen_block": seen_block,
            "channels_width": channels_width,
            "channels_block": channels_block,
            "hidden_width": hidden_width,
            "hidden_block": hidden_block,
        }
        perceive, perceive_bias = self.layers.perceive
        expand, expand_bias = self.layers.expand
        project, project_bias = self.layers.project
        taps = perceive.unflatten(1, (9, kept)).permute(1, 2, 0)
        of_own, of_near = expand.t().split([kept, near])
        rows = (_filled(of_own, seen_width, hidden_width), _filled(of_near, channels_width, hidden_width))
        weights = {
            "perceive": _filled(taps, 9, seen_width, channels_width),
            "expand": torch.cat(rows),
            "project": _filled(project.t(), hidden_width, channels_width),
        }
        biases = {
            "perceive_bias": _filled(perceive_bias, channels_width),
            "expand_bias": _filled(expand_bias, hidden_width),
            "project_bias": _filled(project_bias, channels_width),
        }
        self.weights = {name: weight.to(device, dtype) for name, weight in weights.items()}
        self.weights |= {name: bias.to(device) for name, bias in biases.items()}


class Modulators(nn.Module):
    """Computes the modulations of an embedding: a row of numbers, as the kernel reads them.

    A row begins with the factors of the perception. For a published gate, the factors of the hidden layer
    follow. For scale and shift, the bias of the hidden layer, its factors and its summands follow.
    """

    def __init__(self, rule: CellRule, fused: FusedLayers) -> None:
        """Take the modulators of `rule`, whose convolutions are `Tiled`."""
        super().__init__()
        layers, widths = fused.layers, fused.widths
        self.kind, self.hidden_width = rule.config.modulation, widths["hidden_width"]
        self.perception, self.hidden = rule.gate_perception, rule.gate_hidden
        self.expand = Tiled(layers.shifted, layers.expand.bias)
        own, near = layers.order[: layers.kept], layers.order[layers.kept :]
        order = [
            _filled(own + 1, widths["seen_width"]) - 1,
            _filled(near + 1, widths["channels_width"]) - 1,
        ]
        self.register_buffer("order", torch.cat(order))

    def forward(self, embedding: Float[Tensor, "r e"]) -> Float[Tensor, "r m"]:
        """Return the modulations of some embeddings, a row for each."""
        if self.kind == "none":
            return embedding[:, :0]
        cells = embedding[:, :, None, None]
        (scale, shift), hidden = self.perception(cells), self.hidden(cells)
        parts = [part.flatten(1) for part in hidden if part is not None]
        if shift is not None:
            parts = [self.expand(shift).flatten(1), *parts]
        padded = [F.pad(part, (0, self.hidden_width - part.shape[1])) for part in parts]
        return torch.cat([scale.flatten(1)[:, self.get_buffer("order")], *padded], dim=1)


class Tiled(nn.Module):
    """A 1x1 convolution over single cells (`r i 1 1`), in blocks with a fixed number of cells."""

    def __init__(self, weight: Tensor, bias: Float[Tensor, " o"]) -> None:
        """Take the weights (o, i) of the convolution."""
        super().__init__()
        self.register_buffer("weight", weight.flatten(1).t().contiguous())
        self.register_buffer("bias", bias)

    def forward(self, cells: Float[Tensor, "r i 1 1"]) -> Float[Tensor, "r o 1 1"]:
        """Return the output of the convolution for these cells."""
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        (inputs, outputs), count = weight.shape, len(cells)
        rows, made = cells.flatten(1).to(weight.dtype).contiguous(), weight.new_empty(count, outputs)
        grid = (triton.cdiv(count, BLOCK_CELLS), triton.cdiv(outputs, BLOCK_CELLS))
        blocks = {"block": BLOCK_CELLS, "inputs_block": SMALLEST_BLOCK, "outputs_block": BLOCK_CELLS}
        kernels.dense[grid](rows, weight, bias, made, count, inputs, outputs, **blocks)
        return made[:, :, None, None]


class FusedCells:
    """The cells of a batch of images while they are updated; its attributes are as in `BlockedCells`."""

    def __init__(
        self, rule: FusedRule, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None
    ) -> None:
        """Take the first channels (b a h w) of the state; the others are zero."""
        self.rule, self.config, self.region = rule, rule.config, region
        times, of_image = torch.unique(t.float(), return_inverse=True)
        self.time_of_image: Int64[Tensor, " b"] = of_image
        self.conditions = rule.conditions(times, region, origin)
        widths, shape = rule.layers.widths, (len(state), region.area)
        self.cells = torch.zeros(*shape, widths["channels_width"], device=rule.device)
        self.cells[..., : state.shape[1]] = state.flatten(2).movedim(1, -1)
        self.seen = self.cells.new_zeros(*shape, widths["seen_width"], dtype=rule.layers.dtype)
        self.seen[..., : state.shape[1]] = self.cells[..., : state.shape[1]]
        self.following = torch.zeros_like(self.seen)

    def state(self) -> Float[Tensor, "b c h w"]:
        """Return the current state."""
        state = self.cells[..., : self.rule.channels].movedim(-1, 1).clone()
        return state.reshape(*state.shape[:2], self.region.height, self.region.width)

    def advance(self, k: int, share: Share | None) -> None:
        """Do cell step `k`; without a `share` each cell takes the expectation of its change."""
        embedding, modulations = next(self.conditions)
        taken = self.rule.taken(share, len(self.cells), self.region.area)
        if self.config.perceive_embedding:
            end = self.rule.channels + embedding.shape[2]
            self.seen[..., self.rule.channels : end] = embedding[self.time_of_image, : self.region.area]
        axes = perceived(self.region, self.config.dilation(k), self.config.padding)
        rows, columns = (axis.to(self.cells.device) for axis in axes)
        modulated = modulations.shape[1]
        kernels.cell_step[(triton.cdiv(self.region.area, BLOCK_CELLS), len(self.cells))](
            self.cells,
            self.seen,
            self.following,
            rows,
            columns,
            taken,
            self.time_of_image,
            modulations,
            **self.rule.layers.weights,
            height=self.region.height,
            width=self.region.width,
            share_of_image=taken.stride(0),
            share_of_cell=taken.stride(1),
            modulated_cells=modulated,
            hidden_channels=self.config.hidden,
            kind=self.config.modulation,
            block=BLOCK_CELLS,
            modulated_block=1 if self.config.positions == "none" else BLOCK_CELLS,
            **self.rule.layers.widths,
            num_warps=NUM_WARPS,
        )
        self.seen, self.following = self.following, self.seen


def _blocks(width: int, most: int) -> tuple[int, int]:
    padded = width + -width % SMALLEST_BLOCK
    return padded, gcd(padded, most)


def _filled(part: Tensor, *shape: int) -> Tensor:
    whole = part.new_zeros(shape)
    whole[tuple(slice(size) for size in part.shape)] = part
    return whole
