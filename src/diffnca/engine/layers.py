"""The layers of a cell rule as matrix products over rows, one row per cell.

Zeros pad the numbers of a cell to whole vectors (`LANES`), and the inputs of products to a multiple that a
`Stepper` asks for. So cell steps read and write whole vectors. Torch would round some rows of other widths
differently.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.networks.cell import CellRule, Modulator

LANES = 16
"""Numbers in a vector: all widths are multiples."""


class Dense(NamedTuple):
    """A matrix product with a summand, `rows @ weight.T + bias`; the numbers of `weight` in any order."""

    weight: Tensor
    bias: Float[Tensor, " o"]


class Layers(NamedTuple):
    """The layers of a cell step.

    Attributes:
        perceive: from the numbers of a cell and its neighbours (nine cells, row by row) to what it perceives.
        expand: from what a cell sees itself, then what it perceives, to the hidden layer.
        project: to the change of the state from the channel `first` of the widths on.
        scale: factors of the normalised hidden layer; `None` is 1.
        shift: summands of the normalised hidden layer; `None` is 0.
    """

    perceive: Dense
    expand: Dense
    project: Dense
    scale: Float[Tensor, " h"] | None = None
    shift: Float[Tensor, " h"] | None = None


class Weights(NamedTuple):
    """The numbers of a matrix product in float32: as `outputs x inputs`, and as a stepper wants them."""

    plain: Float[Tensor, "o i"]
    laid: Tensor
    bias: Float[Tensor, " o"]


@runtime_checkable
class Order(Protocol):
    """In which type and in which order the products of a cell step read weights."""

    dtype: torch.dtype
    line: int

    def laid(self, weight: Float[Tensor, "k o i"]) -> Tensor:
        """Return weights in this order, in float32."""


class Widths(NamedTuple):
    """How many numbers a cell has, with their padding.

    Attributes:
        state: channels of the state.
        seen: what a cell sees of itself: its state, then its embedding.
        stride: what it shows to its neighbours.
        near: what it perceives of its neighbours.
        perceived: inputs of the hidden layer.
        hidden: the hidden layer.
        activated: the hidden layer as an input of the projection.
        first: the first channel that changes; a multiple of `LANES` at or before it.
        plain_hidden: the hidden layer without padding.
    """

    state: int
    seen: int
    stride: int
    near: int
    perceived: int
    hidden: int
    activated: int
    first: int
    plain_hidden: int


class Places(NamedTuple):
    """Which number of a rule stands at which place of a cell, layer by layer; -1 stands for zero.

    Attributes:
        widths: how many places there are.
        shown: what a cell shows to its neighbours.
        inputs: what a cell sees itself, then what it perceives.
        hidden: the hidden layer.
    """

    widths: Widths
    shown: Int[Tensor, " i"]
    inputs: Int[Tensor, " i"]
    hidden: Int[Tensor, " h"]

    @classmethod
    def of(cls, rule: CellRule, line: int) -> Places:
        """Return the places for products whose inputs are a multiple of `line`."""
        config, channels = rule.config, rule.channels
        seen = channels + config.embedding_channels * config.perceive_embedding
        state, near, hidden = up(channels), up(channels - rule.planes), _padded(range(config.hidden))
        own = _padded([*_padded(range(channels), state), *range(channels, seen)])
        shown = _padded(own, up(len(own), line))
        inputs = [*own, *_padded(range(seen, seen + channels - rule.planes))]
        inputs = _padded(inputs, up(len(inputs), line))
        first = int(rule.writable.flatten().argmax()) // LANES * LANES
        activated, numbers = up(config.hidden, line), config.hidden
        widths = Widths(
            state, len(own), len(shown), near, len(inputs), len(hidden), activated, first, numbers
        )
        return cls(widths, torch.tensor(shown), torch.tensor(inputs), torch.tensor(hidden))

    def layers(self, rule: CellRule) -> tuple[Plain, Plain, Plain]:
        """Return what a rule perceives, its hidden layer and its projection, as matrices and summands."""
        return (
            _filled(*_perceive(rule, self.shown)),
            _filled(*_expand(rule, self.inputs)),
            _filled(*_project(rule, self.widths.activated, self.widths.first)),
        )

    def gates(self, rule: CellRule, line: int) -> tuple[Plain, Plain]:
        """Return the layers of both gates, one below the other; all inputs are multiples of `line`.

        The first of them gives what the last takes. It is empty where the last takes the embedding itself.
        """
        gates = (rule.gate_perception, rule.gate_hidden)
        inner = [_parameters_of(gate.net[0]) for gate in gates if isinstance(gate.net, nn.Sequential)]
        last = [_last(*each) for each in zip(gates, (self.inputs, self.hidden), strict=True)]
        return _below(inner, line, line), _below(last, 1, line)


Plain = tuple[Tensor, Tensor]
"""A matrix `outputs x inputs` and a summand of the outputs."""

NOTHING: Plain = torch.empty(0, 0), torch.empty(0)
"""A layer that is not there."""


class Layout:
    """A rule as matrix products; the gates of the rule give their numbers in the order of the products."""

    def __init__(self, rule: CellRule, order: Order) -> None:
        """Lay out `rule`, whose gates change, for products that read weights in this order."""
        self.rule, self.order, places = rule, order, Places.of(rule, order.line)
        self.widths, inputs = places.widths, places.inputs
        arrange(rule.gate_perception, inputs)
        arrange(rule.gate_hidden, places.hidden)
        self.perceive, self.expand, self.project = (
            Weights(weight, order.laid(weight[None]), bias) for weight, bias in places.layers(rule)
        )
        self.perceiving = Dense(self._taken(self.perceive), self.perceive.bias)

    @property
    def plain(self) -> Layers:
        """The layers without the effect of an embedding."""
        expand, project = (Dense(self._taken(each), each.bias) for each in (self.expand, self.project))
        return Layers(self.perceiving, expand, project)

    def fold(self, embedding: Float[Tensor, "k e"]) -> list[Layers]:
        """Return the layers of all cell steps, with the effect of an embedding that all cells share."""
        cells, steps = embedding[:, :, None, None], len(embedding)
        perception, hidden = (
            [None if part is None else part.flatten(1) for part in gate(cells)]
            for gate in (self.rule.gate_perception, self.rule.gate_hidden)
        )
        bias, projected = self.expand.bias.expand(steps, -1), self._scaled(self.project, None, steps)
        if perception[1] is not None:
            bias = bias + perception[1] @ self.expand.plain.mT
        expanded = self._scaled(self.expand, perception[0], steps)
        if self.rule.config.modulation == "gate":  # follows the activation
            assert hidden[0] is not None
            factors = F.pad(hidden[0], (0, self.widths.activated - self.widths.hidden))
            projected, hidden = self._scaled(self.project, factors, steps), [None, None]
        project = [Dense(weight, self.project.bias) for weight in projected]
        scale, shift = ([None] * steps if part is None else part.contiguous().unbind() for part in hidden)
        expand = map(Dense, expanded, bias.contiguous().unbind())
        return [Layers(self.perceiving, *each) for each in zip(expand, project, scale, shift, strict=True)]

    def _taken(self, weights: Weights) -> Tensor:
        return weights.laid[0].to(self.order.dtype)

    def _scaled(self, weights: Weights, factors: Float[Tensor, "k i"] | None, steps: int) -> Sequence[Tensor]:
        """Return the weights of all cell steps, whose inputs are multiplied by these factors."""
        if factors is None:
            return [self._taken(weights)] * steps
        laid = self.order.laid(factors[:, None])  # step by step, since a few weights stay in the cache
        return [(weights.laid[0] * each).to(self.order.dtype) for each in laid]


class Pointwise(nn.Module):
    """A 1x1 convolution over single cells (`r i 1 1`)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = _parameters_of(convolution)
        self.extra = -weight.shape[1] % 4
        self.take(F.pad(weight.flatten(1), (0, self.extra)), bias)

    def take(self, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]) -> None:
        """Take these weights; zeros pad the outputs, since few outputs round differently."""
        self.outputs = len(bias)
        missing = up(self.outputs) - self.outputs
        self.register_buffer("weight", F.pad(weight, (0, 0, 0, missing)))
        self.register_buffer("bias", F.pad(bias, (0, missing)))

    def forward(self, cells: Tensor) -> Tensor:
        """Return the output of the convolution for these cells."""
        rows = F.pad(cells.flatten(1), (0, self.extra)) if self.extra else cells.flatten(1)
        made = F.linear(rows, self.weight, self.bias)
        return made[:, : self.outputs, None, None]


