"""The first weights of a training: those of the bundled model with the smallest error on the images."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from diffnca import generate, load
from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.models.file import bundled_models, read_card, read_config
from diffnca.training.options import AUTO, RANDOM, RunOptions
from diffnca.training.session import Session, training
from diffnca.training.start import (
    GUIDANCE,
    LEFT_OUT,
    SHORT_GUIDANCE,
    begun_with,
    candidates,
    conditioned,
    from_random,
    suited,
)

SMALL = {"training.compile": "off", "training.precision": "float32", "training.batch": 1, "data.crop": 16}
CONFIG = with_fields(recipe_named("diff_nca"), SMALL)


pytestmark = pytest.mark.usefixtures("quick_look")


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an image by the student of `pathology`."""
    folder = tmp_path_factory.mktemp("tissue")
    image = generate(load("pathology-4step"), height=96, width=96, seed=0)
    Image.fromarray(to_uint8(image)[0]).save(folder / "tissue.png")
    return folder


def session(tissue: Path, out: Path, config: Config = CONFIG, images: int = 1) -> Session:
    options = RunOptions(data=(tissue,), out=out, images=images, sample_minutes=0.0)
    return training(options, config, AUTO)


SLOW = with_fields(CONFIG, {"training.learning_rate": 1e-12})
"""A training that hardly changes its first weights."""


