"""A look at the images of a training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.cli.main import main
from diffnca.cli.models import expected
from diffnca.config.model import with_fields
from diffnca.config.recipes import recipe_named
from diffnca.data.images import images_for
from diffnca.data.survey import class_shares
from diffnca.training.options import RunOptions
from diffnca.training.preview import Preview, preview
from diffnca.training.start import candidates

CANOPY = Path(__file__).parents[1] / "data" / "canopy"
CONFIG = with_fields(recipe_named("diff_nca"), {"data.crop": 16, "training.batch": 1, "data.reduce": 0})


@pytest.fixture(scope="module")
def seen(quick_look: None) -> Preview:
    return preview(RunOptions(data=(CANOPY,)), CONFIG)


def test_a_look_ranks_the_models_that_a_training_can_begin_with(seen: Preview) -> None:
    assert set(seen.errors) == set(candidates())
    assert list(seen.errors.values()) == sorted(seen.errors.values())


def test_a_look_measures_a_speed(seen: Preview) -> None:
    assert 0.01 < seen.crops_per_second < 10_000


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_look_times_the_training_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    natively = list[object]()
    monkeypatch.setattr("diffnca.training.preview.learn_natively", lambda *told: natively.append(told))
    preview(RunOptions(data=(CANOPY,)), with_fields(CONFIG, {"training.compile": choice}))
    assert len(natively) == (choice == "auto")


def test_the_sheet_of_a_look_holds_crops_of_the_images(seen: Preview, tmp_path: Path) -> None:
    seen.write_sheet(tmp_path / "look.png")
    sheet = np.asarray(Image.open(tmp_path / "look.png"))
    assert sheet.shape == (5 * 18 - 2, 5 * 18 - 2, 3)
    colours = {tuple(pixel) for image in seen.images for pixel in image.reshape(-1, 3)}
    assert {tuple(pixel) for pixel in sheet[:16, :16].reshape(-1, 3)} <= colours


@pytest.fixture
def annotated(tmp_path: Path) -> RunOptions:
    """Six pictures with labels, five of them with a map, in which a tenth of the pixels has no class."""
    for index in range(6):
        numbers = np.zeros((80, 80), dtype=np.uint8)
        numbers[:40, :40] = 1 if index else 0
        numbers[-8:] = 9
        pixels = np.random.default_rng(index).integers(0, 256, (80, 80, 3), dtype=np.uint8)
        label = "bark" if index < 2 else "moss"
        for kind, image in (("photos", Image.fromarray(pixels)), ("maps", transparent(numbers))):
            path = tmp_path / kind / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    (tmp_path / "maps" / "moss" / "5.png").unlink()
    return RunOptions(data=(tmp_path / "photos",), layouts=(tmp_path / "maps",), labels="folders")


def transparent(numbers: np.ndarray) -> Image.Image:
    """Return a label image that is transparent where the number is 9."""
    return Image.fromarray(np.dstack([numbers] * 3 + [np.where(numbers == 9, 0, 255).astype(np.uint8)]))


def test_a_look_finds_the_classes_and_the_labels_of_images(annotated: RunOptions) -> None:
    images = images_for(
        with_fields(CONFIG, {"layout.classes": ("a", "b", "c"), "data.reduce": 1}),
        annotated.data,
        layouts=annotated.layouts,
        labels="folders",
    )
    shares = class_shares(images)
    assert [count for _, count in shares] == [5, 4, 0]
    np.testing.assert_allclose([share for share, _ in shares], [0.7, 0.2, 0.0], atol=1e-6)
    assert [remark.name for remark in images.skipped] == ["moss/5.png"]


def test_the_sheet_of_a_look_shows_maps_beside_crops(
    annotated: RunOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.training.preview.errors", lambda *_: {})
    monkeypatch.setattr("diffnca.training.preview._speed", lambda *_: 1.0)
    command = ["look", str(annotated.data[0]), "--layouts", str(annotated.layouts[0]), "--labels", "folders"]
    command += ["--scale", "1px", "--out", str(tmp_path / "look.png")]
    assert main([*command, "--layout.classes", "a=#ff0000", "b=#0000ff"]) == 0
    said = capsys.readouterr()
    assert "classes   a 70.0% in 5, b 20.0% in 4 (of the pixels, in images); 10.0% unknown\n" in said.out
    assert "labels    bark 2, moss 3 (images)\n" in said.out
    assert "left out moss/5.png: has no layout in " in said.err
    sheet = np.asarray(Image.open(tmp_path / "look.png"))
    maps = sheet[:, sheet.shape[1] // 2 + 6 :]
    colours = {(255, 0, 0), (0, 0, 255), (128, 128, 128), (255, 255, 255)}
    assert {tuple(pixel) for pixel in maps.reshape(-1, 3).tolist()} == colours


@pytest.mark.parametrize(
    ("minutes", "speed", "said"),
    [
        (5, 10.0, "3,000 crops in 5 minutes: the colours, and grain"),
        (5, 30.0, "9,000 crops in 5 minutes: the material is plain to see"),
        (60, 25.0, "90,000 crops in 60 minutes: little more"),
    ],
)
def test_what_to_expect_follows_the_number_of_crops(minutes: float, speed: float, said: str) -> None:
    assert expected(minutes, speed).startswith(said)


def test_a_look_names_the_weights_that_begin(
    annotated: RunOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.training.preview.errors", lambda *_: {"texture": 0.05, "aerial": 0.07})
    monkeypatch.setattr("diffnca.training.preview._speed", lambda *_: 1.0)
    assert main(["look", str(annotated.data[0]), "--scale", "1px"]) == 0
    said = "weights   of texture, by its error on the images (texture 0.050, aerial 0.070)\n"
    assert said in capsys.readouterr().out


def test_a_value_that_is_no_class_is_named(
    annotated: RunOptions, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.training.preview.errors", lambda *_: {})
    monkeypatch.setattr("diffnca.training.preview._speed", lambda *_: 1.0)
    transparent(np.full((80, 80), 7, dtype=np.uint8)).save(annotated.layouts[0] / "bark" / "0.png")
    command = ["look", str(annotated.data[0]), "--layouts", str(annotated.layouts[0]), "--scale", "1px"]
    assert main([*command, "--layout.classes", "a=#ff0000", "b=#0000ff"]) == 0
    assert "left out bark/0.png: its layout bark/0.png: holds the value 7: must be" in capsys.readouterr().err
