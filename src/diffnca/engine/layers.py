"""The layers of a cell rule as matrix products over the rows of a block, one row per cell.

Zeros pad widths to multiples of 4 and outputs to at least 16: other products round some rows differently.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.networks.cell import CellRule, Modulation


class Dense(NamedTuple):
    """A matrix product with a summand: `rows @ weight.T + bias`."""

    weight: Float[Tensor, "o i"]
    bias: Float[Tensor, " o"]

    def __call__(self, rows: Float[Tensor, "r i"]) -> Float[Tensor, "r o"]:
        """Return the output of the layer for these rows."""
        return F.linear(rows, self.weight, self.bias)

    def to(self, dtype: torch.dtype) -> Dense:
        """Return the layer in `dtype`."""
        return Dense(self.weight.to(dtype), self.bias.to(dtype))


class Pointwise(nn.Module):
    """A 1x1 convolution over single cells (`r i 1 1`)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = _parameters_of(convolution)
        self.outputs, self.extra = len(bias), -weight.shape[1] % 4
        layer = _tall(F.pad(weight.flatten(1), (0, self.extra)), bias)
        self.register_buffer("weight", layer.weight)
        self.register_buffer("bias", layer.bias)

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


@dataclass(frozen=True)
class Layers:
    """The layers of a cell rule, for states that are zero after their first channels.

    Attributes:
        perceive: from `kept` numbers of a cell and of each of its neighbours to what the cell perceives.
        expand: from the kept numbers of a cell and what it perceives to the hidden layer.
        project: to the change of the state, 0 in protected channels, the first of which may be missing.
        order: position of each input of `expand` in the perception of the rule; -1 is padding.
        shifted: the weight of `expand` for the complete perception of the rule.
        scale: factors of the normalised hidden layer; `None` is 1.
        shift: summands of the normalised hidden layer; `None` is 0.
    """

    perceive: Dense
    expand: Dense
    project: Dense
    kept: int
    order: Int[Tensor, " i"]
    shifted: Float[Tensor, "o p"]
    scale: Float[Tensor, " h"] | None = None
    shift: Float[Tensor, " h"] | None = None

    def to(self, dtype: torch.dtype) -> Layers:
        """Return layers that multiply in `dtype`."""
        perceive, expand, project = (layer.to(dtype) for layer in (self.perceive, self.expand, self.project))
        return replace(self, perceive=perceive, expand=expand, project=project)

    def damp(self, probability: float) -> Layers:
        """Return layers whose change is the average change of a cell that updates with this probability."""
        return replace(self, project=Dense(*(part * probability for part in self.project)))

    def modulate(self, perception: Modulation, hidden: Modulation, is_after_activation: bool) -> Layers:
        """Return layers with two modulations folded in that are equal for all cells (`1 c 1 1`)."""
        weight, bias = self.expand
        if perception.shift is not None:
            bias = bias + self.shifted @ perception.shift.flatten()  # also for zero channels
        if perception.scale is not None:
            weight = weight * perception.scale.flatten()[self.order]
        scale, shift = (None if part is None else part.flatten() for part in hidden)
        layers = replace(self, expand=Dense(weight, bias))
        if not is_after_activation:
            return replace(layers, scale=scale, shift=shift)
        assert scale is not None
        assert shift is None
        factors = F.pad(scale, (0, self.project.weight.shape[1] - len(scale)))
        return replace(layers, project=self.project._replace(weight=self.project.weight * factors))


def lay_out(rule: CellRule, active: int, written: int) -> Layers:
    """Return the layers of `rule` for states that are zero from `active` on, for outputs from `written`."""
    perceive, perceive_bias = _parameters_of(rule.perceive)
    perceive = F.pad(
        perceive, (0, 0, 0, 0, rule.planes, 0)
    )  # cells do not see the planes of their neighbours
    expand, expand_bias = _parameters_of(rule.expand)
    project, project_bias = _parameters_of(rule.project)
    channels, seen = rule.channels, perceive.shape[1]
    perceived = channels - rule.planes
    kept = [*range(active), *range(channels, seen)]
    kept += [-1] * (-len(kept) % 4)
    near = [*range(seen, seen + perceived)] + [-1] * (_padded(perceived) - perceived)
    order = torch.tensor(kept + near)
    writable = rule.writable.flatten()
    everything, hidden = _tall(expand.flatten(1), expand_bias), len(expand_bias)
    project = F.pad(project.flatten(1), (0, _padded(hidden) - hidden))
    return Layers(
        perceive=_tall(_columns(perceive.permute(0, 2, 3, 1), order[: len(kept)]).flatten(1), perceive_bias),
        expand=everything._replace(weight=_columns(everything.weight, order)),
        project=_tall((project * writable[:, None])[written:], (project_bias * writable)[written:]),
        kept=len(kept),
        order=order,
        shifted=everything.weight,
    )


def _parameters_of(convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert convolution.bias is not None
    return convolution.weight.detach(), convolution.bias.detach()


def _padded(outputs: int) -> int:
    return max(16, outputs + -outputs % 4)


def _columns(weight: Tensor, order: Tensor) -> Tensor:
    return F.pad(weight, (0, 1))[..., order]


def _tall(weight: Tensor, bias: Tensor) -> Dense:
    extra = _padded(len(bias)) - len(bias)
    return Dense(F.pad(weight, (0, 0, 0, extra)), F.pad(bias, (0, extra)))