@pytest.fixture(scope="module")
def begun(quick_look: None, tissue: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    made = session(tissue, tmp_path_factory.mktemp("begun") / "run", SLOW)
    made.run()
    return made


def test_tissue_begins_with_the_model_of_tissue(begun: Session) -> None:
    assert begun.start == "pathology"


def test_the_errors_are_sorted(begun: Session) -> None:
    found = list(begun.errors.values())
    assert found == sorted(found) and len(found) == len(candidates()) > 1


def test_students_and_models_of_whole_images_begin_no_training() -> None:
    assert not {"pathology-4step", "faces", "faces-4step", "faces-2step"} & set(candidates())


def soft_photo(path: Path, channels: int) -> None:
    """Write smooth noise without detail below some 16 px."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, channels), dtype=np.uint8)
    small = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    small.resize((320, 320), Image.Resampling.BICUBIC).save(path)


def undecided(images: int = 1) -> Config:
    return with_fields(CONFIG, {"data.reduce": 0, "data.validation": None, "training.images": images})


@pytest.fixture(scope="module")
def gray_run(quick_look: None, tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("gray")
    soft_photo(folder / "a.png", channels=1)
    made = training(options_of(folder / "a.png", folder / "run"), undecided(), AUTO)
    made.run()
    return made


def options_of(data: Path, out: Path) -> RunOptions:
    return RunOptions(data=(data,), out=out, sample_minutes=0.0)


def test_gray_images_train_a_gray_network_that_begins_with_weights_of_colour(gray_run: Session) -> None:
    assert gray_run.config.model.image_channels == 1
    assert gray_run.start in candidates()


def test_a_soft_photo_is_trained_on_at_the_size_of_its_detail(gray_run: Session) -> None:
    assert gray_run.config.data.reduce == 5  # 64 px, four crops a side, remain


def test_of_one_photo_a_strip_is_held_out(gray_run: Session) -> None:
    assert gray_run.held_out.names == ("a.png[0:64, 48:64]",)
    assert read_card(gray_run.out / "model.safetensors")["held_out"] == list(gray_run.held_out.names)


def test_a_run_goes_on_with_the_choices_that_its_images_made(gray_run: Session) -> None:
    again = training(options_of(gray_run.out.parent / "a.png", gray_run.out), undecided(images=2), AUTO)
    assert again.config == with_fields(gray_run.config, {"training.images": 2})


def test_images_without_content_are_refused_before_a_training(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200), "white").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="nothing can be learnt"):
        training(options_of(tmp_path / "a.png", tmp_path / "run"), undecided(), AUTO)


def test_a_scale_of_ones_own_is_taken(gray_run: Session, tmp_path: Path) -> None:
    options = replace(options_of(gray_run.out.parent / "a.png", tmp_path / "run"), scale="2px")
    assert training(options, undecided(), RANDOM).config.data.reduce == 2


@pytest.mark.parametrize("scale", ["2", "0px", "-1px", "1.5px", "um", "0um", "2 km"])
def test_a_scale_that_is_none_is_refused(scale: str) -> None:
    with pytest.raises(ValueError, match="must be pixels, such as 2px, or micrometres, such as 0.5um"):
        RunOptions(scale=scale).scaled(CONFIG.data)


def test_micrometres_are_a_scale_of_slides() -> None:
    assert RunOptions(scale="0.5um").scaled(CONFIG.data).microns_per_px == 0.5


def test_a_network_of_the_users_own_begins_with_random_weights(tissue: Path, tmp_path: Path) -> None:
    own = with_fields(CONFIG, {"model.cell.hidden": 24})
    made = session(tissue, tmp_path / "run", own)
    assert (made.start, made.config.model) == (None, own.model)


@pytest.mark.parametrize(
    ("budget", "prediction"),
    [({"minutes": 10.0}, "clean"), ({"minutes": 60.0}, "velocity"), ({"images": 200_000}, "velocity")],
)
def test_random_weights_learn_the_clean_image_in_minutes_and_the_velocity_in_hours(
    budget: dict[str, Any], prediction: str
) -> None:
    training = replace(recipe_named("diff_nca").training, **budget)
    assert from_random(replace(CONFIG, training=training)).prediction == prediction


def test_a_recipe_of_ones_own_predicts_what_it_says() -> None:
    own = with_fields(CONFIG, {"prediction": "noise", "training.minutes": 10.0})
    assert from_random(own) == own


def test_a_small_budget_made_larger_does_not_change_the_prediction(tissue: Path, tmp_path: Path) -> None:
    options = RunOptions(data=(tissue,), out=tmp_path / "run", images=1, sample_minutes=0.0)
    training(options, CONFIG, RANDOM).run()
    grown = training(replace(options, images=1_000_000), CONFIG, RANDOM)
    assert (grown.config.prediction, grown.start) == ("clean", None)


@pytest.mark.parametrize("name", candidates())
def test_all_but_the_network_is_as_asked_for(name: str) -> None:
    begun = begun_with(CONFIG, name)
    kept = replace(begun, model=CONFIG.model, sampling=CONFIG.sampling)
    assert kept == CONFIG and begun.model == read_config(bundled_models()[name]).model


@pytest.mark.parametrize(
    ("budget", "strength"),
    [
        ({"minutes": 5.0}, SHORT_GUIDANCE),
        ({"minutes": 10.0}, GUIDANCE),
        ({"minutes": None, "images": 15_000}, SHORT_GUIDANCE),
        ({"minutes": None, "images": 30_000}, GUIDANCE),
    ],
)
def test_samples_are_guided_after_a_start_from_weights_the_more_the_shorter(
    budget: dict[str, float | None], strength: float
) -> None:
    config = with_fields(CONFIG, {f"training.{name}": value for name, value in budget.items()})
    sampling = begun_with(config, "aerial").sampling
    assert (sampling.guidance, sampling.guide_leaves_out) == (strength, LEFT_OUT)


def test_the_users_guidance_stays() -> None:
    own = with_fields(CONFIG, {"sampling.guidance": 1.3})
    assert begun_with(own, "aerial").sampling == own.sampling


def test_the_run_begins_with_the_weights_of_its_start(begun: Session) -> None:
    one, other = load_file(begun.out / "model.safetensors"), load_file(bundled_models()["pathology"])
    for name, weight in one.items():
        np.testing.assert_allclose(weight, other[name].astype(np.float32), atol=1e-6)


def test_a_stopped_run_goes_on_with_its_start_without_a_new_look(tissue: Path, begun: Session) -> None:
    again = session(tissue, begun.out, SLOW, images=2)
    assert (again.start, again.errors) == ("pathology", {}) and again.run().progress.images == 2


def test_a_folder_of_the_same_name_does_not_stand_in_for_a_bundled_model(
    tissue: Path, begun: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(begun.out, tmp_path / "pathology")
    assert session(tissue, tmp_path / "run").first_weights == bundled_models()["pathology"]


def test_a_run_that_began_with_a_file_goes_on_without_its_name(tissue: Path, tmp_path: Path) -> None:
    options = RunOptions(data=(tissue,), out=tmp_path / "run", images=1, sample_minutes=0.0)
    first = str(bundled_models()["aerial"])
    training(options, begun_with(SLOW, "aerial"), first).run()
    assert training(replace(options, images=2), SLOW, AUTO).start == first


def test_what_a_new_run_cannot_have_is_refused_before_the_look(tissue: Path, tmp_path: Path) -> None:
    options = RunOptions(data=(tissue,), out=tmp_path / "run", images=1, trackers=("abacus",))
    with pytest.raises(ValueError, match="--trackers abacus"):
        training(options, CONFIG, AUTO)


def test_maps_beside_the_photos_decide_neither_colours_nor_scale(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in "ab":
        pixels = random.integers(0, 256, (96, 96), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")
        numbers = Image.fromarray(random.integers(0, 2, (96, 96), dtype=np.uint8), "P")
        numbers.putpalette([255, 0, 0, 0, 0, 255])
        numbers.save(tmp_path / f"{name}.png")
    options = replace(options_of(tmp_path, tmp_path / "run"), layouts=(tmp_path,))
    config = suited(conditioned(CONFIG, options), options, decides_colours=True)
    assert config.model.image_channels == 1
