"""The layers of a cell rule as matrix products over rows, one row per cell.

Zeros pad the numbers of a cell to whole vectors (`LANES`), and the inputs of products to a multiple that a
`Stepper` asks for. So cell steps read and write whole vectors. Torch would round some rows of other widths
differently.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.networks.cell import CellRule, Modulator

LANES = 16
"""Numbers in a vector: all widths are multiples."""


class Dense(NamedTuple):
    """A matrix product with a summand, `rows @ weight.T + bias`, for each cell step or (`k = 1`) for all."""

    weight: Float[Tensor, "k o i"]
    bias: Float[Tensor, "k o"]

    def at(self, k: int) -> Dense:
        """Return the layer of cell step `k`."""
        return Dense(_at(self.weight, k), _at(self.bias, k))


class Layers(NamedTuple):
    """The layers of all cell steps, or of one.

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
    scale: Float[Tensor, "k h"] | None = None
    shift: Float[Tensor, "k h"] | None = None

    def at(self, k: int) -> Layers:
        """Return the layers of cell step `k`."""
        scale, shift = (None if part is None else _at(part, k) for part in (self.scale, self.shift))
        return Layers(self.perceive.at(k), self.expand.at(k), self.project.at(k), scale, shift)

    def ready(self, weight: Callable[[Tensor], Tensor], bias: Callable[[Tensor], Tensor]) -> Layers:
        """Return layers whose weights and summands have another form."""
        layers = (self.perceive, self.expand, self.project)
        perceive, expand, project = (Dense(weight(each.weight), bias(each.bias)) for each in layers)
        return Layers(perceive, expand, project, self.scale, self.shift)


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


class Layout:
    """A rule as matrix products; the gates of the rule give their numbers in the order of the products."""

    def __init__(self, rule: CellRule, line: int) -> None:
        """Lay out `rule`, whose gates change; the inputs of each product are a multiple of `line`."""
        self.rule, config, channels = rule, rule.config, rule.channels
        seen = channels + config.embedding_channels * config.perceive_embedding
        state, near, hidden = up(channels), up(channels - rule.planes), up(config.hidden)
        own = _padded([*_padded(range(channels), state), *range(channels, seen)])
        shown = _padded(own, up(len(own), line))
        inputs = [*own, *_padded(range(seen, seen + channels - rule.planes))]
        inputs = _padded(inputs, up(len(inputs), line))
        writable = rule.writable.flatten()
        first = int(writable.argmax()) // LANES * LANES
        activated = up(config.hidden, line)
        self.widths = Widths(
            state, len(own), len(shown), near, len(inputs), hidden, activated, first, config.hidden
        )
        for gate, order in (
            (rule.gate_perception, inputs),
            (rule.gate_hidden, _padded(range(config.hidden))),
        ):
            arrange(gate, torch.tensor(order))
        self.plain = Layers(
            _perceive(rule, torch.tensor(shown)),
            _dense(rule.expand, torch.tensor(inputs)),
            _project(rule, activated, first),
        )

    def fold(self, embedding: Float[Tensor, "k e"]) -> Layers:
        """Return layers with the effect of the embedding of each cell step, which is equal for all cells."""
        cells = embedding[:, :, None, None]
        perception, hidden = self.rule.gate_perception(cells), self.rule.gate_hidden(cells)
        perceive, (weight, bias), project, _, _ = self.plain
        if perception.shift is not None:
            bias = bias + perception.shift.flatten(1) @ weight[0].mT
        if perception.scale is not None:
            weight = weight * perception.scale.flatten(1)[:, None]
        scale, shift = (None if part is None else part.flatten(1) for part in hidden)
        if self.rule.config.modulation == "gate":  # follows the activation
            assert scale is not None
            factors = F.pad(scale, (0, self.widths.activated - self.widths.hidden))
            return Layers(
                perceive, Dense(weight, bias), Dense(project.weight * factors[:, None], project.bias)
            )
        return Layers(perceive, Dense(weight, bias), project, scale, shift)


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
    last = gate.net[-1] if isinstance(gate.net, nn.Sequential) else gate.net
    assert isinstance(last, Pointwise)
    if gate.kind == "scale_shift":  # has all factors, then all summands
        order = torch.cat([order, torch.where(order < 0, -1, order + last.outputs // 2)])
    weight, bias = last.weight[: last.outputs], last.bias[: last.outputs]
    last.take(_columns(weight.mT, order).mT.contiguous(), _columns(bias, order))


def up(numbers: int, multiple: int = LANES) -> int:
    """Return the least multiple that is not smaller."""
    return numbers + -numbers % multiple


def _at(numbers: Tensor, k: int) -> Tensor:
    return numbers[min(k, len(numbers) - 1)]


def _padded(order: Sequence[int], count: int | None = None) -> list[int]:
    """Return an order with -1, which stands for zero, up to `count` or to whole vectors."""
    return [*order, *[-1] * ((up(len(order)) if count is None else count) - len(order))]


def _parameters_of(convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert convolution.bias is not None
    return convolution.weight.detach(), convolution.bias.detach()


def _columns(weight: Tensor, order: Int[Tensor, " i"]) -> Tensor:
    return F.pad(weight, (0, 1))[..., order]


def _perceive(rule: CellRule, shown: Int[Tensor, " i"]) -> Dense:
    weight, bias = _parameters_of(rule.perceive)
    weight = F.pad(weight, (0, 0, 0, 0, rule.planes, 0))  # cells do not see the planes of their neighbours
    return _whole(_columns(weight.permute(0, 2, 3, 1), shown).flatten(1), bias)


def _dense(convolution: nn.Conv2d, order: Int[Tensor, " i"]) -> Dense:
    weight, bias = _parameters_of(convolution)
    return _whole(_columns(weight.flatten(1), order), bias)


def _project(rule: CellRule, inputs: int, first: int) -> Dense:
    weight, bias = _parameters_of(rule.project)
    writable = rule.writable.flatten()
    weight = F.pad(weight.flatten(1) * writable[:, None], (0, inputs - weight.shape[1]))
    return _whole(weight[first:], (bias * writable)[first:])


def _whole(weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]) -> Dense:
    missing = up(len(bias)) - len(bias)
    return Dense(F.pad(weight, (0, 0, 0, missing))[None], F.pad(bias, (0, missing))[None])