def on_single_cells(rule: CellRule) -> CellRule:
    """Return a copy of `rule` on the CPU, in float32, whose embedding and gates work on single cells."""
    assert rule.config.normalisation == "cell", "statistics over space know no blocks"
    copied = copy.deepcopy(rule).cpu().float().requires_grad_(False)
    for part in (copied.embedding, copied.gate_perception, copied.gate_hidden):
        for module in [*part.modules()]:
            for name, child in module.named_children():
                if isinstance(child, nn.Conv2d):
                    setattr(module, name, Pointwise(child))
    return copied


def arrange(gate: Modulator, order: Int[Tensor, " o"]) -> None:
    """Let a gate of single cells give its numbers in this `order`; at -1 its layer gives zero."""
    if gate.kind == "none":
        return
    last = _last_of(gate)
    assert isinstance(last, Pointwise)
    order = _numbers(gate, order, last.outputs)
    weight, bias = last.weight[: last.outputs], last.bias[: last.outputs]
    last.take(columns(weight.mT, order).mT.contiguous(), columns(bias, order))


def _numbers(gate: Modulator, order: Int[Tensor, " o"], outputs: int) -> Int[Tensor, " n"]:
    """Return the order of the numbers that a gate gives: factors, then summands if it has any."""
    if gate.kind != "scale_shift":
        return order
    return torch.cat([order, torch.where(order < 0, -1, order + outputs // 2)])


def _last_of(gate: Modulator) -> nn.Module:
    return gate.net[-1] if isinstance(gate.net, nn.Sequential) else gate.net


def _last(gate: Modulator, order: Int[Tensor, " o"]) -> Plain:
    weight, bias = _parameters_of(_last_of(gate))
    if gate.kind == "scale_shift":  # factors are about 1
        bias = bias + torch.tensor([1.0, 0.0]).repeat_interleave(len(bias) // 2)
    order = _numbers(gate, order, len(bias))
    return columns(weight.flatten(1).mT, order).mT, columns(bias, order)


def two_layers(net: nn.Sequential, line: int) -> tuple[Plain, Plain]:
    """Return the layers of a small network, whose inputs and outputs are multiples of `line`."""
    inner, outer = (_below([_parameters_of(net[at])], line, line) for at in (0, -1))
    return inner, outer


def _below(layers: Sequence[Plain], outputs: int, inputs: int) -> Plain:
    """Return layers one below the other, whose outputs and inputs are multiples of these numbers."""
    if not layers:
        return NOTHING
    weights = [
        F.pad(weight.flatten(1), (0, -weight.shape[1] % inputs, 0, -len(weight) % outputs))
        for weight, _ in layers
    ]
    biases = [F.pad(bias, (0, -len(bias) % outputs)) for _, bias in layers]
    return torch.cat(weights), torch.cat(biases)


def up(numbers: int, multiple: int = LANES) -> int:
    """Return the least multiple that is not smaller."""
    return numbers + -numbers % multiple


def _padded(order: Sequence[int], count: int | None = None) -> list[int]:
    """Return an order with -1, which stands for zero, up to `count` or to whole vectors."""
    return [*order, *[-1] * ((up(len(order)) if count is None else count) - len(order))]


def _filled(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]) -> Plain:
    """Return a layer whose outputs are whole vectors."""
    missing = up(len(bias)) - len(bias)
    return F.pad(weight, (0, 0, 0, missing)), F.pad(bias, (0, missing))


def _parameters_of(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.bias is not None
    return convolution.weight, convolution.bias


def columns(weight: Tensor, order: Int[Tensor, " i"]) -> Tensor:
    """Return these columns; -1 stands for zeros."""
    return F.pad(weight, (0, 1)).index_select(-1, order.remainder(weight.shape[-1] + 1))


def _perceive(rule: CellRule, shown: Int[Tensor, " i"]) -> tuple[Tensor, Tensor]:
    weight, bias = _parameters_of(rule.perceive)
    weight = F.pad(weight, (0, 0, 0, 0, rule.planes, 0))  # cells do not see the planes of their neighbours
    return columns(weight.permute(0, 2, 3, 1), shown).flatten(1), bias


def _expand(rule: CellRule, inputs: Int[Tensor, " i"]) -> tuple[Tensor, Tensor]:
    weight, bias = _parameters_of(rule.expand)
    return columns(weight.flatten(1), inputs), bias


def _project(rule: CellRule, inputs: int, first: int) -> tuple[Tensor, Tensor]:
    weight, bias = _parameters_of(rule.project)
    writable = rule.writable.flatten()
    weight = F.pad(weight.flatten(1) * writable[:, None], (0, inputs - weight.shape[1]))
    return weight[first:], (bias * writable)[first:]
