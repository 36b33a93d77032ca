"""The cell rule as nodes of a graph: what `diffnca.networks.cell` computes on a whole canvas of any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from diffnca.export.graph import Graph, Value
from diffnca.export.grid import Grid
from diffnca.networks.cell import LEAKY_SLOPE, NORMALISATION_EPSILON, CellRule, Modulator
from diffnca.networks.embedding import FourierEmbedding, LinearEmbedding


@dataclass(frozen=True, eq=False)
class Drawing:
    """A cell rule that is drawn into a graph."""

    graph: Graph
    rule: CellRule

    def run(
        self, state: Value, known: int, t: Value, grid: Grid, masks: Value | None, first_mask: int
    ) -> Value:
        """Return the state after all cell steps, as `run_cells` does.

        `state` holds the first `known` channels, and `t` the diffusion times (b 1 1 1). The channels of
        `masks`, from `first_mask` on, say which cells update; `None` updates each by its expectation.
        """
        guidance, config = self.rule.guidance, self.rule.config
        state, before = padded_channels(state, self.rule.channels - known), None
        for k in range(config.num_cell_steps):
            if guidance is not None and k == guidance.from_cell_step:
                before = state
            change = self.change(state, t, k, grid)
            if config.update_probability < 1.0:
                mask = None if masks is None else masks.channels(first_mask + k, first_mask + k + 1)
                change = change * (config.update_probability if mask is None else mask)
            state = state + change
        if guidance is None or before is None:
            return state
        return before + (state - before) * guidance.strength

    def change(self, state: Value, t: Value, k: int, grid: Grid) -> Value:
        """Return the change of a state in cell step `k`."""
        rule, config = self.rule, self.rule.config
        embedding, seen = self.embedding(t, k, grid), state
        if config.perceive_embedding:
            plane = seen.channels(0, 1) * 0.0
            seen = self.graph.concat([seen, embedding + plane])
        dilation = config.dilation(k)
        others = seen.channels(rule.planes, 2**31 - 1) if rule.planes else seen
        near = self.layer(rule.perceive, grid.padded(others, dilation, config.padding), dilation)
        perception = self.modulated(self.graph.concat([seen, near]), embedding, rule.gate_perception)
        hidden = self.normalised(self.layer(rule.expand, perception))
        if config.modulation == "scale_shift":
            hidden = self.leaky(self.modulated(hidden, embedding, rule.gate_hidden))
        else:
            hidden = self.modulated(self.leaky(hidden), embedding, rule.gate_hidden)
        writable = rule.writable.flatten()
        weight = rule.project.weight * writable[:, None, None, None]
        assert rule.project.bias is not None
        return self.convolved(hidden, weight, rule.project.bias * writable)

    def embedding(self, t: Value, k: int, grid: Grid) -> Value:
        """Return the embedding of time, cell step and place (b e h w; without places, h = w = 1)."""
        own, features = self.rule.embedding, self.rule.embedding.features
        places = grid.positions(own.config.positions)
        nothing = places[0] * 0.0 if places else t * 0.0
        clocks = [t + nothing, t * 0.0 + nothing + k / own.period]
        numbers = self.graph.concat([*(each + t * 0.0 for each in places), *clocks])
        count = len(places) + 2
        if isinstance(features, LinearEmbedding):
            return self.network(features.net, self.spread(numbers, features.waves))
        assert isinstance(features, FourierEmbedding)
        angles = self.spread(numbers, features.rates.expand(count, -1))
        waves = self.graph.concat([self.graph.add("Cos", angles), self.graph.add("Sin", angles)])
        return self.network(features.net, waves)

    def spread(self, numbers: Value, factors: torch.Tensor) -> Value:
        """Return each channel times each of its factors (channels, factors)."""
        matrix = torch.block_diag(*(row[:, None] for row in factors)).float()
        return self.graph.add("Conv", numbers, self.graph.constant(matrix[:, :, None, None].cpu().numpy()))

    def modulated(self, layer: Value, embedding: Value, modulator: Modulator) -> Value:
        """Return a layer, scaled and shifted as the embedding says."""
        if modulator.kind == "none":
            return layer
        if modulator.kind == "gate":
            return layer * self.network(modulator.net, embedding)
        assert isinstance(modulator.net, nn.Conv2d)
        both, half = self.layer(modulator.net, self.silu(embedding)), modulator.net.out_channels // 2
        return layer * (both.channels(0, half) + 1.0) + both.channels(half, 2 * half)

    def normalised(self, hidden: Value) -> Value:
        """Return the hidden layer with mean 0 and variance 1, for each cell or over all cells."""
        norm = self.rule.norm
        axes, epsilon = ([1], NORMALISATION_EPSILON) if norm is None else ([1, 2, 3], norm.eps)
        centred = hidden - self.graph.add("ReduceMean", hidden, axes=axes)
        variance = self.graph.add("ReduceMean", centred * centred, axes=axes)
        normal = centred / self.graph.add("Sqrt", variance + epsilon)
        if norm is None:
            return normal
        scale, shift = (self.graph.weight(each).shaped(1, -1, 1, 1) for each in (norm.weight, norm.bias))
        return normal * scale + shift

    def network(self, net: nn.Module, x: Value) -> Value:
        """Return the output of a small network for single cells."""
        assert isinstance(net, nn.Sequential)
        for layer in net:
            x = self.layer(layer, x) if isinstance(layer, nn.Conv2d) else self.silu(x)
        return x

    def layer(self, layer: nn.Conv2d, x: Value, dilation: int = 1) -> Value:
        """Return the output of a convolution without padding."""
        assert layer.bias is not None
        return self.convolved(x, layer.weight, layer.bias, dilation)

    def convolved(self, x: Value, weight: torch.Tensor, bias: torch.Tensor, dilation: int = 1) -> Value:
        """Return the output of a convolution with these weights."""
        both = (self.graph.weight(each) for each in (weight, bias))
        return self.graph.add("Conv", x, *both, dilations=[dilation, dilation])

    def silu(self, x: Value) -> Value:
        """Return the numbers, each times its sigmoid."""
        return x * self.graph.add("Sigmoid", x)

    def leaky(self, x: Value) -> Value:
        """Return the numbers, those below zero made small."""
        return self.graph.add("LeakyRelu", x, alpha=LEAKY_SLOPE)


def padded_channels(state: Value, count: int) -> Value:
    """Return a state with so many more channels of zeros."""
    sides = state.graph.constant(np.array([0, 0, 0, 0, 0, count, 0, 0], np.int64))
    return state.graph.add("Pad", state, sides) if count else state
