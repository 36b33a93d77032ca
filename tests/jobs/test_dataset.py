"""Pairs of images and maps in a folder: what they are, on any batch, after a stop, and what is refused."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import with_fields
from diffnca.errors import Interrupted
from diffnca.jobs.dataset import synthesize
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.pairs import Pairs, pairs_of
from diffnca.jobs.request import asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New
from diffnca.models.file import load, read_config
from diffnca.sampling.generate import generate
from diffnca.sampling.layouts import read_layout

from .conftest import small, write_small

CLASSES = {"layout.classes": ("stroma=#ff0000", "gland=#0000ff")}
MAKES = {"layout.made": True, "model.made_channels": 2, "sampling.steps": 2, "model.channels": 40}
KINDS = {
    "follower": {"model.given_channels": 2},
    "filler": {"layout.coarse": 4, "model.given_channels": 6},
    "maker": MAKES,
    "labelled": {"model.given_channels": 4, "layout.labels": ("benign", "malignant")},
}
CHOICES = Choices(steps=1, seed=4, count=3)
SIZE = (8, 12)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of small models: one follows maps, one follows coarse maps, one makes maps."""
    folder = tmp_path_factory.mktemp("models")
    return {
        name: write_small(
            folder / f"{name}.safetensors", with_fields(small(), CLASSES | changes), licence=f"of {name}"
        )
        for name, changes in KINDS.items()
    }


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """A folder of two maps of 8x12 px."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for index, name in enumerate(("a", "b")):
        numbers = np.full(SIZE, index, dtype=np.uint8)
        numbers[2:6, 2:6] = 1 - index
        Image.fromarray(numbers).save(folder / f"{name}.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers_of(encoded: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image)


def pixels(path: Path) -> np.ndarray:
    return numbers_of(path.read_bytes())


def filled(models: dict[str, str], choices: Choices = CHOICES, **more: Any) -> Pairs:
    return pairs_of(models["filler"], choices, SIZE, maker=models["maker"], **more)


@pytest.fixture(scope="module")
def whole(models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of three pairs that were made without a stop, one after the other."""
    folder = tmp_path_factory.mktemp("whole") / "pairs"
    synthesize(filled(models), folder, batch=1, has_coco=True)
    return contents(folder)


