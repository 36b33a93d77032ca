"""A training with layouts: what it asks of the images, what its model sees, and how it goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.canvas.region import Canvas
from diffnca.cli.main import main
from diffnca.config.model import with_fields
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Query
from diffnca.models.build import build_denoiser
from diffnca.models.file import load, read_card, read_config
from diffnca.sampling.generate import generate
from diffnca.training.objectives import Batch, OwnLoss, seen_coarsely
from diffnca.training.options import AUTO, RANDOM, RunOptions, StudentOptions
from diffnca.training.session import Session, distillation, training

from .conftest import CONFIG


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of photos, and a folder with the layouts of all but one."""
    photos, maps = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("maps")
    for index in range(4):
        numbers = np.random.default_rng(index).integers(0, 2, (40, 50), dtype=np.uint8)
        Image.fromarray(np.dstack([numbers * 200, numbers, numbers])).save(photos / f"{index}.png")
        if index:
            Image.fromarray(numbers).save(maps / f"{index}.png")
    return photos, maps


@pytest.fixture(scope="module")
def given(folders: tuple[Path, Path]) -> RunOptions:
    photos, maps = folders
    return RunOptions(data=(photos,), layouts=(maps,), images=8, sample_minutes=0.0)


def test_the_model_of_a_run_has_the_classes_of_its_layouts(run: Path) -> None:
    config = read_config(run / "model.safetensors")
    assert config.layout.names == ("0", "1")
    assert config.model.given_channels == 2


def test_the_classes_have_the_names_that_are_asked_for(options: RunOptions) -> None:
    config = with_fields(CONFIG, {"layout.classes": ("stroma", "gland", "white")})
    assert training(options, config).config.layout.names == ("stroma", "gland", "white")


def test_the_card_of_a_model_names_its_layouts(run: Path, folders: tuple[Path, Path]) -> None:
    assert read_card(run / "model.safetensors")["layouts"] == str(folders[1])


