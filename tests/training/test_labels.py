"""A training with labels: what its model sees, with maps and without, how it goes on, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.cli.main import main
from diffnca.config.model import with_fields
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_denoiser
from diffnca.models.file import load, read_config
from diffnca.sampling.generate import generate
from diffnca.training.objectives import Batch
from diffnca.training.options import AUTO, RunOptions, StudentOptions
from diffnca.training.session import Session, distillation, training
from diffnca.training.transfer import load_start

from .conftest import CONFIG

CLASSES = {"layout.classes": ("a", "b")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, in a folder for each of two labels, and beside it their maps."""
    above = tmp_path_factory.mktemp("pictures")
    for name, value in (("bark", 40), ("moss", 200)):
        for index in range(2):
            numbers = np.random.default_rng(index).integers(0, 2, (30, 40), dtype=np.uint8)
            for kind, pixels in (("photos", np.dstack([numbers + np.uint8(value)] * 3)), ("maps", numbers)):
                path = above / kind / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return above


@pytest.fixture(scope="module")
def given(folder: Path) -> RunOptions:
    return RunOptions(data=(folder / "photos",), labels="folders", images=8, sample_minutes=0.0)


def with_maps(options: RunOptions) -> RunOptions:
    return replace(options, layouts=(options.data[0].parent / "maps",))


def seen_in(session: Session) -> Batch:
    """Return the batch of the first step."""
    return Batch.of(session._batch(0), session.config, torch.Generator().manual_seed(0))


def test_the_model_of_a_run_has_the_labels_of_its_images(run: Path) -> None:
    config = read_config(run / "model.safetensors")
    assert config.layout.labels == ("bark", "moss")
    assert config.model.given_channels == 2


def test_several_folders_are_the_labels_of_their_images(options: RunOptions) -> None:
    paths = tuple(options.data[0] / name for name in ("moss", "bark"))
    assert training(replace(options, data=paths), CONFIG).config.layout.labels == ("bark", "moss")


def test_the_cells_see_the_label_of_each_crop(options: RunOptions) -> None:
    batch = seen_in(training(options, with_fields(CONFIG, {"layout.dropped": 0.0})))
    assert batch.given is not None
    is_bark = batch.x_0[:, :1] < 0
    assert torch.equal(batch.given, torch.cat([is_bark, ~is_bark], dim=1).float())


@pytest.mark.parametrize(("coarse", "num_map_planes"), [(0, 2), (4, 6)])
def test_planes_of_labels_follow_all_planes_of_a_map(
    options: RunOptions, coarse: int, num_map_planes: int
) -> None:
    config = with_fields(CONFIG, CLASSES | {"layout.coarse": coarse, "layout.dropped": 0.0})
    session = training(with_maps(options), config)
    given = seen_in(session).given
    assert given is not None and given.shape[1] == session.config.model.given_channels == num_map_planes + 2
    assert torch.equal(given[:, num_map_planes:].sum(dim=1), torch.ones(4, 16, 16))


def test_a_model_that_makes_maps_sees_labels_and_no_map(options: RunOptions) -> None:
    config = with_fields(CONFIG, CLASSES | {"layout.made": True, "layout.dropped": 0.0, "model.channels": 16})
    session = training(with_maps(options), config)
    batch = seen_in(session)
    assert batch.given is not None and batch.given.shape[1] == session.config.model.given_channels == 2
    assert batch.x_0.shape[1] == 5
    out = session.run().out
    made = [generate(load(out), height=16, width=16, label=label) for label in ("bark", "moss")]
    assert made[0].shape == (1, 5, 16, 16) and not torch.equal(*made)


def test_a_step_drops_as_many_labels_as_it_is_told_and_not_with_the_maps(options: RunOptions) -> None:
    changes = CLASSES | {"layout.dropped": 0.5, "training.batch": 400}
    made = training(with_maps(options), with_fields(CONFIG, changes))._batch(0)
    has_map, has_label = (part.amax(dim=(1, 2, 3)) > 0 for part in (made[:, 3:5], made[:, 5:]))
    for first in (True, False):
        for second in (True, False):
            share = ((has_map == first) & (has_label == second)).float().mean()
            assert 0.18 < float(share) < 0.32


def test_the_plan_counts_the_images_of_each_label(
    options: RunOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = "--labels folders --data.crop 16 --model.channels 48 --recipe diff_nca --images 4 --dry-run"
    assert main(["train", "--data", str(options.data[0]), *fields.split()]) == 0
    line = "labels   bark 2, moss 2 (images), seen equally often; 15% of the crops are shown without\n"
    assert line in capsys.readouterr().out


def test_the_labels_are_among_the_facts_of_a_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(run)]) == 0
    assert "\nlabels: bark, moss\n" in capsys.readouterr().out


