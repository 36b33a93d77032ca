"""The cell rule: neighbourhoods at edges, normalisation, modulation, masks, all written out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region, fold
from diffnca.config.networks import CellConfig
from diffnca.networks.cell import CellRule, EagerCells, Modulation, modulate, pad, run_cells, unfolded

ROW = torch.tensor([[[[1.0, 2.0, 3.0]]]])  # one row of three pixels
T = torch.tensor([0.5])


def rule_of(config: CellConfig, channels: int = 4, protected: tuple[int, ...] = (0,)) -> CellRule:
    torch.manual_seed(0)
    rule = CellRule(config, channels, protected)
    for parameter in rule.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return rule


def state_of(channels: int = 4, height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(1))


def test_a_reflecting_edge_is_mirrored_without_repeating_it() -> None:
    padded = pad(ROW, 2, Canvas(1, 3).whole, "reflect")
    assert padded[0, 0, 2].tolist() == [3, 2, 1, 2, 3, 2, 1]


def test_a_side_of_one_pixel_is_replicated() -> None:
    padded = pad(ROW, 2, Canvas(1, 3).whole, "reflect")
    assert all(torch.equal(padded[..., row, :], padded[..., 2, :]) for row in range(5))


def test_a_circular_axis_goes_on_from_its_start() -> None:
    padded = pad(ROW, 2, Canvas(1, 3, ("reflect", "circular")).whole, "reflect")
    assert padded[0, 0, 2].tolist() == [2, 3, 1, 2, 3, 1, 2]


def test_a_part_of_a_circular_axis_does_not_wrap() -> None:
    part = Region(0, 4, 1, 3, Canvas(1, 9, ("reflect", "circular")))
    assert pad(ROW, 1, part, "reflect")[0, 0, 1].tolist() == [2, 1, 2, 3, 2]


def test_zeros_lie_around_a_zero_padded_state() -> None:
    assert pad(ROW, 1, Canvas(1, 3).whole, "zeros")[0, 0].tolist() == [[0] * 5, [0, 1, 2, 3, 0], [0] * 5]


@given(height=st.integers(1, 7), width=st.integers(1, 7), padding=st.integers(1, 9))
def test_any_state_can_be_padded_by_any_width(height: int, width: int, padding: int) -> None:
    padded = pad(torch.rand(1, 2, height, width), padding, Canvas(height, width).whole, "reflect")
    assert padded.shape == (1, 2, height + 2 * padding, width + 2 * padding)


@given(
    size=st.integers(1, 6),
    width=st.integers(1, 14),
    wraps=st.booleans(),
    axis=st.sampled_from([-2, -1]),
)
def test_an_axis_is_extended_part_by_part_as_at_once(size: int, width: int, wraps: bool, axis: int) -> None:
    state = torch.arange(3.0 * size).view(1, 1, *((size, 3) if axis == -2 else (3, size)))
    index = fold(torch.arange(-width, size + width), size, "circular" if wraps else "reflect")
    assert torch.equal(unfolded(state, axis, width, wraps), state.index_select(axis, index))


def test_a_cell_step_is_what_the_paper_writes_down() -> None:
    config = CellConfig(hidden=8, modulation="gate", embedding_channels=4, perceive_embedding=True)
    rule, state, region = rule_of(config), state_of(), Canvas(6, 5).whole
    embedding = rule.embedding(T, torch.tensor(0.0), region)
    seen = torch.cat([state, embedding.expand(-1, -1, 6, 5)], dim=1)
    near = rule.perceive(F.pad(seen, [1, 1, 1, 1], mode="reflect"))
    hidden = rule.expand(torch.cat([seen, near], dim=1) * rule.gate_perception.net(embedding))
    mean, variance = hidden.mean(dim=1, keepdim=True), hidden.var(dim=1, keepdim=True, unbiased=False)
    hidden = F.leaky_relu((hidden - mean) / (variance + 1e-5).sqrt(), 0.01)
    change = rule.project(hidden * rule.gate_hidden.net(embedding))
    change[:, 0] = 0.0  # protected
    found = rule(state, rule.condition(T, torch.tensor(0.0), region), 1, region)
    torch.testing.assert_close(found, change)


def test_group_normalisation_takes_its_statistics_over_channels_and_space() -> None:
    rule = rule_of(CellConfig(hidden=8, normalisation="group"))
    hidden = state_of(channels=8)
    expected = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + 1e-5).sqrt()
    weight, bias = rule.norm.weight[:, None, None], rule.norm.bias[:, None, None]
    torch.testing.assert_close(rule.normalise(hidden), expected * weight + bias)


def test_the_normalisation_of_a_cell_sees_no_other_cell() -> None:
    rule, hidden = rule_of(CellConfig(hidden=8)), state_of(channels=8)
    touched = hidden.clone()
    touched[..., 2, 3] += 1.0
    changed = (rule.normalise(hidden) != rule.normalise(touched)).any(dim=1)[0]
    assert changed.nonzero().tolist() == [[2, 3]]


def test_an_empty_modulation_leaves_the_layer() -> None:
    assert modulate(ROW, Modulation(None, None)) is ROW


def test_scale_and_shift_come_before_the_activation() -> None:
    rule = rule_of(CellConfig(hidden=1))
    layer = torch.full((1, 1, 1, 1), 2.0)
    modulation = Modulation(torch.tensor([[[[-1.0]]]]), torch.tensor([[[[1.0]]]]))
    assert rule.activate(layer, modulation).item() == pytest.approx(-0.01)


def test_a_gate_comes_after_the_activation() -> None:
    rule = rule_of(CellConfig(hidden=1, modulation="gate"))
    layer = torch.full((1, 1, 1, 1), 2.0)
    assert rule.activate(layer, Modulation(torch.tensor([[[[-1.0]]]]), None)).item() == -2.0


def test_without_positions_the_condition_is_one_for_all_cells() -> None:
    rule = rule_of(CellConfig(hidden=8))
    condition = rule.condition(T, torch.tensor(0.0), Canvas(30, 40).whole)
    assert condition.hidden.scale.shape == (1, 8, 1, 1)


def test_dilations_are_repeated_cell_step_after_cell_step() -> None:
    config = CellConfig(num_cell_steps=5, dilations=(1, 2, 4))
    assert [config.dilation(k) for k in range(5)] == [1, 2, 4, 1, 2]
    assert config.radius == 10


def test_without_noise_a_change_is_scaled_by_the_update_probability() -> None:
    config = CellConfig(hidden=8, num_cell_steps=1)
    state, region = state_of(), Canvas(6, 5).whole
    full = run_cells(rule_of(config), state, T, region, None) - state
    expected = run_cells(rule_of(replace(config, update_probability=0.25)), state, T, region, None) - state
    torch.testing.assert_close(expected, 0.25 * full)


def test_masks_are_asked_for_by_cell_step_region_and_probability() -> None:
    asked = []

    class Recorder:
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            asked.append((cell_step, region, probability))
            return torch.ones(1, 1, 6, 5, dtype=torch.bool)

    region = Region(3, 2, 6, 5, Canvas(20, 20))
    rule = rule_of(CellConfig(hidden=8, num_cell_steps=2, update_probability=0.5))
    run_cells(rule, state_of(), T, region, Recorder(), first_mask=7)
    assert asked == [(7, region, 0.5), (8, region, 0.5)]


def test_where_every_cell_updates_no_mask_is_drawn() -> None:
    class Refuser:
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            raise AssertionError("not needed")

    rule = rule_of(CellConfig(hidden=8, num_cell_steps=1))
    assert run_cells(rule, state_of(), T, Canvas(6, 5).whole, Refuser()).isfinite().all()


def test_the_g_vectors_of_weight_norm_are_parameters() -> None:
    plain, normed = (rule_of(CellConfig(hidden=8, weight_norm=norm)) for norm in (False, True))
    convolutions = [m for m in plain.modules() if isinstance(m, torch.nn.Conv2d)]
    count = sum(m.out_channels for m in convolutions)
    assert sum(p.numel() for p in normed.parameters()) - sum(p.numel() for p in plain.parameters()) == count


@pytest.mark.parametrize("channels", [20, 36, 48])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_the_gradient_of_the_perception_in_half_precision_is_that_in_full(
    channels: int, dilation: int
) -> None:
    rule, generator = CellRule(CellConfig(), channels, ()), torch.Generator().manual_seed(0)
    side = 36  # from about 32 cells on oneDNN goes wrong where channels are no multiple of 16
    padded = torch.randn(2, channels, side + 2 * dilation, side + 2 * dilation, generator=generator)
    padded = padded.contiguous(memory_format=torch.channels_last)
    gradients = []
    for is_half in (False, True):
        rule.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            near = rule.near(padded, dilation)
        near.float().square().sum().backward()
        gradients.append(rule.perceive.weight.grad.clone())
    difference = gradients[1] - gradients[0]
    assert float(difference.norm() / gradients[0].norm()) < 0.02


@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "circular")])
def test_masks_are_drawn_for_needed_cells_alone(boundary: tuple[Boundary, Boundary]) -> None:
    config, noise, drawn = CellConfig(hidden=8, num_cell_steps=2, update_probability=0.5), Noise((4,)), []
    rule, wanted = rule_of(config), Region(1, 12, 5, 6, Canvas(40, 40, boundary))
    region = wanted.grow(2)

    class Recorder:
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            drawn.append(region.area)
            return noise.at(0).mask(cell_step, region, probability)

    state = state_of(height=region.height, width=region.width)
    found = run_cells(rule, state, T, region, Recorder(), wanted=wanted)
    expected = run_cells(rule, state, T, region, noise.at(0))
    assert torch.equal(wanted.crop(found, of=region), wanted.crop(expected, of=region))
    assert drawn == [wanted.grow(1).area, wanted.area]


@dataclass
class Neglected:
    """Cells of which those that are not needed are lost after each cell step."""

    cells: EagerCells
    updated: list[int]

    def advance(self, k: int, mask: Tensor | None, needed: Region) -> None:
        self.cells.advance(k, mask, needed)
        lost, region = torch.ones_like(self.cells.current, dtype=torch.bool), self.cells.region
        needed.crop(lost, of=region).fill_(False)
        self.cells.current[lost] = math.nan
        self.updated.append(needed.area)

    def state(self) -> Tensor:
        return self.cells.current


@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "circular")])
def test_what_is_wanted_depends_on_needed_cells_alone(boundary: tuple[Boundary, Boundary]) -> None:
    config = CellConfig(hidden=8, num_cell_steps=3, dilations=(1, 2, 1))
    rule, canvas, updated = rule_of(config), Canvas(40, 40, boundary), []
    wanted = Region(3, 12, 5, 6, canvas)
    region = wanted.grow(4)
    state = state_of(height=region.height, width=region.width)

    class Forgetful:
        config, guidance = rule.config, None

        @contextmanager
        def begin(self, *arguments: Any) -> Iterator[Neglected]:
            with rule.begin(*arguments) as cells:
                yield Neglected(cells, updated)

    found = run_cells(Forgetful(), state, T, region, None, wanted=wanted)
    expected = run_cells(rule, state, T, region, None)
    assert torch.equal(wanted.crop(found, of=region), wanted.crop(expected, of=region))
    assert updated == [wanted.grow(3).area, wanted.grow(1).area, wanted.area]
