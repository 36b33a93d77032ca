"""Guidance: the formula, what both models must have in common, and that parts are parts of the whole."""

from dataclasses import replace

import pytest
import torch

from diffnca import Canvas, Region, generate, load
from diffnca.config import ScheduleConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.recipes import recipe_named
from diffnca.tasks import Guided
from diffnca.training.checkpoint import build_denoiser


def fresh(recipe: str = "diff_nca", seed: int = 0, steps: int = 2) -> Denoiser:
    """Return a model that has learnt nothing, of few cell steps."""
    config = recipe_named(recipe)
    cell = replace(config.model.cell, hidden=16, num_cell_steps=steps)
    torch.manual_seed(seed)
    model = build_denoiser(replace(config, model=replace(config.model, cell=cell))).eval()
    for weight in model.requires_grad_(False).parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    return model


def test_it_goes_on_along_the_line_from_the_weaker_to_the_better_one() -> None:
    better, weaker = fresh(seed=1), fresh(seed=2, steps=3)
    x_t, level, whole = torch.randn(1, 3, 12, 12), better.schedule.level(150), Canvas(12, 12).whole
    own, other = (each.x_0_estimate(x_t, level, whole) for each in (better, weaker))
    found = Guided(better, weaker, 3.0).x_0_estimate(x_t, level, whole, None, None)
    torch.testing.assert_close(found, other + 3.0 * (own - other))


def test_a_guidance_of_one_is_the_better_model_to_the_bit() -> None:
    better, size = fresh(seed=1), {"height": 16, "width": 20, "steps": 3}
    assert torch.equal(generate(Guided(better, fresh(), 1.0), **size), generate(better, **size))


def test_a_part_is_the_same_to_the_bit_as_in_the_whole() -> None:
    model = Guided(fresh(seed=1), fresh(seed=2, steps=4), 2.0)
    assert model.radius == max(model.denoiser.radius, model.guide.radius)
    canvas, options = Canvas(90, 80), {"height": 90, "width": 80, "steps": 2, "seed": 4}
    part = Region(31, 17, 12, 9, canvas)
    assert torch.equal(
        generate(model, region=part, **options), part.crop(generate(model, **options), canvas.whole)
    )


def test_models_of_the_whole_share_what_they_know_of_it() -> None:
    better, weaker = fresh("fourier_diff_nca", 1), fresh("fourier_diff_nca", 2)
    model, whole = Guided(better, weaker, 2.0), Canvas(64, 64).whole
    x_t, level = torch.randn(1, 3, 64, 64), better.schedule.level(150)
    context = model.context(x_t, level, whole)
    alone = [each.x_0_estimate(x_t, level, whole) for each in (better, weaker)]
    torch.testing.assert_close(
        model.x_0_estimate(x_t, level, whole, None, context), 2.0 * alone[0] - alone[1]
    )


def test_a_guide_of_other_noise_levels_is_refused() -> None:
    other = build_denoiser(replace(recipe_named("diff_nca"), schedule=ScheduleConfig("linear", 300)))
    with pytest.raises(ValueError, match="guide diff_nca: must have a schedule"):
        Guided(fresh(), other, 2.0)


def test_a_guide_that_sees_no_whole_is_refused_where_the_model_does() -> None:
    with pytest.raises(
        ValueError, match="guide pathology.*: must have a window|guide diff_nca: must have a window"
    ):
        Guided(fresh("fourier_diff_nca"), load("pathology"), 2.0)


@pytest.mark.parametrize("guidance", [0.5, 11.0, float("nan")])
def test_a_guidance_out_of_range_is_refused(guidance: float) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 10"):
        Guided(fresh(), fresh(), guidance)
