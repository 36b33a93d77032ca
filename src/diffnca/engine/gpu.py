"""Cell steps on a GPU: each is one fused kernel, and only the state passes through the memory between two.

Not yet run on a GPU: so far Triton's interpreter has run the kernels, and its compiler has compiled them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd

import torch
import triton
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.canvas.noise import CellMasks, CellNoise
from diffnca.canvas.region import Region
from diffnca.engine import kernels
from diffnca.engine.layers import lay_out, on_single_cells, parameters_of
from diffnca.engine.neighbours import perceived
from diffnca.networks.cell import CellRule
from diffnca.networks.embedding import positions

BLOCK_CELLS = 64
"""Cells of a block, and rows of a block of any other product."""

PERCEIVED_BLOCK = 128
HIDDEN_BLOCK = 128
"""Outputs of a matrix product, at most."""

SMALLEST_BLOCK = 32
"""Widths are padded with zeros to multiples of this."""

NUM_WARPS = 8


class FusedCells:
    """A cell rule made ready: `run` does what `diffnca.networks.cell.run_cells` does with it.

    The weights are copied; a rule that has been trained on must be made ready again.
    """

    def __init__(self, rule: CellRule, device: torch.device, dtype: torch.dtype) -> None:
        """Lay out the weights of `rule` for matrix products in `dtype` on `device`."""
        self.config, self.channels, self.device = rule.config, rule.channels, device
        self.guidance = rule.guidance
        rule = on_single_cells(rule, lambda convolution: Tiled(*parameters_of(convolution)))
        self.period, self.embedding = rule.embedding.period, rule.embedding.features.to(device)
        self.layers = FusedLayers(rule, device, dtype)
        # read once per image where each cell has its own
        modulated = torch.float32 if self.config.positions == "none" else dtype
        self.modulators = Modulators(rule, self.layers).to(device, modulated)

    @torch.no_grad()
    def run(
        self,
        state: Float[Tensor, "b a h w"],
        t: Float[Tensor, " b"],
        region: Region,
        noise: CellNoise | None,
        origin: tuple[int, int] | None = None,
        first_mask: int = 0,
    ) -> Float[Tensor, "b c h w"]:
        """Return the state after all cell steps; the arguments are those of `engine.cpu.BlockedCells.run`."""
        times, time_of_image = torch.unique(t.float(), return_inverse=True)
        cells = Cells(self, state, region, time_of_image)
        before = cells.state
        with torch.cuda.device_of(state):  # Triton starts kernels on the current GPU
            for k, (embedding, modulations) in enumerate(self.conditions(times, region, origin)):
                if self.guidance is not None and k == self.guidance.from_cell_step:
                    before = cells.state.clone()
                share = self.share(noise, first_mask + k, region, len(state))
                cells.advance(k, embedding, modulations, share)
        found = cells.state if self.guidance is None else self.guidance.lead(cells.state, before)
        final = found[..., : self.channels].movedim(-1, 1)
        return final.reshape(len(state), self.channels, region.height, region.width)

    def conditions(
        self, times: Float[Tensor, " t"], region: Region, origin: tuple[int, int] | None
    ) -> Iterator[tuple[Float[Tensor, "t cells e"], Float[Tensor, "t cells m"]]]:
        """Yield the embedding and the modulations of each cell step; without positions those of one cell.

        Without positions they are few, and computed for all cell steps at once.
        """
        grid = positions(self.config.positions, region, self.device, origin)
        places = torch.zeros(1, 0, device=self.device)
        if grid is not None:  # in whole blocks: an activation may round otherwise in the last rows
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

    def share(
        self, noise: CellNoise | None, number: int, region: Region, images: int
    ) -> Float32[Tensor, "b cells"]:
        """Return how much of its change each cell takes, by the mask of this `number`."""
        probability = self.config.update_probability
        if noise is None or probability == 1.0:
            return torch.full((1, 1), probability, device=self.device).expand(images, region.area)
        if type(noise) is not CellMasks:
            return noise.mask(number, region, probability).flatten(1).to(self.device, torch.float32)
        share = torch.empty(images, region.area, device=self.device)
        seeds = torch.tensor([seed - (seed >> 63 << 64) for seed in noise.noise.seeds], device=self.device)
        rows, columns = (axis.to(self.device, torch.int32) for axis in (region.rows(), region.columns()))
        grid = (triton.cdiv(region.area, BLOCK_CELLS), images)
        place = (*noise.draw(number, probability), region.height, region.width)
        kernels.draw_share[grid](share, seeds, rows, columns, *place, block=BLOCK_CELLS)
        return share


class FusedLayers:
    """The layers of a cell rule as the kernel takes them.

    Attributes:
        layers: the layers themselves.
        dtype: of the matrix products.
        weights: of perceive, expand and project, each with its bias, padded with zeros to whole blocks.
        widths: the padded numbers of a cell that are seen, of its state and of its hidden layer; and how many
            of them are multiplied at once.
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
    """Says what an embedding does to the layers: one row of numbers, as the kernel reads them.

    A row holds the factors of the perception; then, for a published gate, the factors of the hidden layer;
    for scale and shift the bias of the hidden layer, its factors and its summands.
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
        """Return the modulations for the rows of embeddings."""
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
    """A 1x1 convolution over single cells (`r i 1 1`), in blocks of a fixed number of them."""

    def __init__(self, weight: Tensor, bias: Float[Tensor, " o"]) -> None:
        """Take the weights (o, i) of the convolution."""
        super().__init__()
        self.register_buffer("weight", weight.flatten(1).t().contiguous())
        self.register_buffer("bias", bias)

    def forward(self, cells: Float[Tensor, "r i 1 1"]) -> Float[Tensor, "r o 1 1"]:
        """Return what the convolution makes of the cells."""
        weight, bias = self.get_buffer("weight"), self.get_buffer("bias")
        (inputs, outputs), count = weight.shape, len(cells)
        rows, made = cells.flatten(1).to(weight.dtype).contiguous(), weight.new_empty(count, outputs)
        grid = (triton.cdiv(count, BLOCK_CELLS), triton.cdiv(outputs, BLOCK_CELLS))
        blocks = {"block": BLOCK_CELLS, "inputs_block": SMALLEST_BLOCK, "outputs_block": BLOCK_CELLS}
        kernels.dense[grid](rows, weight, bias, made, count, inputs, outputs, **blocks)
        return made[:, :, None, None]


class Cells:
    """The cells of a batch of images while they are updated, row after row.

    Attributes:
        state: in float32.
        seen: the state as it is perceived, then the embedding, in the type of the matrix products.
        following: `seen` of the next cell step.
    """

    def __init__(self, ready: FusedCells, state: Tensor, region: Region, time_of_image: Tensor) -> None:
        """Take the first channels (b a h w) of the state; the others are zero."""
        self.ready, self.config, self.region = ready, ready.config, region
        self.time_of_image: Int64[Tensor, " b"] = time_of_image
        widths, shape = ready.layers.widths, (len(state), region.area)
        self.state = torch.zeros(*shape, widths["channels_width"], device=ready.device)
        self.state[..., : state.shape[1]] = state.flatten(2).movedim(1, -1)
        self.seen = self.state.new_zeros(*shape, widths["seen_width"], dtype=ready.layers.dtype)
        self.seen[..., : state.shape[1]] = self.state[..., : state.shape[1]]
        self.following = torch.zeros_like(self.seen)

    def advance(self, k: int, embedding: Tensor, modulations: Tensor, share: Tensor) -> None:
        """Do cell step `k` for all images, each cell taking its `share` (b cells) of the change."""
        if self.config.perceive_embedding:
            end = self.ready.channels + embedding.shape[2]
            self.seen[..., self.ready.channels : end] = embedding[self.time_of_image, : self.region.area]
        axes = perceived(self.region, self.config.dilation(k), self.config.padding)
        rows, columns = (axis.to(self.state.device) for axis in axes)
        modulated = modulations.shape[1]
        kernels.cell_step[(triton.cdiv(self.region.area, BLOCK_CELLS), len(self.state))](
            self.state,
            self.seen,
            self.following,
            rows,
            columns,
            share,
            self.time_of_image,
            modulations,
            **self.ready.layers.weights,
            height=self.region.height,
            width=self.region.width,
            share_of_image=share.stride(0),
            share_of_cell=share.stride(1),
            modulated_cells=modulated,
            hidden_channels=self.config.hidden,
            kind=self.config.modulation,
            block=BLOCK_CELLS,
            modulated_block=1 if self.config.positions == "none" else BLOCK_CELLS,
            **self.ready.layers.widths,
            num_warps=NUM_WARPS,
        )
        self.seen, self.following = self.following, self.seen


def _blocks(width: int, most: int) -> tuple[int, int]:
    """Return `width` padded, and the largest block of at most `most` that divides this."""
    padded = width + -width % SMALLEST_BLOCK
    return padded, gcd(padded, most)


def _filled(part: Tensor, *shape: int) -> Tensor:
    """Return zeros of this shape with `part` at their start."""
    whole = part.new_zeros(shape)
    whole[tuple(slice(size) for size in part.shape)] = part
    return whole
