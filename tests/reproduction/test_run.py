"""`diffnca reproduce` trains and measures all rows, goes on after a stop, and mixes no protocols."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.cli import main
from diffnca.reproduction.child import warm_up
from diffnca.reproduction.tables import table_named
from diffnca.training.checkpoint import read_card, read_config

pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra eval")
pytest.importorskip("diffusers", reason="needs the extra baselines")

ROWS = ["diff_nca", "unet_1m", "vnca"]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many smooth pictures of 64x64 px as a table needs."""
    folder = tmp_path_factory.mktemp("faces")
    coarse = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 3), dtype=np.uint8)
    for index, pixels in enumerate(coarse):
        enlarged = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        enlarged.save(folder / f"{index:04d}.png", compress_level=0)
    return folder


def command(faces: Path, out: Path, images: int, *more: str) -> list[str]:
    return [
        *("reproduce", "faces64", "--data", str(faces), "--out", str(out), "--reduce", "4"),
        *("--images", str(images), "--n", "100", "--steps", "2", "--rows", *ROWS, *more),
    ]


@pytest.fixture(scope="module")
def table(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished table of three rows, trained on a few images."""
    out = tmp_path_factory.mktemp("table") / "table"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")  # a few steps are not worth compiling for
        assert main(command(faces, out, 64)) == 0
    return out


def results(table: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((table / "results.json").read_text())
    return found


def test_every_row_is_trained_on_as_many_images_and_measured(table: Path) -> None:
    rows = results(table)["results"]
    assert [row["name"] for row in rows] == ROWS
    assert all(64 <= row["cost"]["training_images"] < 64 + 32 for row in rows)
    assert all(row["evaluation"]["score"]["n"] == 100 for row in rows)


def test_a_row_says_what_it_takes(table: Path) -> None:
    for row in results(table)["results"]:
        cost = row["cost"]
        assert min(cost["parameters"], cost["multiply_adds"], cost["training_seconds"]) > 0
        assert cost["peak_memory_bytes"] > 50e6


def test_real_images_beat_every_row(table: Path) -> None:
    found = results(table)
    scores = [row["evaluation"]["score"]["kid_x1000"] for row in found["results"]]
    assert found["real"]["score"]["kid_x1000"] < min(scores)


def test_the_table_names_every_row_and_its_protocol(table: Path) -> None:
    text = (table / "table.md").read_text()
    assert all(f"| `{name}` |" in text for name in ROWS)
    assert "100 generated images of 16x16 px per row" in text and "efficientnet_lite0" in text
    assert "9,010,368" not in text  # VNCA for 16x16 px has a smaller encoder
    assert "to generate)" in text


def test_every_row_has_a_picture(table: Path) -> None:
    for name in ROWS:
        with Image.open(table / "rows" / f"{name}-0" / "samples.png") as picture:
            assert min(picture.size) > 90


def test_rows_hold_out_the_same_images(table: Path) -> None:
    cards = [read_card(table / "rows" / f"{name}-0" / "run" / "model.safetensors") for name in ROWS]
    assert len({tuple(card["held_out"]) for card in cards}) == 1
    assert len(cards[0]["held_out"]) == 100


def test_a_finished_table_is_made_again_without_training_or_sampling(table: Path, faces: Path) -> None:
    before, files = (table / "results.json").read_text(), sorted(table.glob("rows/*/samples-*/*.png"))
    times = [file.stat().st_mtime_ns for file in files]
    assert main(command(faces, table, 64)) == 0
    assert (table / "results.json").read_text() == before
    assert [file.stat().st_mtime_ns for file in files] == times


def test_a_row_that_is_killed_goes_on_and_its_process_ends_with_it(faces: Path, tmp_path: Path) -> None:
    out, environment = tmp_path / "table", {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    arguments = [sys.executable, "-m", "diffnca", *command(faces, out, 100_000)]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL) as process:
        log = out / "rows" / "diff_nca-0" / "run" / "log.jsonl"
        until(lambda: log.is_file())
        process.send_signal(signal.SIGKILL)
    steps = log.read_text()
    time.sleep(2.0)
    settled = log.read_text()
    time.sleep(2.0)
    assert log.read_text() == settled  # nobody trains on
    assert len(settled) >= len(steps) > 0


def until(is_so: Any, seconds: float = 120.0) -> None:
    """Wait for something to happen."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.1)


def test_warming_up_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = table_named("faces64", 4).rows[0]
    warm_up(replace(config, training=replace(config.training, compile="off")))
    assert list(tmp_path.iterdir()) == []


def test_a_row_keeps_the_recipe_it_was_trained_with(table: Path) -> None:
    config = read_config(table / "rows" / "unet_1m-0" / "run" / "model.safetensors")
    wanted = next(row for row in table_named("faces64", 4).rows if row.name == "unet_1m")
    assert (config.model, config.data, config.loss) == (wanted.model, wanted.data, wanted.loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--images", "64", "--minutes", "1"), "--minutes, --images: give one of them"),
        (("--images", "-3"), "--images -3: must be above 0"),
        (("--n", "20"), "--n 20: must be 100 or more"),
        (("--rows", "cat"), "--rows cat: must be among diff_nca"),
        (("--n", "901"), "--n 901: must be at most 900"),
        (("--out", "no/where"), "the folder no does not exist"),
    ],
)
def test_an_error_is_one_line_that_says_what_is_allowed(
    change: tuple[str, ...], message: str, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(faces, tmp_path / "table", 64), *change]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "table").exists()
