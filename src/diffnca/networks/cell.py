"""The cell: what it perceives and how it updates.

One rule is shared by all cells and applied again and again. In the notation of this file, a state has M
channels, its perception 2M (+ those of the embedding), the hidden layer H.

References:
    [1] Kalkhof et al., arXiv 2401.06291.
    [2] Mordvintsev et al., "Growing Neural Cellular Automata", Distill 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Region, fold
from diffnca.config.networks import CellConfig
from diffnca.networks.embedding import Embedding

NORMALISATION_EPSILON = 1e-5
SAFE_CHANNELS = 16
"""oneDNN's bf16 gradient of the weights of a dilated convolution (torch 2.13, AVX-512) is wrong, or not a
number, for wide channels-last inputs unless their channels are a multiple of this."""
LEAKY_SLOPE = 0.01


class SelfGuidance(NamedTuple):
    """The state led on from what it was before the last cell steps (`diffnca.sampling.guidance`).

    Attributes:
        strength: how far; 1 leaves it where it is.
        from_cell_step: the first of the last cell steps.
    """

    strength: float
    from_cell_step: int

    def lead(self, state: Tensor, before: Tensor) -> Tensor:
        """Return the final state, led on from that `before` the last cell steps."""
        return before + self.strength * (state - before)


class Modulation(NamedTuple):
    """What the embedding does to one layer: multiply by `scale`, add `shift` (`None`: leave it)."""

    scale: Float[Tensor, "b c h w"] | None
    shift: Float[Tensor, "b c h w"] | None


class Condition(NamedTuple):
    """All that a cell step needs besides the state; without positions one for all cells (`h = w = 1`)."""

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
                self.net: nn.Module = nn.Sequential(
                    nn.Conv2d(inputs, width, 1), nn.SiLU(), nn.Conv2d(width, channels, 1)
                )
            case "scale_shift":
                self.net = nn.Conv2d(inputs, 2 * channels, 1)
                nn.init.zeros_(self.net.weight)
                nn.init.zeros_(self.net.bias)  # type: ignore[arg-type]

    def forward(self, embedding: Float[Tensor, "b e h w"]) -> Modulation:
        """Return the modulation for this embedding."""
        match self.kind:
            case "gate":
                return Modulation(self.net(embedding), None)
            case "scale_shift":
                scale, shift = self.net(F.silu(embedding)).chunk(2, dim=1)
                return Modulation(1.0 + scale, shift)
            case _:
                return Modulation(None, None)


class CellRule(nn.Module):
    """One update rule for all cells: perceive, expand, normalise, project.

    Attributes:
        config: the choices it was built from.
        channels: of the state.
        guidance: what is done to the state after all cell steps, in sampling only.
    """

    def __init__(self, config: CellConfig, channels: int, protected: tuple[int, ...]) -> None:
        """Make a rule for a state of `channels`, of which the `protected` ones are never overwritten."""
        super().__init__()
        self.config = config
        self.channels = channels
        self.guidance: SelfGuidance | None = None
        self.embedding = Embedding(config)
        seen = channels + config.embedding_channels * config.perceive_embedding
        perceived = seen + channels
        self.perceive = nn.Conv2d(seen, channels, 3)
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
                parametrizations.weight_norm(layer)
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
        """Return what the embedding says in this cell step to the cells of `region`."""
        embedding = self.embedding(t, cell_step, region, origin)
        perceived = embedding if self.config.perceive_embedding else None
        return Condition(perceived, self.gate_perception(embedding), self.gate_hidden(embedding))

    def forward(self, state: Tensor, condition: Condition, dilation: int, region: Region) -> Tensor:
        """Return the change of `state` (b, M, h, w) in one cell step; zero in the protected channels."""
        seen = state
        if condition.embedding is not None:
            everywhere = condition.embedding.expand(-1, -1, *state.shape[-2:])
            seen = torch.cat([state, everywhere.to(state.dtype)], dim=1)
        near = self.near(pad(seen, dilation, region, self.config.padding), dilation)
        perception = modulate(torch.cat([seen.to(near.dtype), near], dim=1), condition.perception)
        hidden = self.normalise(self.expand(perception))
        hidden = self.activate(hidden, condition.hidden)
        change: Tensor = self.project(hidden) * self.writable
        return change

    def near(self, padded: Tensor, dilation: int) -> Tensor:
        """Return what each cell sees of its neighbours, `dilation` cells apart."""
        weight = self.perceive.weight
        missing = -padded.shape[1] % SAFE_CHANNELS
        if missing and dilation > 1 and padded.device.type == "cpu" and torch.is_grad_enabled():
            padded, weight = (F.pad(each, (0, 0, 0, 0, 0, missing)) for each in (padded, weight))
        return F.conv2d(padded, weight, self.perceive.bias, dilation=dilation)

    def normalise(self, hidden: Tensor) -> Tensor:
        """Normalise the hidden layer, per cell over its channels, or ([1], v1) over channels and space."""
        if self.norm is not None:
            grouped: Tensor = self.norm(hidden)
            return grouped
        channels_last = hidden.movedim(1, -1)
        return F.layer_norm(channels_last, channels_last.shape[-1:], eps=NORMALISATION_EPSILON).movedim(-1, 1)

    def activate(self, hidden: Tensor, modulation: Modulation) -> Tensor:
        """Apply the activation and the modulation: a published gate after it, scale and shift before."""
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
    """Extend `state` (b, c, h, w) by `width` px per side, as its canvas goes on (or with zeros).

    An axis that is whole and circular wraps. Else the edge is mirrored: right at an edge of the canvas;
    elsewhere the caller crops what the mirror has touched (`radius` pixels).
    """
    if padding == "zeros":
        return F.pad(state, [width] * 4)
    boundary = region.canvas.boundary
    wraps = (boundary[0] == "circular" and region.is_whole_y, boundary[1] == "circular" and region.is_whole_x)
    if not any(wraps) and width < min(state.shape[-2:]):
        return F.pad(state, [width] * 4, mode="reflect")
    for axis, wrap in zip((-2, -1), wraps, strict=True):
        size = state.shape[axis]
        index = fold(torch.arange(-width, size + width), size, "circular" if wrap else "reflect")
        state = state.index_select(axis, index.to(state.device))
    return state


def run_cells(
    rule: CellRule,
    state: Tensor,
    t: Float[Tensor, " b"],
    region: Region,
    noise: CellNoise | None,
    checkpoint_cells: bool = False,
    origin: tuple[int, int] | None = None,
    first_mask: int = 0,
) -> Tensor:
    """Apply `rule` for all its cell steps to `state` (b, M, h, w), which lies on `region`, guided if it is.

    Args:
        rule: the cell rule.
        state: the state before the first cell step.
        t: diffusion time of each image, in [0, 1).
        region: where the cells lie.
        noise: which cells update; `None` updates each by the expectation of its mask.
        checkpoint_cells: recompute each cell step in the backward pass, to save memory.
        origin: the cell from which positions in pixels count; `None` is the centre of the canvas.
        first_mask: number of the first mask, so that two stages of one call draw different ones.
    """
    probability, guidance, before = rule.config.update_probability, rule.guidance, state

    def change_of(state: Tensor, k: int) -> Tensor:
        condition = rule.condition(t, torch.tensor(float(k), device=t.device), region, origin)
        change: Tensor = rule(state, condition, rule.config.dilation(k), region)
        return change

    for k in range(rule.config.num_cell_steps):
        if guidance is not None and k == guidance.from_cell_step:
            before = state
        change = (
            checkpoint(change_of, state, k, use_reentrant=False) if checkpoint_cells else change_of(state, k)
        )
        if probability < 1.0:
            drawn = noise.mask(first_mask + k, region, probability) if noise is not None else None
            change = change * (probability if drawn is None else drawn.to(change))
        state = state + change
    return state if guidance is None else guidance.lead(state, before)