def test_a_sheet_shows_samples_of_each_label_in_turn(
    options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def noted(*args: object, **choices: object) -> torch.Tensor:
        asked.append(choices["label"])
        return generate(*args, **choices)  # type: ignore[arg-type]

    monkeypatch.setattr("diffnca.training.sheets.generate", noted)
    training(replace(options, sample_minutes=1.0), with_fields(CONFIG, {"sampling.steps": 1})).run()
    assert asked == [["bark", "moss"] * 4 + ["bark"]]


@pytest.mark.usefixtures("quick_look")
def test_the_bundled_models_can_begin_a_training_with_labels(options: RunOptions) -> None:
    small = {"training.compile": "off", "training.precision": "float32", "data.crop": 16}
    session = training(options, with_fields(recipe_named("diff_nca"), small), AUTO)
    assert len(session.errors) > 0 and session.config.model.given_channels == 2


def test_a_finished_run_with_labels_is_finished_already(options: RunOptions, run: Path) -> None:
    assert training(options, CONFIG).run().was_finished


def test_a_run_does_not_go_on_with_the_labels_of_other_images(
    options: RunOptions, run: Path, tmp_path: Path
) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("bark/0,bark\nbark/1,moss\nmoss/0,moss\nmoss/1,moss\n")
    with pytest.raises(ValueError, match="began with other images, weights or another teacher"):
        training(replace(options, labels=str(table), images=16), CONFIG).run()


@pytest.mark.usefixtures("quick_look")
@pytest.mark.parametrize("start", [None, AUTO])
def test_a_run_does_not_go_on_with_other_labels(
    options: RunOptions, tmp_path: Path, start: str | None
) -> None:
    config = CONFIG if start is None else with_fields(recipe_named("diff_nca"), {"training.batch": 2})
    quick = {"data.crop": 16, "training.compile": "off", "training.precision": "float32"}
    training(replace(options, images=2), with_fields(config, quick), start).run()
    table = tmp_path / "labels.csv"
    table.write_text("bark/0,ash\nbark/1,bark\nmoss/0,moss\nmoss/1,moss\n")
    asked = replace(options, labels=str(table))
    with pytest.raises(ValueError, match=r"began with layout.labels=\('bark', 'moss'\), not \('ash', 'bark'"):
        training(asked, with_fields(config, quick), start)


def test_a_student_of_a_model_with_labels_learns_with_labels(options: RunOptions, run: Path) -> None:
    asked = replace(options, out=run.parent / "student")
    student = distillation(asked, str(run), StudentOptions(steps=3)).run().out
    assert read_config(student / "model.safetensors").layout.labels == ("bark", "moss")


def test_a_student_of_a_model_with_labels_needs_them(options: RunOptions, run: Path) -> None:
    asked = replace(options, labels=None, out=run.parent / "student")
    with pytest.raises(ValueError, match="--labels: must be given, as the teacher .* was trained with them"):
        distillation(asked, str(run), StudentOptions(steps=3))


def test_a_student_of_a_model_without_labels_takes_none(options: RunOptions, tmp_path: Path) -> None:
    plain = training(replace(options, labels=None, out=tmp_path / "plain"), CONFIG).run().out
    with pytest.raises(ValueError, match="--labels: must be left out, as the teacher .* without them"):
        distillation(options, str(plain), StudentOptions(steps=3))


def test_a_model_of_labels_begins_no_training_without_them(
    options: RunOptions, run: Path, tmp_path: Path
) -> None:
    asked = replace(options, labels=None, out=tmp_path / "other")
    with pytest.raises(ValueError, match="has other labels; give --layout.labels bark, moss"):
        training(asked, CONFIG, str(run))
    with pytest.raises(ValueError, match="has other classes; leave out --layouts, as it was trained"):
        training(replace(with_maps(asked), labels="folders"), with_fields(CONFIG, CLASSES), str(run))


def test_a_model_of_maps_learns_labels_too_and_begins_as_it_was(options: RunOptions, tmp_path: Path) -> None:
    config = with_fields(CONFIG, CLASSES | {"layout.coarse": 4})
    unlabelled = replace(with_maps(options), labels=None, out=tmp_path / "maps")
    start = training(unlabelled, config).run().out
    session = training(with_maps(options), read_config(start / "model.safetensors"), str(start))
    assert session.config.layout.labels == ("bark", "moss") and session.config.model.given_channels == 8
    begun = build_denoiser(session.config)
    load_start(begun, start / "model.safetensors")
    layout, size = torch.tensor([[0, 1], [1, 1]]), {"height": 16, "width": 16, "steps": 1}
    before, after = (generate(each, layout=layout, **size) for each in (load(start), begun))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_a_model_of_maps_keeps_its_maps_as_it_learns_labels(options: RunOptions, tmp_path: Path) -> None:
    unlabelled = replace(with_maps(options), labels=None, out=tmp_path / "maps")
    start = training(unlabelled, with_fields(CONFIG, CLASSES)).run().out
    coarse = with_fields(CONFIG, CLASSES | {"layout.coarse": 4})
    with pytest.raises(ValueError, match="has other coarse; give --layout.coarse 0"):
        training(with_maps(options), coarse, str(start))


def test_a_network_without_cells_takes_no_labels(options: RunOptions) -> None:
    pytest.importorskip("diffusers", reason="needs the extra baselines")
    with pytest.raises(ValueError, match="--labels: must be for a model of cells, not for unet_1m"):
        training(options, with_fields(recipe_named("unet_1m"), {"data.crop": 16}))


def test_a_label_without_an_image_to_train_on_is_refused(options: RunOptions, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "clay.png")
    with pytest.raises(ValueError, match="--labels: leaves no image of clay to train on; add some, or hold"):
        training(replace(options, data=(*options.data, tmp_path / "clay.png")), CONFIG)