def test_a_pair_is_what_sample_makes_of_its_seed(
    models: dict[str, str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    choices = Choices(steps=1, seed=5)
    place = Place(out=str(tmp_path / "a.png"), save_layout=tmp_path / "map.png")
    list(run(asked(models["filler"], New(), choices, SIZE, maker=models["maker"]), place))
    assert (tmp_path / "a.png").read_bytes() == whole["images/000001.png"]
    assert (tmp_path / "map.png").read_bytes() == whole["layouts/000001.png"]


def test_a_pair_of_a_given_map_is_what_sample_makes_of_it(
    models: dict[str, str], maps: Path, tmp_path: Path
) -> None:
    synthesize(pairs_of(models["follower"], CHOICES, layout=maps), tmp_path / "pairs")
    layout = read_layout(maps / "b.png", read_config(Path(models["follower"])))
    request = asked(models["follower"], New(layout=layout), Choices(steps=1, seed=5))
    list(run(request, Place(out=str(tmp_path / "a.png"))))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "pairs/images/000001.png").read_bytes()


def test_given_maps_are_followed_in_turn(models: dict[str, str], maps: Path, tmp_path: Path) -> None:
    synthesize(pairs_of(models["follower"], CHOICES, layout=maps), tmp_path / "pairs")
    followed = [maps / name for name in ("a.png", "b.png", "a.png")]
    for index, path in enumerate(followed):
        np.testing.assert_array_equal(pixels(tmp_path / f"pairs/layouts/{index:06d}.png"), pixels(path))


def test_a_label_is_followed_beside_the_maps(models: dict[str, str], maps: Path, tmp_path: Path) -> None:
    pairs = pairs_of(models["labelled"], CHOICES, layout=maps, label="malignant")
    synthesize(pairs, tmp_path / "pairs")
    options = {"height": 8, "width": 12, "seed": 5, "steps": 1, "label": "malignant"}
    layout = torch.from_numpy(pixels(maps / "b.png").copy())
    made = generate(load(models["labelled"]), layout=layout, **options)
    np.testing.assert_array_equal(pixels(tmp_path / "pairs/images/000001.png"), to_uint8(made)[0])


def test_drawings_are_followed_too(models: dict[str, str], maps: Path, tmp_path: Path) -> None:
    ring = [[2, 0], [6, 0], [6, 4], [2, 4], [2, 0]]
    drawing = {
        "type": "Feature",
        "properties": {"name": "gland"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (maps / "a.geojson").write_text(json.dumps(drawing))
    synthesize(pairs_of(models["follower"], CHOICES, (6, None), maps), tmp_path / "pairs")
    expected = np.zeros((6, 6), dtype=np.uint8)
    expected[:4, 2:] = 1
    np.testing.assert_array_equal(pixels(tmp_path / "pairs/layouts/000000.png"), expected)
    assert (tmp_path / "pairs/index.csv").read_text().splitlines()[1].endswith(",4,a.geojson")


def test_a_model_that_makes_maps_gives_both_of_a_pair(models: dict[str, str], tmp_path: Path) -> None:
    synthesize(pairs_of(models["maker"], Choices(seed=4), SIZE), tmp_path / "pairs")
    made = generate(load(models["maker"]), height=8, width=12, seed=4)
    image, layout = (pixels(tmp_path / f"pairs/{part}/000000.png") for part in ("images", "layouts"))
    np.testing.assert_array_equal(image, to_uint8(made[:, :3])[0])
    np.testing.assert_array_equal(layout, made[0, 3:].argmax(dim=0).numpy())


@pytest.mark.parametrize("batch", [2, 8])
def test_pairs_are_equal_to_the_byte_in_any_batch(
    models: dict[str, str], whole: dict[str, bytes], batch: int, tmp_path: Path
) -> None:
    synthesize(filled(models), tmp_path / "pairs", batch=batch, has_coco=True)
    assert contents(tmp_path / "pairs") == whole


def test_pairs_of_given_maps_of_several_sizes_are_equal_in_any_batch(
    models: dict[str, str], maps: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(maps / "aa.png")
    pairs = pairs_of(models["follower"], Choices(steps=1, count=5), layout=maps, obey=2.0)
    for batch in (1, 4):
        synthesize(pairs, tmp_path / f"{batch}", batch=batch)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")
    assert pixels(tmp_path / "1/layouts/000001.png").shape == (16, 16)


@pytest.mark.parametrize("answered", [0, 2, 4, 7])
def test_a_stopped_dataset_goes_on_and_is_the_same(
    models: dict[str, str], whole: dict[str, bytes], answered: int, tmp_path: Path
) -> None:
    answers: Iterator[bool] = iter([False] * answered + [True])
    with pytest.raises(Interrupted):
        synthesize(filled(models), tmp_path / "pairs", batch=1, cancelled=lambda: next(answers))
    (tmp_path / "pairs/images/.000000.png.0123abcd.diffnca-partial").touch()
    synthesize(filled(models), tmp_path / "pairs", has_coco=True)
    assert contents(tmp_path / "pairs") == whole


def test_finished_pairs_are_not_made_again(models: dict[str, str], tmp_path: Path) -> None:
    pairs = filled(models)
    assert synthesize(pairs, tmp_path / "pairs").num_new == 3
    assert synthesize(pairs, tmp_path / "pairs").num_new == 0


@pytest.mark.parametrize("lost", ["images/000001.png", "layouts/000001.png"])
def test_a_pair_with_a_lost_file_is_made_again(
    models: dict[str, str], whole: dict[str, bytes], lost: str, tmp_path: Path
) -> None:
    synthesize(filled(models), tmp_path / "pairs", has_coco=True)
    (tmp_path / "pairs" / lost).unlink()
    assert synthesize(filled(models), tmp_path / "pairs").num_new == 1
    assert contents(tmp_path / "pairs") == whole


def test_a_damaged_file_is_made_again(
    models: dict[str, str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    synthesize(filled(models), tmp_path / "pairs", has_coco=True)
    path = tmp_path / "pairs/layouts/000002.png"
    path.write_bytes(path.read_bytes()[:-20])
    synthesize(filled(models), tmp_path / "pairs")
    assert contents(tmp_path / "pairs") == whole


def test_a_larger_count_adds_pairs_and_annotations(
    models: dict[str, str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    fewer = Choices(steps=1, seed=4, count=1)
    synthesize(filled(models, fewer), tmp_path / "pairs", has_coco=True)
    assert synthesize(filled(models), tmp_path / "pairs").num_new == 2
    assert contents(tmp_path / "pairs") == whole


def test_the_index_lists_the_pairs_with_their_seeds_and_maps(
    models: dict[str, str], maps: Path, tmp_path: Path
) -> None:
    synthesize(pairs_of(models["follower"], CHOICES, layout=maps), tmp_path / "pairs")
    with open(tmp_path / "pairs/index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    last = {"image": "images/000002.png", "layout": "layouts/000002.png", "seed": "6", "map": "a.png"}
    assert len(rows) == 3 and rows[2] == last


def test_the_manifest_says_what_decides_the_pairs(models: dict[str, str], whole: dict[str, bytes]) -> None:
    manifest, request = json.loads(whole["manifest.json"]), filled(models).first
    assert request.maker is not None
    assert manifest["request"] == {
        "model": models["filler"],
        "weights": request.model.digest,
        "maker": f"{models['maker']} {request.maker.digest}",
        **{"seamless": "none", "height": "8", "width": "12", "sampler": "dpmpp2m", "steps": "1"},
        **{"seed": "4", "guidance": "1"},
    }
    assert manifest["seeds"] == [4, 6] and manifest["count"] == 3
    assert manifest["classes"][1] == {"number": 1, "name": "gland", "colour": "#0000ff"}
    assert manifest["licence"] == {"model": "of filler", "maker": "of maker"}


def test_annotations_are_of_all_classes_but_the_first(whole: dict[str, bytes]) -> None:
    found = json.loads(whole["annotations.json"])
    assert [each["name"] for each in found["categories"]] == ["gland"]
    assert [each["file_name"] for each in found["images"]] == ["000000.png", "000001.png", "000002.png"]
    assert found["licenses"][0]["name"] == "of filler"


def test_how_closely_maps_of_a_maker_are_followed_changes_the_images(
    models: dict[str, str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    synthesize(filled(models, obey=3.0), tmp_path / "pairs")
    made = contents(tmp_path / "pairs")
    assert made["images/000000.png"] != whole["images/000000.png"]
    np.testing.assert_array_equal(
        pixels(tmp_path / "pairs/layouts/000000.png"), numbers_of(whole["layouts/000000.png"])
    )
    assert json.loads(made["manifest.json"])["request"]["obey"] == "3"
