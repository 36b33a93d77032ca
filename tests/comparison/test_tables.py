"""The rows of a table differ in the network and its training, in nothing else."""

from dataclasses import asdict

import pytest
import torch

from diffnca.comparison.rows import multiply_adds, parameters
from diffnca.comparison.tables import ABLATIONS, STAGES, TEXTURES, table_named
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, NCAConfig, VNCAConfig
from diffnca.config.recipes import RECIPES, fourier_diff_nca
from diffnca.models.build import build_model, build_network
from diffnca.training.objectives import Batch, OwnLoss

from .small import small


def of_cells(*names: str, first: str = "fourier") -> set[str]:
    """Return fields of the cells of both stages."""
    return {f"{cell}.{name}" for cell in ("model.cell", f"model.{first}.cell") for name in names}


CHANGED = {
    "quadrant": {"model.fourier.spectrum"},
    "forward_scaling": {"model.fourier.scaling"},
    "linear_embedding": of_cells("embedding", "embedding_width", "embedding_channels", "positions"),
    "relative_positions": of_cells("positions"),
    "published_training": {
        f"training.{name}"
        for name in (
            *("optimizer", "learning_rate", "decay", "max_gradient_norm"),
            *("ema_halflife_images", "ema_warmup", "ema_widths"),
        )
    },
    "adam": {"training.optimizer"},
    "noise_prediction": {"prediction"},
    "clean_prediction": {"prediction"},
    "linear_schedule": {"schedule.kind"},
    "random_updates": of_cells("update_probability"),
    "published_loss": {"loss.distance"},
    "published_window": {"model.fourier.window"},
    "pixel_cells": {"model.patch"},
    "gates": of_cells("modulation"),
    "neighbours_only": of_cells("dilations"),
    "no_fourier_stage": {"model.family"},
}

ONE_STAGE = {"model.channels", "model.cell.hidden", "model.cell.num_cell_steps", "model.cell.dilations"}
CHANGED_TEXTURES = {
    "one_stage_1px": ONE_STAGE | {"model.patch"},
    "one_stage_2px": ONE_STAGE,
    "one_stage_4px": ONE_STAGE | {"model.patch"},
    "half_the_steps": of_cells("num_cell_steps", first="coarse"),
    "twice_the_steps": of_cells("num_cell_steps", first="coarse"),
    "fewer_channels": {"model.channels", "model.coarse.channels"} | of_cells("hidden", first="coarse"),
    "neighbours_only": of_cells("dilations", first="coarse"),
    "random_updates": of_cells("update_probability", first="coarse"),
    "gates": of_cells("modulation", first="coarse"),
    "noise_prediction": {"prediction"},
    "clean_prediction": {"prediction"},
    "clean_at_most_5": {"prediction", "loss.weighting"},
    "clean_at_most_25": {"prediction", "loss.weighting", "loss.min_snr_gamma"},
    "min_snr": {"loss.weighting"},
    "adam": {"training.optimizer"},
    "half_the_rate": {"training.learning_rate"},
    "twice_the_rate": {"training.learning_rate"},
}


def flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested values under dotted names."""
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def row(table: str, name: str, reduce: int = 1) -> Config:
    return next(config for config in table_named(table, reduce).rows if config.name == name)


@pytest.mark.parametrize("name", ["faces64", "pathology"])
def test_every_recipe_has_its_row(name: str) -> None:
    assert [config.name for config in table_named(name, 1).rows] == list(RECIPES)


@pytest.mark.parametrize("name", ["faces64", "pathology", "ablation", "textures"])
@pytest.mark.parametrize("reduce", [1, 2])
def test_all_rows_see_the_same_images(name: str, reduce: int) -> None:
    assert len({config.data for config in table_named(name, reduce).rows}) == 1


@pytest.mark.parametrize("name", ["faces64", "pathology", "ablation", "textures"])
def test_the_subject_is_a_row(name: str) -> None:
    table = table_named(name, 1)
    assert table.subject in [config.name for config in table.rows]


def test_faces_are_not_turned_and_tissue_is() -> None:
    assert not row("faces64", "diff_nca").data.quarter_turns
    assert row("pathology", "diff_nca").data.quarter_turns


def test_reduced_faces_have_smaller_crops_and_a_smaller_vnca() -> None:
    config = row("faces64", "vnca_damage", reduce=2)
    assert config.data.crop == 32
    assert isinstance(config.model, VNCAConfig)
    assert (config.model.size, config.model.start, config.model.damage) == (32, 32, 16)


@pytest.mark.parametrize("name", CHANGED)
def test_an_ablation_changes_one_choice(name: str) -> None:
    default, changed = flat(asdict(row("ablation", "default"))), flat(asdict(row("ablation", name)))
    shared = default.keys() & changed.keys()  # a stage that is left out has no fields
    assert {key for key in shared if default[key] != changed[key]} == CHANGED[name] | {"name"}


def test_every_ablation_says_what_it_changes() -> None:
    assert CHANGED.keys() | {"default"} == ABLATIONS.keys()
    assert CHANGED_TEXTURES.keys() | {"default"} == TEXTURES.keys()


@pytest.mark.parametrize("name", CHANGED_TEXTURES)
def test_a_row_of_the_textures_changes_one_choice(name: str) -> None:
    default, changed = flat(asdict(row("textures", "default"))), flat(asdict(row("textures", name)))
    shared = default.keys() & changed.keys()  # a stage that is left out has no fields
    differ = {key for key in shared if default[key] != changed[key]}
    assert differ - {"model.coarse"} == CHANGED_TEXTURES[name] | {"name"}


@pytest.mark.parametrize("name", TEXTURES)
def test_rows_of_the_textures_have_about_as_many_parameters(name: str) -> None:
    assert 180_000 < parameters(row("textures", name))[0] < 209_000


def test_published_training_is_that_of_the_published_network() -> None:
    published = RECIPES["fourier_diff_nca_npj"]().training
    assert row("ablation", "published_training").training == published


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_takes_a_training_step(name: str) -> None:
    objective = OwnLoss(build_model(small(row("ablation", name, reduce=4))), torch.device("cpu"))
    (player,) = objective.players()
    x_0 = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    loss = objective.loss(player.name, Batch(x_0, torch.Generator().manual_seed(1)))
    loss.backward()
    player.optimizer.step()
    assert bool(loss.isfinite())


def test_the_default_of_the_ablation_is_our_recipe() -> None:
    assert row("ablation", "default").model == fourier_diff_nca().model


@pytest.mark.parametrize("name", STAGES)
def test_every_row_of_the_stages_can_be_built(name: str) -> None:
    config = row("stages", name)
    assert sum(p.numel() for p in build_network(config.model).parameters()) > 0


def test_rows_of_the_stages_say_their_steps_and_windows() -> None:
    assert [cell.num_cell_steps for cell in row("stages", "16_steps_on_spectrum").model.stages] == [16, 8]
    assert [cell.num_cell_steps for cell in row("stages", "4_steps_on_image").model.stages] == [8, 4]
    assert row("stages", "window_12").model.fourier.window == 12


def test_slides_of_a_table_have_a_scale_and_faces_none() -> None:
    assert table_named("textures", 1, 0.5).rows[0].data.microns_per_px == 0.5
    with pytest.raises(ValueError, match=r"--microns-per-px 0.5: must be left out for faces64"):
        table_named("faces64", 1, 0.5)


@pytest.mark.parametrize("reduce", [1, 2])
def test_a_fourier_stage_knows_the_size_of_the_images(reduce: int) -> None:
    row = next(row for row in table_named("faces64", reduce).rows if row.name == "fourier_diff_nca")
    assert isinstance(row.model, NCAConfig) and row.model.fourier is not None
    assert row.model.fourier.trained_px == row.data.crop == 64 // reduce


def test_a_table_that_is_not_there_is_one_line() -> None:
    with pytest.raises(ValueError, match="must be faces64, pathology, ablation, stages or textures"):
        table_named("cats", 1)


def test_faces_are_halved_or_quartered() -> None:
    with pytest.raises(ValueError, match="--reduce 3: must be 1, 2 or 4"):
        table_named("faces64", 3)


def test_multiply_adds_of_cells_are_those_of_their_matrix_products() -> None:
    config = row("pathology", "diff_nca")
    model = config.model
    assert isinstance(model, NCAConfig)
    coarse = model.coarse
    assert coarse is not None

    def of_stage(patch: int, channels: int, cell: CellConfig) -> int:
        written = channels - 3 * patch**2
        of_cell = 9 * channels**2 + 2 * channels * cell.hidden + cell.hidden * written
        return cell.num_cell_steps * (64 // patch) ** 2 * of_cell

    expected = 20 * (
        of_stage(model.patch, model.channels, model.cell)
        + of_stage(coarse.patch, coarse.channels, coarse.cell)
    )
    assert multiply_adds(config, "dpmpp2m", 20) == pytest.approx(expected, rel=0.06)  # and the embeddings


def test_multiply_adds_grow_with_the_steps() -> None:
    config = row("faces64", "unet_1m", reduce=4)
    assert multiply_adds(config, "ddim", 10) == 10 * multiply_adds(config, "ddim", 1)


def test_parameters_to_generate_are_those_of_vncas_cells() -> None:
    assert parameters(RECIPES["vnca"]()) == (9_010_368, 460_160)


def test_parameters_to_generate_are_all_those_of_a_denoiser() -> None:
    learnt, to_generate = parameters(build := RECIPES["diff_nca"]())
    assert learnt == to_generate == sum(p.numel() for p in build_network(build.model).parameters())
