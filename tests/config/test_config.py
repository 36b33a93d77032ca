"""Configurations: JSON and back, and what is refused."""

import json
from dataclasses import replace

import pytest

from diffnca.config.json import from_json, to_json
from diffnca.config.model import Config, LossConfig
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.config.recipes import RECIPES, recipe_named


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_json(name: str) -> None:
    assert from_json(to_json(recipe_named(name))) == recipe_named(name)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_carries_its_own_name(name: str) -> None:
    assert recipe_named(name).name == name


def test_an_unknown_field_is_named() -> None:
    values = json.loads(to_json(Config()))
    values["model"]["chanels"] = 3
    with pytest.raises(ValueError, match="config.model: unknown field 'chanels'"):
        from_json(json.dumps(values))


def test_a_wrong_choice_is_told_the_allowed_ones() -> None:
    values = json.loads(to_json(Config()))
    values["prediction"] = "score"
    with pytest.raises(ValueError, match="config.prediction='score': must be one of noise, clean, velocity"):
        from_json(json.dumps(values))


def test_a_wrong_type_is_refused() -> None:
    values = json.loads(to_json(Config()))
    values["model"]["channels"] = "64"
    with pytest.raises(ValueError, match="config.model.channels='64': must be of type int"):
        from_json(json.dumps(values))


def test_another_format_version_is_refused() -> None:
    values = json.loads(to_json(Config()))
    values["format_version"] = 99
    with pytest.raises(ValueError, match="format 99"):
        from_json(json.dumps(values))


def test_the_radius_is_the_sum_of_the_dilations() -> None:
    assert CellConfig(num_cell_steps=5, dilations=(1, 2, 4)).radius == 1 + 2 + 4 + 1 + 2


def test_statistics_over_space_have_no_radius() -> None:
    assert CellConfig(normalisation="group").radius is None


def test_too_few_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"channels=5: must be >= 6"):
        NCAConfig(channels=5)


def test_a_fourier_stage_needs_its_family() -> None:
    with pytest.raises(ValueError, match="exactly fourier_diff_nca"):
        replace(NCAConfig(), family="fourier_diff_nca")


def test_an_unknown_recipe_is_told_the_known_ones() -> None:
    with pytest.raises(ValueError, match="recipe 'unet': must be one of diff_nca, "):
        recipe_named("unet")


@pytest.mark.parametrize("field", ["logit_mean", "logit_std"])
@pytest.mark.parametrize("value", [-11.0, float("nan"), 11.0])
def test_a_distribution_of_times_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"loss.{field}=.*: must be "):
        Config(loss=replace(LossConfig(), **{field: value}))


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clamp_that_is_not_above_zero_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"loss.min_snr_gamma=.*: must be above 0"):
        Config(loss=LossConfig(weighting="min_snr", min_snr_gamma=gamma))


def test_a_batch_of_which_none_is_damaged_is_refused() -> None:
    config = recipe_named("vnca_damage")
    with pytest.raises(ValueError, match="training.batch=3: must be 4 or more"):
        replace(config, training=replace(config.training, batch=3))


def test_a_weighting_without_bound_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loss.weighting=.?velocity.?: must be uniform or min_snr"):
        Config(prediction="noise", loss=LossConfig(weighting="velocity"))
