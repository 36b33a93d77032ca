"""A run as a user asks for it: what is refused before the work, what the plan says, what the folder holds."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.config.model import LossConfig, SamplingConfig
from diffnca.config.recipes import recipe_named
from diffnca.files import lock
from diffnca.formats.png import GAP_BETWEEN_SHEETS_PX
from diffnca.models.build import build_network
from diffnca.models.file import load, read_card, read_config
from diffnca.training.discriminator import LOOKS, NETWORKS
from diffnca.training.features import FEATURES
from diffnca.training.options import RunOptions, StudentOptions
from diffnca.training.session import (
    RATE,
    Session,
    distillation,
    num_parameters,
    training,
)
from diffnca.training.sheets import SHEET_STEPS
from diffnca.training.state import stored_run

from .conftest import CONFIG


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return folder


@pytest.fixture(scope="module")
def given(photos: Path) -> RunOptions:
    return RunOptions(data=(photos,), images=8, sample_minutes=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": ()}, "--data is missing"),
        ({"minutes": 1.0}, "--minutes and --images: give one of them"),
        ({"images": None, "minutes": 0.0}, "--minutes 0.0: must be above 0"),
        ({"images": None, "minutes": float("nan")}, "--minutes nan: must be above 0"),
        ({"images": -3}, "--images -3: must be above 0"),
        ({"checkpoint_seconds": float("nan")}, "--checkpoint-seconds nan: must be 0 or more"),
        ({"sample_minutes": -1.0}, "--sample-minutes -1.0: must be 0 or more"),
        ({"out": Path("a/b/c")}, "the folder a/b does not exist"),
        ({"trackers": ("abacus",)}, "--trackers abacus: must be among aim"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused(
    options: RunOptions, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        training(replace(options, **changes), CONFIG)


@pytest.mark.parametrize(
    ("chosen", "seconds"),
    [
        ({"minutes": 10.0}, 120.0),
        ({"minutes": 90.0}, 600.0),
        ({"images": 9}, 600.0),
        ({"sample_minutes": 3.0}, 180.0),
    ],
)
def test_a_short_training_shows_five_sheets(chosen: dict[str, float], seconds: float) -> None:
    assert RunOptions(**chosen).sample_seconds == seconds


def test_a_tracker_that_is_not_installed_is_named_with_its_own_package(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.training.session.get_available_trackers", list)
    with pytest.raises(ValueError, match="--trackers wandb: is not installed here; pip install wandb"):
        training(replace(options, trackers=("wandb",)), CONFIG)


def test_a_plan_writes_nothing(options: RunOptions, tmp_path: Path) -> None:
    training(options, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_left_out_are_in_the_plan(options: RunOptions, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    images = training(replace(options, data=(*options.data, tmp_path)), CONFIG).images
    assert (len(images), [name for name, _ in images.skipped]) == (3, ["broken.jpg"])


def test_the_sheets_of_a_run_that_lies_among_its_images_are_no_images(
    options: RunOptions, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "0.jpg").write_bytes((photos / "0.jpg").read_bytes())
    asked = replace(options, data=(tmp_path,), sample_minutes=1.0)
    training(asked, CONFIG).run()
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 1
    assert training(replace(asked, images=12), CONFIG).run().progress.images == 12


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca", "diff_nca_npj", "unet_1m", "vnca_damage"])
def test_parameters_are_counted_without_making_them(name: str) -> None:
    if name.startswith("unet"):
        pytest.importorskip("diffusers", reason="needs the extra baselines")
    config = recipe_named(name)
    made = sum(parameter.numel() for parameter in build_network(config.model).parameters())
    assert num_parameters(config) == made


def test_a_model_that_fits_no_memory_is_refused_before_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("diffnca.training.session.physical_memory", lambda: 10_000.0)
    with pytest.raises(ValueError, match=r"GiB in training, and this machine has .*fewer --model.channels"):
        num_parameters(CONFIG)


def test_a_finished_run_is_finished_already(options: RunOptions, run: Path) -> None:
    result = training(options, CONFIG).run()
    assert (result.was_finished, result.progress.images) == (True, 8)


def test_a_finished_run_ends_with_a_sheet_of_samples(options: RunOptions) -> None:
    out = training(replace(options, sample_minutes=10.0), CONFIG).run().out
    with Image.open(out / "samples" / "000000008.png") as sheet:
        assert sheet.size == (2 * (3 * 16 + 2 * 2) + GAP_BETWEEN_SHEETS_PX, 3 * 16 + 2 * 2)


def test_the_right_half_of_a_sheet_shows_crops_of_the_images(options: RunOptions, photos: Path) -> None:
    flat = photos.parent / "flat"
    flat.mkdir()
    Image.new("RGB", (40, 50), (200, 30, 90)).save(flat / "flat.png")
    out = training(replace(options, data=(flat,), sample_minutes=10.0), CONFIG).run().out
    sheet = np.asarray(Image.open(out / "samples" / "000000008.png"))
    right = sheet[:16, -16:]
    assert (right == (200, 30, 90)).all()


def test_a_model_is_fine_tuned_as_what_it_is(options: RunOptions, run: Path, tmp_path: Path) -> None:
    asked = replace(options, out=tmp_path / "tuned")
    with pytest.raises(ValueError, match="has another `prediction`"):
        training(asked, replace(CONFIG, prediction="noise"), str(run))
    assert training(asked, CONFIG, str(run)).run().progress.images == 8


def test_a_model_without_its_training_is_not_overwritten(options: RunOptions, run: Path) -> None:
    (run / "state.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds other files \(model.safetensors\)"):
        training(options, CONFIG)


def test_a_finished_run_that_was_killed_before_its_model_gets_it(options: RunOptions, run: Path) -> None:
    model = run / "model.safetensors"
    weights, card = load(model).state_dict(), read_card(model)
    model.unlink()
    training(options, CONFIG).run()
    assert read_card(model) == card
    torch.testing.assert_close(load(model).state_dict(), weights, rtol=0, atol=0)


def test_a_finished_run_can_be_sampled_otherwise(options: RunOptions, run: Path) -> None:
    training(options, replace(CONFIG, sampling=SamplingConfig(steps=7))).run()
    assert read_config(run / "model.safetensors").sampling.steps == 7


def test_two_commands_do_not_train_in_one_folder(options: RunOptions, run: Path) -> None:
    session = training(replace(options, images=16), CONFIG)
    with lock(run), pytest.raises(ValueError, match="another command"):
        session.run()


def test_a_plan_refuses_what_the_run_would(options: RunOptions, run: Path) -> None:
    other = replace(CONFIG, training=replace(CONFIG.training, batch=2))
    with pytest.raises(ValueError, match="began with training.batch=4, not 2"):
        training(options, other)


def student(options: RunOptions, teacher: Path, steps: int, **changes: Any) -> Session:
    asked = replace(options, out=teacher.parent / "student", **changes)
    return distillation(asked, str(teacher), StudentOptions(steps=steps))


def test_a_sheet_of_a_student_of_many_steps_shows_its_own_walk(options: RunOptions, run: Path) -> None:
    out = student(options, run, SHEET_STEPS + 1, sample_minutes=1.0).run().out
    assert (out / "samples" / "000000008.png").is_file()


def test_a_student_knows_its_few_steps(options: RunOptions, run: Path) -> None:
    own = read_config(student(options, run, 3).run().out / "model.safetensors").sampling
    assert (own.sampler, own.steps, len(own.visited or ())) == ("ddim", 3, 3)


def test_a_student_learns_from_crops_of_another_size(options: RunOptions, run: Path) -> None:
    asked = replace(options, out=options.out and options.out.with_name("small"))
    assert distillation(asked, str(run), StudentOptions(crop=12)).config.data.crop == 12


def test_what_a_student_begins_with_must_fit_its_teacher(options: RunOptions, run: Path) -> None:
    asked = replace(options, out=options.out and options.out.with_name("student"))
    with pytest.raises(ValueError, match="has another `model`; take a student of a model like "):
        distillation(asked, str(run), StudentOptions(steps=2), start="faces")


def test_a_teacher_of_maps_asks_for_maps(options: RunOptions) -> None:
    with pytest.raises(ValueError, match="--layouts: must be given, as the teacher colon was trained with"):
        distillation(options, "colon", StudentOptions())


def test_an_impossible_batch_is_named_as_it_is_given() -> None:
    with pytest.raises(ValueError, match="--late-batch=0: must be from 1 to"):
        StudentOptions(late_batch=0)


class Pixels:
    """Pixels in place of the features of a trained network."""

    widths = (3,)

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images]

    def to(self, device: torch.device) -> "Pixels":
        return self


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnca.training.session.efficientnet_lite2", Pixels)
    monkeypatch.setitem(NETWORKS, FEATURES, Pixels)


@pytest.mark.usefixtures("pixels")
def test_a_student_learns_on_against_features_with_itself_as_its_teacher(
    options: RunOptions, run: Path
) -> None:
    first = student(options, run, 2).run().out
    asked = replace(options, out=first.parent / "better")
    better = distillation(asked, str(first), StudentOptions(steps=0, against="features")).run().out
    config = read_config(better / "model.safetensors")
    assert config.sampling == read_config(first / "model.safetensors").sampling
    assert read_card(better / "model.safetensors")["trained_with"] == ["efficientnet_lite2"]


@pytest.mark.usefixtures("pixels")
def test_a_student_against_faces_was_trained_with_two_networks(options: RunOptions, run: Path) -> None:
    asked = replace(options, out=run.parent / "faces")
    out = distillation(asked, str(run), StudentOptions(steps=2, against="faces")).run().out
    assert read_card(out / "model.safetensors")["trained_with"] == ["efficientnet_lite2", "face_expression"]


@pytest.mark.usefixtures("pixels")
def test_what_goes_on_from_a_model_trained_with_features_says_so_too(
    options: RunOptions, tmp_path: Path
) -> None:
    perceptual = replace(CONFIG, loss=LossConfig(perceptual=0.1))
    first = training(options, perceptual).run().out
    second = training(replace(options, out=tmp_path / "on"), CONFIG, str(first)).run().out
    third = student(replace(options, out=tmp_path / "student"), second, 2).run().out
    cards = [read_card(out / "model.safetensors")["trained_with"] for out in (first, second, third)]
    assert cards == 3 * [["efficientnet_lite2"]]


@pytest.mark.usefixtures("pixels")
def test_against_features_with_another_weight_is_another_run(options: RunOptions, run: Path) -> None:
    def begun(weight: float, images: int) -> Session:
        asked = replace(options, out=run.parent / "against", images=images)
        chosen = StudentOptions(steps=2, against="features", against_weight=weight)
        return distillation(asked, str(run), chosen)

    begun(0.1, 4).run()
    with pytest.raises(ValueError, match="began with other images, weights or another teacher"):
        begun(0.2, 8).run()


@pytest.mark.usefixtures("pixels")
def test_a_student_learns_slower_beside_a_discriminator(options: RunOptions, run: Path) -> None:
    asked = replace(options, out=run.parent / "slower")
    kinds = StudentOptions(steps=2), StudentOptions(steps=2, against="features")
    rates = [distillation(asked, str(run), kind).config.training.learning_rate for kind in kinds]
    assert rates == [RATE, LOOKS["features"].learning_rate]


def test_a_student_with_a_rate_of_zero_is_refused(options: RunOptions, run: Path) -> None:
    with pytest.raises(ValueError, match="learning_rate=0"):
        distillation(options, str(run), StudentOptions(steps=2, learning_rate=0.0))


def test_only_students_of_few_steps_learn_against_features(options: RunOptions, run: Path) -> None:
    with pytest.raises(ValueError, match="--against features: must be for a student of few steps"):
        distillation(options, str(run), StudentOptions(steps=0, against="features"))


def test_a_student_begins_with_its_teacher_or_with_the_student_of_a_former_one(
    options: RunOptions, run: Path
) -> None:
    former, asked = student(options, run, 2).run().out, replace(options, out=run.parent / "new")
    first = [distillation(asked, str(run), StudentOptions(), start) for start in (None, str(former))]
    assert [session.first_weights for session in first] == [
        folder / "model.safetensors" for folder in (run, former)
    ]


def test_a_student_with_other_first_weights_is_another_run(options: RunOptions, run: Path) -> None:
    former, asked = student(options, run, 2).run().out, replace(options, out=run.parent / "new")
    distillation(replace(asked, images=4), str(run), StudentOptions(steps=2)).run()
    with pytest.raises(ValueError, match="began with other images, weights or another teacher"):
        distillation(asked, str(run), StudentOptions(steps=2), str(former)).run()


def test_a_student_of_another_teacher_is_another_run(options: RunOptions, run: Path) -> None:
    student(options, run, 3).run()
    training(replace(options, images=12), CONFIG).run()
    with pytest.raises(ValueError, match="began with other images, weights or another teacher"):
        student(options, run, 3).run()


def test_a_run_that_began_with_other_weights_is_not_gone_on_with(options: RunOptions, run: Path) -> None:
    with pytest.raises(ValueError, match="began with other images, weights or another teacher"):
        training(replace(options, images=16), CONFIG, str(run)).run()


def test_a_student_is_not_trained_on_as_if_it_knew_all_levels(options: RunOptions) -> None:
    own = replace(CONFIG, sampling=SamplingConfig("ddim", 2, (299, 149)))
    with pytest.raises(ValueError, match="--from pathology-4step: must know all levels"):
        training(options, own, "pathology-4step")


def test_the_pixel_size_of_training_reaches_the_card(options: RunOptions) -> None:
    out = training(options, replace(CONFIG, data=replace(CONFIG.data, microns_per_px=0.5))).run().out
    assert read_card(out / "model.safetensors")["microns_per_px"] == 0.5


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about machines without a GPU")
def test_two_processes_without_a_gpu_train_one_model_together(photos: Path, tmp_path: Path) -> None:
    """Each process sees batches of its own: eight images in batches of two are two steps, not four."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    small = ["--data.crop", "16", "--training.batch", "2", "--images", "8", "--training.compile", "off"]
    command = ["diffnca", "train", "--data", str(photos), "--recipe", "diff_nca", *small]
    command += ["--sample-minutes", "0", "--out", str(tmp_path / "run")]
    told = ("ACCELERATE_USE_CPU", "LOCAL_RANK", "RANK", "WORLD_SIZE")
    env = {name: value for name, value in os.environ.items() if name not in told}
    done = subprocess.run([*launch, *command], env=env, capture_output=True, text=True, check=False)
    stored = stored_run(tmp_path / "run")
    assert stored is not None, done.stderr
    assert (stored.processes, stored.progress.step, stored.progress.images) == ("2", 2, 8)
