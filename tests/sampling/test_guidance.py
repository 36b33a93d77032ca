"""Guidance: the formula, what both models must have in common, and that parts are parts of the whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca import Canvas, Region, generate, load
from diffnca.canvas.pixels import to_uint8
from diffnca.cli.main import main
from diffnca.config.model import SamplingConfig, ScheduleConfig, with_fields
from diffnca.config.networks import CellConfig
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser, Query, estimate_alone
from diffnca.engine import prepare
from diffnca.models.build import build_denoiser, build_model
from diffnca.models.file import write_model
from diffnca.sampling.arguments import place_of
from diffnca.sampling.guidance import Guided, guided


def fresh(recipe: str = "diff_nca", seed: int = 0, steps: int = 2) -> Denoiser:
    """Return a model that has learnt nothing, of few cell steps."""
    config = recipe_named(recipe)
    cell = replace(config.model.cell, hidden=16, num_cell_steps=steps)
    torch.manual_seed(seed)
    model = build_denoiser(replace(config, model=replace(config.model, cell=cell, coarse=None))).eval()
    for weight in model.requires_grad_(False).parameters():
        weight.add_(0.05 * torch.randn_like(weight))
    return model


def test_it_goes_on_along_the_line_from_the_weaker_to_the_better_one() -> None:
    better, weaker = fresh(seed=1), fresh(seed=2, steps=3)
    x_t, level, whole = torch.randn(1, 3, 12, 12), better.schedule.level(150), Canvas(12, 12).whole
    query = Query(x_t, level, whole)
    own, other = (each.estimate(query) for each in (better, weaker))
    found = Guided(better, weaker, 3.0).estimate(query)
    torch.testing.assert_close(found, other + 3.0 * (own - other))


def test_a_guidance_of_one_is_the_better_model_to_the_bit() -> None:
    better, size = fresh(seed=1), {"height": 16, "width": 20, "steps": 3}
    assert torch.equal(generate(Guided(better, fresh(), 1.0), **size), generate(better, **size))


@pytest.mark.parametrize("guide", [None, fresh(seed=2, steps=4)], ids=["itself", "another"])
def test_a_part_is_the_same_to_the_bit_as_in_the_whole(guide: Denoiser | None) -> None:
    model = guided(fresh(seed=1, steps=3), 1.7, guide)
    canvas, options = Canvas(90, 80), {"height": 90, "width": 80, "steps": 2, "seed": 4}
    part = Region(31, 17, 12, 9, canvas)
    assert torch.equal(
        generate(model, region=part, **options), part.crop(generate(model, **options), canvas.whole)
    )


def test_two_models_see_as_far_as_the_one_that_sees_farther() -> None:
    better, weaker = fresh(steps=2), fresh(steps=4)
    assert Guided(better, weaker, 2.0).radius == weaker.radius


def test_models_of_the_whole_share_what_they_know_of_it() -> None:
    better, weaker = fresh("fourier_diff_nca", 1), fresh("fourier_diff_nca", 2)
    model, whole = Guided(better, weaker, 2.0), Canvas(64, 64).whole
    x_t, level = torch.randn(1, 3, 64, 64), better.schedule.level(150)
    query = Query(x_t, level, whole)
    alone = [each.estimate(query) for each in (better, weaker)]
    torch.testing.assert_close(estimate_alone(model, query), 2.0 * alone[0] - alone[1])


def test_a_guide_of_other_noise_levels_is_refused() -> None:
    other = build_denoiser(replace(recipe_named("diff_nca"), schedule=ScheduleConfig("linear", 300)))
    with pytest.raises(ValueError, match="guide: must have a schedule"):
        Guided(fresh(), other, 2.0)


def test_a_guide_that_sees_no_whole_is_refused_where_the_model_does() -> None:
    with pytest.raises(ValueError, match="guide: must have a window"):
        Guided(fresh("fourier_diff_nca"), load("pathology"), 2.0)


def without_last(model: Denoiser, count: int) -> Denoiser:
    """Return the same model with so many cell steps less in each stage."""
    own = model.config.model

    def shorter(cell: CellConfig) -> CellConfig:
        return replace(cell, num_cell_steps=cell.num_cell_steps - count, cell_step_period=cell.num_cell_steps)

    fourier = own.fourier and replace(own.fourier, cell=shorter(own.fourier.cell))
    made = build_denoiser(
        replace(model.config, model=replace(own, cell=shorter(own.cell), fourier=fourier))
    ).eval()
    made.load_state_dict(model.state_dict())
    return made.requires_grad_(False)


@pytest.mark.parametrize("left_out", [1, 3])
def test_cells_are_led_away_from_the_model_without_its_last_cell_steps(left_out: int) -> None:
    model = fresh(steps=4)
    own = replace(model.config, sampling=replace(model.config.sampling, guide_leaves_out=left_out))
    led = guided(Denoiser(model.network, model.schedule, own), 1.7)
    pair = Guided(model, without_last(model, left_out), 1.7)
    x_t, level, whole = torch.randn(1, 3, 32, 32), model.schedule.level(150), Canvas(32, 32).whole
    found, expected = (each.estimate(Query(x_t, level, whole)) for each in (led, pair))
    torch.testing.assert_close(found, expected)


def test_a_fourier_stage_hands_on_a_spectrum_that_is_led_away_too() -> None:
    model = fresh("fourier_diff_nca", steps=4)
    led, shorter = guided(model, 1.7).network, without_last(model, 1).network
    x_t, t, whole = torch.randn(1, 3, 64, 64), torch.tensor([0.4]), Canvas(64, 64).whole
    context = model.network.context(x_t, t, whole)
    own, other, found = (
        each.transform(each.fourier, context, t, whole.canvas, None) for each in (model.network, shorter, led)
    )
    torch.testing.assert_close(found, other + 1.7 * (own - other))
    assert not torch.equal(own, other)


@pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
def test_the_engine_computes_what_the_guided_network_does(recipe: str) -> None:
    network = guided(fresh(recipe, steps=4), 1.7).network
    x_t, t = torch.randn(2, 3, 64, 64), torch.tensor([0.4, 0.2])
    torch.testing.assert_close(prepare(network, "cpu", torch.float32)(x_t, t), network(x_t, t))


def test_what_the_configuration_says_is_done_unless_something_else_is_asked_for() -> None:
    model, size = fresh(steps=3), {"height": 16, "width": 20, "steps": 2}
    alone = generate(model, **size)
    own = replace(model.config, sampling=replace(model.config.sampling, guidance=1.7))
    asking = Denoiser(model.network, model.schedule, own)
    assert torch.equal(generate(asking, **size), generate(guided(model, 1.7), **size))
    assert not torch.equal(generate(asking, **size), alone)
    assert torch.equal(generate(guided(asking, 1.0), **size), alone)
    assert torch.equal(generate(guided(guided(model, 3.0), 1.0), **size), alone)


def test_a_guided_model_shares_the_weights_and_the_model_stays_as_it_is() -> None:
    model = fresh(steps=3)
    led = guided(model, 2.0)
    pairs = zip(model.parameters(), led.parameters(), strict=True)
    assert all(own.data_ptr() == other.data_ptr() for own, other in pairs)
    assert model.network.image.guidance is None


def test_no_random_number_is_taken_from_the_global_state() -> None:
    model, before = fresh(steps=3), torch.get_rng_state()
    guided(model, 2.0)
    assert torch.equal(torch.get_rng_state(), before)


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
        assert main(["distill", "pathology-4step", "--steps", "0", "--data", "examples/canopy"]) != 0
        assert "--steps 0: must have --guidance" in capsys.readouterr().err


def test_a_guided_model_is_where_its_better_one_is() -> None:
    better, weaker = load("pathology", "meta"), load("pathology-4step", "meta")
    assert place_of(Guided(better, weaker, 1.5), None).type == "meta"


@pytest.mark.parametrize(
    ("styles", "message"),
    [(None, "must have style of True, as the model"), ((1.0,) * 18, "must know the styles of the model")],
)
def test_a_guide_of_other_styles_is_refused(styles: tuple[float, ...] | None, message: str) -> None:
    def styled(numbers: tuple[float, ...]) -> Denoiser:
        own = fresh()
        changes = {"layout.style": True, "layout.styles": numbers}
        return Denoiser(own.network, own.schedule, with_fields(own.config, changes))

    with pytest.raises(ValueError, match=message):
        Guided(styled((0.0,) * 18), fresh() if styles is None else styled(styles), 2.0)
