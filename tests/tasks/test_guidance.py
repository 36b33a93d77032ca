"""Guidance: the formula, what both models must have in common, and that parts are parts of the whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca import Canvas, Region, generate, load
from diffnca.cli import main
from diffnca.config import SamplingConfig, ScheduleConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.models.diff_nca import prediction
from diffnca.models.patches import PatchGrid
from diffnca.pixels import to_uint8
from diffnca.recipes import recipe_named
from diffnca.tasks import Guided, guided
from diffnca.training.checkpoint import build_denoiser, build_model, write_model


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


@pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
def test_the_guide_leaves_out_the_last_cell_step_of_each_stage(recipe: str) -> None:
    own = recipe_named(recipe).model
    found = guided(build_denoiser(recipe_named(recipe)), 1.5).guide.config.model
    left_out = [a.num_cell_steps - b.num_cell_steps for a, b in zip(own.stages, found.stages, strict=True)]
    assert left_out == [1] * len(own.stages)


def test_what_a_guide_says_stands_in_the_state_before_the_last_cell_step() -> None:
    model = fresh(steps=4)
    weaker, states = guided(model, 1.5).guide, []
    x_t, t = torch.randn(1, 3, 32, 32), torch.tensor([0.4])
    model.network.image.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    model.network(x_t, t)
    grid = PatchGrid(Canvas(32, 32).whole, model.config.model.patch)
    expected = grid.scatter(prediction(states[-1], model.config.model.cell_image_channels))
    torch.testing.assert_close(weaker.network(x_t, t), expected)


def test_what_the_configuration_says_is_done_unless_something_else_is_asked_for() -> None:
    model, size = fresh(steps=3), {"height": 16, "width": 20, "steps": 2}
    alone = generate(model, **size)
    own = replace(model.config, sampling=replace(model.config.sampling, guidance=1.7))
    asking = Denoiser(model.network, model.schedule, own)
    assert torch.equal(generate(asking, **size), generate(guided(model, 1.7), **size))
    assert not torch.equal(generate(asking, **size), alone)
    assert torch.equal(generate(guided(asking, 1.0), **size), alone)


def test_the_guide_shares_the_weights() -> None:
    model = fresh(steps=3)
    pairs = zip(model.parameters(), guided(model, 2.0).guide.parameters(), strict=True)
    assert all(own.data_ptr() == other.data_ptr() for own, other in pairs)


@pytest.mark.parametrize("left_out", [0, 3])
def test_a_guide_without_cell_steps_is_refused(left_out: int) -> None:
    model = fresh(steps=3)
    with pytest.raises(ValueError, match=f"guide_leaves_out={left_out}: must be from 1 to 2"):
        replace(model.config, sampling=SamplingConfig(guidance=2.0, guide_leaves_out=left_out))


def test_a_unet_has_no_cell_steps_to_leave_out() -> None:
    with pytest.raises(ValueError, match="sampling.guidance=2.0: must be 1 for a model without cells"):
        replace(recipe_named("unet_1m"), sampling=SamplingConfig(guidance=2.0))


@pytest.mark.parametrize("guidance", [0.5, 11.0, float("nan")])
def test_a_guidance_out_of_range_is_refused(guidance: float) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 10"):
        Guided(fresh(), fresh(), guidance)


class TestCommand:
    def test_a_guided_image_is_that_of_the_python_function(self, tmp_path: Path) -> None:
        command = ["sample", "pathology", "--guide", "pathology-4step", "--guidance", "1.5"]
        command += ["--height", "40", "--width", "30", "--steps", "2", "--out"]
        assert main([*command, str(tmp_path / "a.png")]) == 0
        model = Guided(load("pathology"), load("pathology-4step"), 1.5)
        expected = to_uint8(generate(model, height=40, width=30, steps=2))[0]
        with Image.open(tmp_path / "a.png") as image:
            assert np.array_equal(np.asarray(image), expected)
            assert image.info["diffnca:guidance"] == "1.5"

    def test_in_tiles_another_guidance_is_another_image(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["sample", "pathology", "--guide", "pathology-4step", "--height", "40", "--width", "40"]
        command += ["--steps", "1", "--tile", "32", "--out", str(tmp_path / "a.ome.zarr")]
        assert main(command) == 0
        assert main([*command, "--guidance", "3"]) != 0
        assert "guidance" in capsys.readouterr().err

    def test_an_autoencoder_is_no_guide(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "vnca.safetensors"
        model = build_model(recipe_named("vnca"))
        write_model(path, model.network.state_dict(), model.config, {})
        assert main(["sample", "pathology", "--guide", str(path), "--out", str(tmp_path / "a.png")]) != 0
        assert "denoiser" in capsys.readouterr().err

    def test_without_a_guide_there_is_nothing_to_learn_in_all_steps(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["distill", "aerial", "--steps", "0", "--data", "examples/canopy"]) != 0
        assert "--steps 0: must have --guidance" in capsys.readouterr().err