def test_the_plan_names_the_classes_and_counts_the_images_without_layouts(
    options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, maps = options.data[0], options.layouts[0]
    fields = "--data.crop 16 --model.channels 48 --recipe diff_nca --images 4 --dry-run"
    assert main(["train", "--data", str(photos), "--layouts", str(maps), *fields.split()]) == 0
    shown = capsys.readouterr()
    assert "layouts  0, 1; 15% of the crops are shown without" in shown.out
    assert "data     3 images, 1 left out" in shown.out
    assert f"left out 0.png: has no layout in {maps}" in shown.err


def planes_of(session: Session, step: int) -> torch.Tensor:
    return session._batch(step)[:, 3:]


def test_a_step_shows_equal_layouts_each_time_it_is_taken(options: RunOptions) -> None:
    first, again = (training(options, CONFIG) for _ in range(2))
    assert torch.equal(first._batch(5), again._batch(5))


def test_training_drops_as_many_layouts_as_it_is_told(options: RunOptions) -> None:
    config = with_fields(CONFIG, {"layout.dropped": 1.0})
    assert planes_of(training(options, config), 0).abs().max() == 0


def test_the_loss_depends_on_the_layout() -> None:
    torch.manual_seed(0)
    config = with_fields(CONFIG, {"layout.classes": ("a", "b"), "model.given_channels": 2})
    objective = OwnLoss(build_denoiser(config), torch.device("cpu"))
    for parameter in objective.player.module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    channels = torch.randn(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    other = torch.cat([channels[:, :3], -channels[:, 3:]], dim=1)
    losses = [
        objective.loss("model", Batch.of(each, config, torch.Generator().manual_seed(0)))
        for each in (channels, other)
    ]
    assert losses[0] != losses[1]


def test_without_a_layout_a_model_sees_planes_of_zeros(run: Path) -> None:
    model, region = load(run), Canvas(16, 16).whole
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    query = Query(torch.ones(1, 3, 16, 16), model.schedule.level(100), region)
    zeros = replace(query, given=torch.zeros(1, 2, 16, 16))
    assert torch.equal(model.estimate(query), model.estimate(zeros))


def test_a_model_without_planes_begins_a_model_with_them(options: RunOptions, tmp_path: Path) -> None:
    plain = training(replace(options, layouts=(), out=tmp_path / "plain"), CONFIG).run().out
    slow = with_fields(read_config(plain / "model.safetensors"), {"training.learning_rate": 1e-12})
    wide = training(options, slow, str(plain)).run().out
    query = Query(torch.ones(1, 3, 16, 16), load(wide).schedule.level(100), Canvas(16, 16).whole)
    torch.testing.assert_close(load(wide).estimate(query), load(plain).estimate(query), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("quick_look")
def test_the_bundled_models_can_begin_a_training_with_layouts(options: RunOptions) -> None:
    small = {"training.compile": "off", "training.precision": "float32", "data.crop": 16}
    session = training(options, with_fields(recipe_named("diff_nca"), small), AUTO)
    assert len(session.errors) > 0 and session.config.model.given_channels == 2


def test_a_finished_run_with_layouts_is_finished_already(options: RunOptions, run: Path) -> None:
    assert training(options, CONFIG).run().was_finished


def test_a_run_does_not_go_on_with_other_layouts(
    options: RunOptions, run: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for path in folders[1].iterdir():
        with Image.open(path) as image:
            image.rotate(180).save(tmp_path / path.name, compress_level=0)
    with pytest.raises(ValueError, match="began with other images, weights or another teacher"):
        training(replace(options, layouts=(tmp_path,), images=16), CONFIG).run()


def test_a_student_of_a_model_with_layouts_learns_with_layouts(options: RunOptions, run: Path) -> None:
    asked = replace(options, out=run.parent / "student")
    student = distillation(asked, str(run), StudentOptions(steps=3)).run().out
    assert read_config(student / "model.safetensors").layout.names == ("0", "1")


@pytest.mark.parametrize("classes", [("a", "b"), ("0",)])
def test_a_model_of_other_classes_begins_no_training(
    options: RunOptions, run: Path, tmp_path: Path, classes: tuple[str, ...]
) -> None:
    changes = {"layout.classes": classes, "model.given_channels": len(classes)}
    with pytest.raises(ValueError, match="has other classes; give --layout.classes 0="):
        training(replace(options, out=tmp_path / "other"), with_fields(CONFIG, changes), str(run))


def test_a_legend_without_layouts_is_refused(options: RunOptions) -> None:
    config = with_fields(CONFIG, {"layout.classes": ("a", "b")})
    with pytest.raises(ValueError, match="layout.classes=a, b: must be left out without --layouts; give the"):
        training(replace(options, layouts=()), config)


def test_a_student_of_a_model_without_layouts_takes_none(options: RunOptions, tmp_path: Path) -> None:
    plain = training(replace(options, layouts=(), out=tmp_path / "plain"), CONFIG).run().out
    with pytest.raises(ValueError, match="--layouts: must be left out, as the teacher .* without them"):
        distillation(options, str(plain), StudentOptions(steps=3))


def test_a_network_without_cells_takes_no_layouts(options: RunOptions) -> None:
    pytest.importorskip("diffusers", reason="needs the extra baselines")
    with pytest.raises(ValueError, match="--layouts: must be for a model of cells, not for unet_1m"):
        training(options, with_fields(recipe_named("unet_1m"), {"data.crop": 16}))


def test_the_legend_is_among_the_facts_of_a_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run)]) == 0
    assert "\nlegend:\n  0: 0=#" in capsys.readouterr().out


def test_colours_of_a_map_are_means_of_the_image_with_the_noise_that_their_trust_says() -> None:
    x_0 = torch.rand(64, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    planes = seen_coarsely(x_0, 8, torch.Generator().manual_seed(1))
    trust, means = planes[:, 3:], torch.nn.functional.avg_pool2d(x_0, 8)
    assert 0.3 < (trust.amax(dim=(1, 2, 3)) > 0).float().mean() < 0.7
    known = trust[:, 0, 0, 0] > 0
    shown, of_known = (planes[:, :3, ::8, ::8] / trust[..., ::8, ::8])[known], trust[known][..., :1, :1]
    noise = (shown - means[known]) / (1 - of_known)
    assert abs(float(noise.std()) - 1.0) < 0.05 and abs(float(noise.mean())) < 0.05
    assert planes[~known].abs().max() == 0


def test_a_training_with_colours_has_their_planes(options: RunOptions, tmp_path: Path) -> None:
    config = with_fields(CONFIG, {"layout.classes": ("a", "b"), "layout.coarse": 4})
    session = training(replace(options, out=tmp_path / "coloured"), config)
    assert session.config.model.given_channels == 2 + 3 + 1
    assert session.run().progress.images == options.images


MAKES = {"layout.classes": ("a", "b"), "layout.made": True}


def test_a_model_that_makes_layouts_learns_colours_and_classes_together() -> None:
    config = with_fields(CONFIG, MAKES | {"model.made_channels": 2})
    channels = torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch.of(channels, config, torch.Generator())
    assert batch.given is None
    assert torch.equal(batch.x_0, torch.cat([channels[:, :3], 2 * channels[:, 3:] - 1], dim=1))


def test_a_training_that_makes_layouts_draws_their_planes(options: RunOptions, tmp_path: Path) -> None:
    asked = replace(options, out=tmp_path / "makes")
    out = training(asked, with_fields(CONFIG, MAKES | {"model.channels": 16})).run().out
    assert generate(load(out), height=16, width=24).shape == (1, 5, 16, 24)
    assert read_config(out / "model.safetensors").model.made_channels == 2


def test_gray_images_have_the_planes_of_one_colour(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "gray").mkdir()
    for path in folders[0].iterdir():
        with Image.open(path) as image:
            image.convert("L").save(tmp_path / "gray" / f"{path.stem}.png")
    asked = RunOptions(data=(tmp_path / "gray",), layouts=(folders[1],), images=8, out=tmp_path / "run")
    small = {"layout.coarse": 4, "data.crop": 16, "data.reduce": 1}
    session = training(asked, with_fields(recipe_named("diff_nca"), small), RANDOM)
    assert (session.config.model.image_channels, session.config.model.given_channels) == (1, 2 + 1 + 1)


@pytest.mark.parametrize(("name", "value"), [("coarse", 8), ("made", True)])
def test_maps_need_layouts(options: RunOptions, name: str, value: object) -> None:
    config = with_fields(CONFIG, {f"layout.{name}": value})
    with pytest.raises(ValueError, match=f"layout.{name}={value}: must be left out without --layouts"):
        training(replace(options, layouts=()), config)
