"""A training with styles: what it measures and keeps, what its model sees, and how it goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.canvas.region import Canvas
from diffnca.cli.main import main
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.data.styles import style_of
from diffnca.diffusion.denoiser import Query
from diffnca.models.file import load_denoiser, read_config
from diffnca.sampling.styles import known_styles, standard
from diffnca.training.objectives import Batch
from diffnca.training.options import RunOptions, StudentOptions
from diffnca.training.session import Session, distillation, training

from .conftest import CONFIG as PLAIN

CONFIG = with_fields(PLAIN, {"layout.style": True})
CLASSES = {"layout.classes": ("stroma", "gland")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photos of three stains, and their maps."""
    folder = tmp_path_factory.mktemp("stains")
    for index in range(3):
        numbers = np.random.default_rng(index).integers(0, 2, (32, 40), dtype=np.uint8)
        picture = np.dstack([50 * numbers + 60 * index, 90 - numbers, 200 - 70 * index + 0 * numbers])
        for kind, pixels in (("photos", picture.astype(np.uint8)), ("maps", numbers)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def given(folder: Path) -> RunOptions:
    return RunOptions(data=(folder / "photos",), images=8, sample_minutes=0.0)


@pytest.fixture(scope="module")
def config() -> Config:
    return CONFIG


def planes_of(session: Session, num_planes: int) -> torch.Tensor:
    given = Batch.of(session._batch(0), session.config, torch.Generator().manual_seed(0)).given
    assert given is not None and given.shape[1] == session.config.model.given_channels == num_planes
    return given


def test_a_model_keeps_the_styles_of_what_it_was_trained_on(options: RunOptions) -> None:
    session = training(options, with_fields(CONFIG, {"data.validation": 0.3}))
    assert len(session.images) == 2
    expected = [style_of(image) for image in session.images]
    torch.testing.assert_close(known_styles(session.config), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("coarse", [0, 4])
def test_cells_see_the_style_of_the_whole_image_after_the_planes_of_the_map(
    options: RunOptions, folder: Path, coarse: int
) -> None:
    changes = CLASSES | {"layout.coarse": coarse, "layout.dropped": 0.0}
    session = training(replace(options, layouts=(folder / "maps",)), with_fields(CONFIG, changes))
    seen = planes_of(session, 8 + (4 if coarse else 0))[:, -6:]
    assert torch.equal(seen, seen[..., :1, :1].expand_as(seen))
    styles = standard(known_styles(session.config), session.config)
    nearest = torch.cdist(seen[..., 0, 0], styles).amin(dim=1)
    torch.testing.assert_close(nearest, torch.zeros(4), atol=1e-3, rtol=0.0)


def test_training_drops_as_many_styles_as_it_is_told(options: RunOptions) -> None:
    config = with_fields(CONFIG, {"layout.dropped": 0.5, "training.batch": 400})
    is_shown = planes_of(training(options, config), 6).abs().amax(dim=(1, 2, 3)) > 0
    assert 0.4 < float(is_shown.float().mean()) < 0.6


def test_the_file_of_a_run_keeps_the_styles(options: RunOptions, run: Path) -> None:
    assert read_config(run / "model.safetensors") == training(options, CONFIG).config


def test_a_finished_run_with_styles_is_finished_already(options: RunOptions, run: Path) -> None:
    assert training(options, CONFIG).run().was_finished


def test_a_run_does_not_go_on_without_its_styles(options: RunOptions, run: Path) -> None:
    with pytest.raises(ValueError, match="began with layout.style=True, not False"):
        training(options, PLAIN)


def test_a_student_keeps_the_styles_of_its_teacher(options: RunOptions, run: Path, tmp_path: Path) -> None:
    asked = replace(options, out=tmp_path / "student", data=(options.data[0] / "0.png", options.data[0]))
    session = distillation(asked, str(run), StudentOptions(steps=3))
    assert session.config.layout == read_config(run / "model.safetensors").layout


def test_a_network_that_learns_styles_too_predicts_at_first_as_before(
    options: RunOptions, folder: Path, tmp_path: Path
) -> None:
    mapped = replace(options, layouts=(folder / "maps",))
    before = training(mapped, with_fields(PLAIN, CLASSES)).run().out
    asked = replace(mapped, out=tmp_path / "styled", images=1)
    still = {"training.learning_rate": 1e-9, "training.batch": 1}
    after = training(asked, with_fields(CONFIG, CLASSES | still), str(before)).run().out
    region, made = Canvas(16, 16).whole, []
    for path, num_planes in ((before, 2), (after, 8)):
        model = load_denoiser(path)
        planes = torch.linspace(-1.0, 1.0, 8)[:num_planes, None, None].expand(1, -1, 16, 16)
        query = Query(torch.ones(1, 3, 16, 16), model.schedule.level(100), region, given=planes)
        made.append(model.estimate(query))
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=1e-5)


def test_the_plan_and_the_facts_of_a_model_name_the_numbers(
    options: RunOptions, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = "--layout.style --data.crop 16 --model.channels 48 --recipe diff_nca --images 4 --dry-run"
    assert main(["train", "--data", str(options.data[0]), *fields.split()]) == 0
    assert main(["info", str(run)]) == 0
    shown, numbers = capsys.readouterr().out, "red, green, blue, fine, coarse, hues"
    assert f"style    {numbers}; 15% of the crops are shown without\n" in shown
    assert f"\nstyle: {numbers}\n" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout.made": True}, "layout.style=True: must be False with layout.made"),
        (
            {"layout.style": False, "layout.styles": (1.0,)},
            "layout.style=False: must be True for a model that",
        ),
        ({"layout.styles": (1.0,)}, "layout.styles=1 numbers: must be 6 numbers for each image"),
        ({"model.given_channels": 3}, "layout.style=True: must be of a model of cells with model.given_ch"),
    ],
)
def test_what_is_no_choice_of_styles_is_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_fields(CONFIG, changes)


def test_a_network_without_cells_follows_no_style(options: RunOptions) -> None:
    pytest.importorskip("diffusers", reason="needs the extra baselines")
    with pytest.raises(ValueError, match="layout.style=True: must be of a model of cells"):
        training(options, with_fields(recipe_named("unet_1m"), {"data.crop": 16, "layout.style": True}))


def test_a_model_that_follows_styles_begins_no_training_without(
    options: RunOptions, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="--from .*: follows styles; give --layout.style"):
        training(replace(options, out=tmp_path / "other"), PLAIN, str(run))
