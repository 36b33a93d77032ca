"""`benchmarks/layouts.py` measures whether images follow their layout, are useful, and have structure."""

import math
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.data.sources import stem_of
from diffnca.models.build import build_denoiser
from diffnca.models.file import write_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GROUND, DISC = (212, 150, 205), (130, 80, 165)
SIDE = 48


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """All names of the benchmark and of its files."""
    before = list(sys.path)
    sys.path.insert(0, str(BENCHMARKS))
    names = {}
    for file in ("segmenter", "glands", "layouts"):
        names |= runpy.run_path(str(BENCHMARKS / f"{file}.py"))
    yield SimpleNamespace(**names)
    sys.path[:] = before


def disc(centre: tuple[float, float], radius: float, side: int = SIDE) -> np.ndarray:
    rows, columns = np.indices((side, side))
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `images` of discs, and `layouts` in black and white."""
    folder, random = tmp_path_factory.mktemp("tissue"), np.random.default_rng(0)
    for kind in ("images", "layouts"):
        (folder / kind).mkdir()
    for number in range(10):
        mask = disc(tuple(random.uniform(14, SIDE - 14, 2)), random.uniform(8, 12))
        pixels = np.where(mask[..., None], DISC, GROUND) + random.normal(0, 8, (SIDE, SIDE, 3))
        Image.fromarray(np.uint8(pixels.clip(0, 255))).save(folder / "images" / f"{number}.png")
        Image.fromarray(np.uint8(mask * 255)).save(folder / "layouts" / f"{number}.png")
    return folder


def tiny(classes: tuple[str, ...]) -> Config:
    """Return a model of one small cell step, which samples in one step."""
    few = {"channels": 40, "coarse": None, "cell.num_cell_steps": 1, "cell.hidden": 16}
    planes = LayoutConfig(classes).num_planes(3)
    changes = {f"model.{name}": value for name, value in (few | {"given_channels": planes}).items()}
    return with_fields(recipe_named("diff_nca"), changes | {"layout.classes": classes, "sampling.steps": 1})


@pytest.fixture(scope="module")
def models(tissue: Path) -> list[str]:
    """A model without layouts, and one with; both with random weights, and with all images held out."""
    paths = []
    for name, classes in (("plain", ()), ("seeing", ("ground", "disc"))):
        torch.manual_seed(0)
        config = tiny(classes)
        held_out = [path.name for path in (tissue / "images").iterdir()]
        path = tissue / f"{name}.safetensors"
        write_model(path, build_denoiser(config).network.state_dict(), config, {"held_out": held_out})
        paths.append(str(path))
    return paths


def options(parts: SimpleNamespace, tissue: Path, out: Path, crops: int = 8) -> dict:
    lesson = parts.Lesson(crops=crops, batch=4, crop_px=32, channels=(8, 16))
    return {
        "out": out,
        "data": tissue / "images",
        "layouts": tissue / "layouts",
        "held_out": tuple("1357"),
        "reduce": 1,
        "smallest_um2": 1.0,
        "lesson": lesson,
    }


def rows_of(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_half_a_mask_has_a_dice_of_two_thirds(parts: SimpleNamespace) -> None:
    whole, half = np.ones((4, 4), bool), np.arange(16).reshape(4, 4) < 8
    assert parts.dice(half, whole) == pytest.approx(2 / 3)


def test_a_disc_has_its_area_and_is_round(parts: SimpleNamespace) -> None:
    (area,), (roundness,) = (
        getattr(parts.glands_in(disc((40, 40), 20, 80), 2.0, 1.0), name) for name in ("areas", "roundness")
    )
    assert area == pytest.approx(4 * math.pi * 20**2, rel=0.01)
    assert roundness > 0.95


def test_pictures_side_by_side_count_a_gland_on_their_common_edge_once(parts: SimpleNamespace) -> None:
    wide = np.hstack([disc((20, 40), 10, 40), disc((20, 0), 10, 40)])
    of_both = [parts.glands_in(each, 1.0, 1.0).per_mm2 for each in (wide[:, :40], wide[:, 40:])]
    assert sum(of_both) / 2 == pytest.approx(parts.glands_in(wide, 1.0, 1.0).per_mm2)


def test_the_error_of_a_mean_is_that_over_pictures(parts: SimpleNamespace) -> None:
    assert parts.mean_with_error([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], 3) == f"2.000 ± {1 / math.sqrt(3):.3f}"


def test_white_within_a_gland_belongs_to_it(parts: SimpleNamespace) -> None:
    ring, middle = disc((20, 20), 12) & ~disc((20, 20), 5), disc((20, 20), 5)
    outside = disc((40, 40), 3)
    planes = np.stack([~ring & ~middle & ~outside, ring, middle | outside], axis=-1).astype(np.uint8) * 255
    assert np.array_equal(parts._share(planes) > 0, ring | middle)


def test_a_segmenter_finds_the_discs_of_images_it_never_saw(
    parts: SimpleNamespace, tissue: Path, tmp_path: Path
) -> None:
    asked = parts.Follow(**options(parts, tissue, tmp_path, crops=240))
    found = [parts.dice(asked.segmenter.found(each.image), each.mask) for each in asked.held_out_examples]
    assert min(found) > 0.7  # all of an image as a disc would have 0.2


def test_a_segmenter_that_was_trained_in_another_way_is_refused(
    parts: SimpleNamespace, tissue: Path, tmp_path: Path
) -> None:
    assert parts.Follow(**options(parts, tissue, tmp_path)).segmenter
    with pytest.raises(ValueError, match="give another folder"):
        _ = parts.Follow(**options(parts, tissue, tmp_path, crops=12)).segmenter


def test_each_way_to_make_images_of_maps_has_a_row_and_images_are_made_once(
    parts: SimpleNamespace,
    tissue: Path,
    models: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = {**options(parts, tissue, tmp_path), "models": tuple(models), "fewest": 4, "maps": 2}
    parts.Follow(**asked).run()
    rows = rows_of(capsys.readouterr().out)
    made = ["plain, no map", "plain, drawing, strength 0.75", "seeing, no map", "seeing, map, obey 1"]
    assert list(rows) == ["images", "masks of the real images", "real", *made]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    before |= {path: path.stat().st_mtime_ns for path in (tmp_path / "follow").rglob("*.png")}
    parts.Follow(**asked).run()
    assert rows_of(capsys.readouterr().out) == rows
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert (tmp_path / "follow.png").is_file()


def test_maps_that_a_model_has_seen_are_refused(
    parts: SimpleNamespace, tissue: Path, models: list[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="4 of the 4 held-out pictures were .*: must be 12 or more"):
        _ = parts.Follow(**options(parts, tissue, tmp_path), models=tuple(models)).unseen


def test_pictures_outside_the_folder_of_a_training_are_unseen(
    parts: SimpleNamespace, tissue: Path, models: list[str], tmp_path: Path
) -> None:
    asked = options(parts, tissue, tmp_path)
    config = tiny(())
    write_model(tmp_path / "m.safetensors", build_denoiser(config).network.state_dict(), config, {})
    held_out = parts.Follow(**asked).held_out_examples
    (tmp_path / f"{held_out[0].name}.png").write_bytes(b"")
    found = parts.Follow(
        **asked, models=(str(tmp_path / "m.safetensors"),), trained_on=tmp_path, fewest=1
    ).unseen
    assert found == [1, 2, 3]


def test_fewer_images_are_among_more_and_none_is_held_out(
    parts: SimpleNamespace, tissue: Path, tmp_path: Path
) -> None:
    parts.Subsets(**options(parts, tissue, tmp_path), counts=(2, 4)).run()
    two, four = (
        {path.stem for path in (tmp_path / "subsets" / count / "images").iterdir()} for count in "24"
    )
    held_out = {each.name for each in parts.Follow(**options(parts, tissue, tmp_path)).held_out_examples}
    assert len(two) == 2
    assert two < four
    assert not four & held_out
    layouts = {path.stem for path in (tmp_path / "subsets" / "4" / "layouts").iterdir()}
    assert layouts == set(map(stem_of, four))


def test_pairs_of_a_model_and_of_a_folder_both_have_a_gain(
    parts: SimpleNamespace,
    tissue: Path,
    models: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = {**options(parts, tissue, tmp_path), "counts": (2, 4, 6), "seeds": 2, "synthetic": 3}
    pairs = (f"2={models[1]}", f"4={tissue}")
    parts.Useful(**asked, pairs=pairs, pairs_reduce=1).run()
    rows = rows_of(capsys.readouterr().out)
    assert [rows[count][2] for count in "246"] == ["3", "10", "0"]
    assert [rows[count][3] == "-" for count in "246"] == [False, False, True]


def test_pictures_have_a_distance_at_each_size_that_they_reach(
    parts: SimpleNamespace, tissue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {**options(parts, tissue, tmp_path), "factors": (1, 2), "crop_px": 16, "crops": 6, "reduce": 2}
    parts.Structure(**asked, pictures=(f"half={tissue / 'images'}",), pictures_reduce=2).run()
    row = rows_of(capsys.readouterr().out)["half"]
    assert row[:2] == ["10", "-"]
    assert "±" in row[2]
