"""The cell: its perception and its update, and the only loop over the cell steps.

All cells share one rule. A state has M channels, k of which are given planes. Its perception has 2M - k (plus
the channels of the embedding), and the hidden layer has H. An engine provides a `Rule`, and `begin` of this
rule yields `Cells`.

[1] Kalkhof et al., arXiv 2401.06291.
[2] Mordvintsev et al., "Growing Neural Cellular Automata", Distill 2020.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Boundary, Region, fold
from diffnca.config.networks import CellConfig
from diffnca.networks.embedding import Embedding, two_layers

NORMALISATION_EPSILON = 1e-5
SAFE_CHANNELS = 16
"""Training on a CPU pads channels to a multiple of this number before a dilated convolution. Else oneDNN's
bf16 gradient of the weights is wrong or NaN for wide channels-last inputs (torch 2.13, AVX-512)."""
LEAKY_SLOPE = 0.01


class SelfGuidance(NamedTuple):
    """Guidance of a state away from its value before `from_cell_step`; a `strength` of 1 changes nothing."""

    strength: float
    from_cell_step: int

    def lead(self, state: Tensor, before: Tensor) -> Tensor:
        """Return the final state, guided away from the state `before` the last cell steps."""
        return before + self.strength * (state - before)


@runtime_checkable
class Cells(Protocol):
    """The cells of some images while an engine updates them."""

    def advance(self, k: int, mask: Bool[Tensor, "b 1 h w"] | None, needed: Region) -> None:
        """Do cell step `k` where `mask` is true; `None` gives each cell the expectation of its change.

        Cells outside the region `needed` may stay as they are: nothing depends on them any more.
        """

    def state(self) -> Float[Tensor, "b c h w"]:
        """Return the current state. Later cell steps do not change the returned tensor."""


@runtime_checkable
class Rule(Protocol):
    """A cell rule, as an engine runs it; `guidance` changes the final state, in sampling only."""

    config: CellConfig
    guidance: SelfGuidance | None

    def begin(
        self, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None = None
    ) -> AbstractContextManager[Cells]:
        """Return the cells before the first cell step, in a block that holds the resources of the engine.

        `state` holds the first channels (b a h w); all others are zero. `t` is the diffusion time of each
        image. Positions in pixels count from the cell `origin`; `None` is the centre of the canvas.
        """


class Modulation(NamedTuple):
    """Factors and summands that the embedding gives to a layer; `None` leaves the layer unchanged."""

    scale: Float[Tensor, "b c h w"] | None = None
    shift: Float[Tensor, "b c h w"] | None = None


class Condition(NamedTuple):
    """The input of a cell step besides the state; without positions, equal for all cells (`h = w = 1`)."""

    embedding: Float[Tensor, "b e h w"] | None
    perception: Modulation
    hidden: Modulation


class Modulator(nn.Module):
    """Turns an embedding into the `Modulation` of a layer."""

    def __init__(self, config: CellConfig, channels: int) -> None:
        """Make the network that modulates `channels`: none, "gate" ([1], npj) or "scale_shift"."""
        super().__init__()
        self.kind = config.modulation
        inputs, width = config.embedding_channels, max(config.hidden // 4, 1)
        match self.kind:
            case "gate":
                self.net: nn.Module = two_layers(inputs, width, channels)
            case "scale_shift":
                self.net = nn.Conv2d(inputs, 2 * channels, 1)
                nn.init.zeros_(self.net.weight)
                nn.init.zeros_(self.net.bias)  # type: ignore[arg-type]

    def forward(self, embedding: Float[Tensor, "b e h w"]) -> Modulation:
        """Return the modulation for this embedding."""
        match self.kind:
            case "gate":
                return Modulation(self.net(embedding))
            case "scale_shift":
                scale, shift = self.net(F.silu(embedding)).chunk(2, dim=1)
                return Modulation(1.0 + scale, shift)
        return Modulation()


CellsOf = Callable[["CellRule", Tensor, Tensor, Region, tuple[int, int] | None], Cells]
"""Makes the cells of a rule; the other arguments are those of `Rule.begin`."""


class CellRule(nn.Module):
    """One update rule for all cells: perceive, expand, normalise, project.

    `guidance` is for sampling only; `is_recomputed` saves memory: the backward pass repeats each cell step.
    `cells_of` makes the cells that learn.
    """

    writable: Tensor

    def __init__(
        self, config: CellConfig, channels: int, protected: tuple[int, ...], planes: int = 0
    ) -> None:
        """Make a rule for a state of `channels`; no cell step overwrites the `protected` channels.

        The first `planes` of these are given: a cell sees its own, and not those of its neighbours.
        """
        super().__init__()
        self.config, self.channels, self.planes = config, channels, planes
        self.guidance: SelfGuidance | None = None
        self.is_recomputed = False
        self.cells_of: CellsOf = EagerCells
        self.embedding = Embedding(config)
        seen = channels + config.embedding_channels * config.perceive_embedding
        perceived = seen + channels - planes
        self.perceive = nn.Conv2d(seen - planes, channels - planes, 3)
        self.expand = nn.Conv2d(perceived, config.hidden, 1)
        self.project = nn.Conv2d(config.hidden, channels, 1)
        self.norm = nn.GroupNorm(1, config.hidden) if config.normalisation == "group" else None
        self.gate_perception = Modulator(config, perceived)
        self.gate_hidden = Modulator(config, config.hidden)
        writable = torch.ones(channels)
        writable[list(protected)] = 0.0
        self.register_buffer("writable", writable[:, None, None], persistent=False)
        if config.weight_norm:
            for layer in [m for m in self.modules() if isinstance(m, nn.Conv2d)]:
                nn.utils.parametrizations.weight_norm(layer)
        elif config.modulation == "scale_shift":
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def condition(
        self,
        t: Float[Tensor, " b"],
        cell_step: Float[Tensor, ""],
        region: Region,
        origin: tuple[int, int] | None = None,
    ) -> Condition:
        """Return the embedding and the modulations of this cell step for the cells of `region`."""
        embedding = self.embedding(t, cell_step, region, origin)
        perceived = embedding if self.config.perceive_embedding else None
        return Condition(perceived, self.gate_perception(embedding), self.gate_hidden(embedding))

    @contextmanager
    def begin(
        self, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None = None
    ) -> Iterator[Cells]:
        """Return the cells before the first cell step; the arguments are those of `Rule.begin`."""
        yield self.cells_of(self, state, t, region, origin)

    def forward(self, state: Tensor, condition: Condition, dilation: int, region: Region) -> Tensor:
        """Return the change of `state` (b, M, h, w) in one cell step; zero in the protected channels."""
        seen = state
        if condition.embedding is not None:
            everywhere = condition.embedding.expand(-1, -1, *state.shape[-2:])
            seen = torch.cat([state, everywhere.to(state.dtype)], dim=1)
        near = self.near(pad(seen[:, self.planes :], dilation, region, self.config.padding), dilation)
        perception = modulate(torch.cat([seen.to(near.dtype), near], dim=1), condition.perception)
        hidden = self.normalise(self.expand(perception))
        hidden = self.activate(hidden, condition.hidden)
        change: Tensor = self.project(hidden) * self.writable
        return change

    def near(self, padded: Tensor, dilation: int) -> Tensor:
        """Return what each cell perceives of its neighbours, `dilation` cells apart."""
        weight = self.perceive.weight
        missing = -padded.shape[1] % SAFE_CHANNELS
        if missing and dilation > 1 and padded.device.type == "cpu" and torch.is_grad_enabled():
            padded, weight = (F.pad(each, (0, 0, 0, 0, 0, missing)) for each in (padded, weight))
        return F.conv2d(padded, weight, self.perceive.bias, dilation=dilation)

    def normalise(self, hidden: Tensor) -> Tensor:
        """Normalise the hidden layer over the channels of each cell, or ([1], v1) also over space."""
        if self.norm is not None:
            return F.group_norm(hidden, 1, self.norm.weight, self.norm.bias, self.norm.eps)
        channels_last = hidden.movedim(1, -1)
        return F.layer_norm(channels_last, channels_last.shape[-1:], eps=NORMALISATION_EPSILON).movedim(-1, 1)

    def activate(self, hidden: Tensor, modulation: Modulation) -> Tensor:
        """Apply the activation, and a published gate after it; or scale and shift before it."""
        if self.config.modulation == "scale_shift":
            return F.leaky_relu(modulate(hidden, modulation), LEAKY_SLOPE)
        return modulate(F.leaky_relu(hidden, LEAKY_SLOPE), modulation)


def modulate(layer: Tensor, modulation: Modulation) -> Tensor:
    """Return `layer * scale + shift`."""
    if modulation.scale is not None:
        layer = layer * modulation.scale.to(layer.dtype)
    if modulation.shift is not None:
        layer = layer + modulation.shift.to(layer.dtype)
    return layer


def pad(state: Tensor, width: int, region: Region, padding: str) -> Tensor:
    """Extend `state` (b, c, h, w) by `width` px per side, as its canvas goes on, or with zeros.

    A circular axis wraps if the region covers it; all other edges are mirrored. At edges inside the canvas
    the caller crops the `radius` pixels that the mirror has touched.
    """
    if padding == "zeros":
        return F.pad(state, [width] * 4)
    if "circular" not in edges(region) and width < min(state.shape[-2:]):
        return F.pad(state, [width] * 4, mode="reflect")
    for axis, edge in zip((-2, -1), edges(region), strict=True):
        if torch.compiler.is_compiling():
            state = unfolded(state, axis, width, edge == "circular")
        else:
            size = state.shape[axis]
            index = fold(torch.arange(-width, size + width), size, edge)
            state = state.index_select(axis, index.to(state.device))
    return state


def edges(region: Region) -> tuple[Boundary, Boundary]:
    """Return how cells go on beyond the edges of `region` (y, x): around an axis only if it is whole."""
    boundary_y, boundary_x = region.canvas.boundary
    return boundary_y if region.is_whole_y else "reflect", boundary_x if region.is_whole_x else "reflect"


def unfolded(state: Tensor, axis: int, width: int, wrap: bool) -> Tensor:
    """Extend an axis by `width` px per side, part by part: wrapped if `wrap`, else mirrored.

    The compiled gradient of a single `index_select` would write beyond its memory (pytorch #191837).
    """
    while width > 0:
        size = state.shape[axis]
        step, edge = min(width, size if wrap else max(size - 1, 1)), int(not wrap and size > 1)
        before, after = state.narrow(axis, edge, step), state.narrow(axis, size - edge - step, step)
        before, after = (after, before) if wrap else (before.flip(axis), after.flip(axis))
        state, width = torch.cat([before, state, after], dim=axis), width - step
    return state


class EagerCells:
    """Cells that PyTorch updates; `current` is the state (b, M, h, w)."""

    def __init__(
        self, rule: CellRule, state: Tensor, t: Tensor, region: Region, origin: tuple[int, int] | None
    ) -> None:
        empty = state.new_zeros(len(state), rule.channels - state.shape[1], *state.shape[-2:])
        self.current = torch.cat([state, empty], dim=1).contiguous(memory_format=torch.channels_last)
        self.rule, self.t, self.region, self.origin = rule, t, region, origin

    def advance(self, k: int, mask: Bool[Tensor, "b 1 h w"] | None, needed: Region) -> None:
        """Do cell step `k` for all cells; the arguments are those of `Cells.advance`."""
        if self.rule.is_recomputed:
            change = checkpoint(self.change, self.current, k, use_reentrant=False)
        else:
            change = self.change(self.current, k)
        probability = self.rule.config.update_probability
        if probability < 1.0:
            change = change * (probability if mask is None else mask.to(change))
        self.current = self.current + change

    def change(self, state: Tensor, k: int) -> Tensor:
        """Return the change of `state` in cell step `k`."""
        clock = torch.tensor(float(k), device=self.t.device)
        condition = self.rule.condition(self.t, clock, self.region, self.origin)
        change: Tensor = self.rule(state, condition, self.rule.config.dilation(k), self.region)
        return change

    def state(self) -> Tensor:
        """Return the current state."""
        return self.current


def run_cells(
    rule: Rule,
    state: Tensor,
    t: Float[Tensor, " b"],
    region: Region,
    noise: CellNoise | None,
    origin: tuple[int, int] | None = None,
    first_mask: int = 0,
    observe: Callable[[Tensor], object] | None = None,
    wanted: Region | None = None,
) -> Float[Tensor, "b c h w"]:
    """Return the state after all cell steps of `rule`, guided if the rule has a guidance.

    The state is correct on the region `wanted`; `None` is all of `region`. Each cell step updates as few
    cells as `wanted` needs.

    `state`, `t`, `region` and `origin` are those of `Rule.begin`. A `noise` of `None` updates each cell by
    the expectation of its mask. Masks count from `first_mask`, so two stages of a call draw different masks.
    `observe` receives the state after each cell step, before guidance.
    """
    guidance, probability = rule.guidance, rule.config.update_probability
    drawn = noise if probability < 1.0 else None
    before, parts = None, needed_cells(rule.config, region, wanted or region)
    with rule.begin(state, t, region, origin) as cells:
        for k, needed in enumerate(parts):
            if guidance is not None and k == guidance.from_cell_step:
                before = cells.state()
            mask = None
            if drawn is not None:
                mask = padded(drawn.mask(first_mask + k, needed, probability), needed, region)
            cells.advance(k, mask, needed)
            if observe is not None:
                observe(cells.state())
        final = cells.state()
    return final if guidance is None or before is None else guidance.lead(final, before)


def needed_cells(config: CellConfig, region: Region, wanted: Region) -> list[Region]:
    """Return on which cells of `region` the final state of `wanted` depends, after each cell step.

    `region` must hold `wanted`, and the cells that it sees in all cell steps.
    """
    steps = range(config.num_cell_steps)
    if config.radius is None or wanted == region:
        return [region for _ in steps]
    later = accumulate((config.dilation(k) for k in reversed(steps[1:])), initial=0)
    return [wanted.grow(reach).within(region) for reach in later][::-1]


def padded(drawn: Shaped[Tensor, "b n v u"], on: Region, to: Region) -> Shaped[Tensor, "b n h w"]:
    """Return an image that lies `on` a region with zeros around it, up to the larger region `to`."""
    above, before = (on.top - to.top) % to.canvas.height, (on.left - to.left) % to.canvas.width
    below, after = to.height - on.height - above, to.width - on.width - before
    is_complete = not any((above, before, below, after))
    return drawn if is_complete else F.pad(drawn, (before, after, above, below))
