"""`diffnca reproduce` trains and measures all rows, goes on after a stop, and mixes no protocols."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.cli.main import main
from diffnca.comparison import child, reproduction
from diffnca.comparison.rows import Row
from diffnca.comparison.tables import Terms
from diffnca.config.json import to_json
from diffnca.errors import Interrupted
from diffnca.models.build import build_model
from diffnca.models.file import read_card, read_config

from . import small
from .small import make_quick, table_named

pytestmark = pytest.mark.skipif(find_spec("diffusers") is None, reason="needs the extra baselines")

ROWS = ["fourier_diff_nca", "unet_1m", "vnca"]
INTERRUPTED = 130  # of the command line
LAUNCH = child.launch


@pytest.fixture(autouse=True, scope="module")
def quick() -> Any:
    """Let rows be small, trained in this process without compiling, and measured in quick features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHDYNAMO_DISABLE", "1")
        make_quick(patch.setattr)
        patch.setattr(child, "launch", lambda job, watch: child.work(job))
        patch.setattr("diffnca.comparison.rows.ERROR_IMAGES", 4)
        yield


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of 16 crops each, as many as a table needs."""
    folder = tmp_path_factory.mktemp("faces")
    coarse = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    for index, pixels in enumerate(coarse):
        enlarged = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC)
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
    assert main(command(faces, out, 64)) == 0
    return out


def results(table: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((table / "results.json").read_text())
    return found


def test_every_row_is_trained_on_as_many_images_and_measured(table: Path) -> None:
    rows = results(table)["results"]
    assert [row["name"] for row in rows] == ROWS
    assert all(64 <= row["cost"]["training_images"] < 64 + 32 for row in rows)
    assert all(row["evaluation"]["judgements"][0]["score"]["n"] == 100 for row in rows)


def test_a_row_says_what_it_takes(table: Path) -> None:
    for row in results(table)["results"]:
        cost = row["cost"]
        assert min(cost["parameters"], cost["multiply_adds"], cost["training_seconds"]) > 0
        assert cost["peak_memory_bytes"] > 50e6


def test_denoisers_have_an_error_on_held_out_images_and_vnca_has_none(table: Path) -> None:
    errors = {row["name"]: row["held_out_error"] for row in results(table)["results"]}
    assert errors["vnca"] is None
    assert 0.2 < errors["unet_1m"] < 2.0  # a velocity has a power of about 1
    assert f" | {errors['unet_1m']:.4f} | " in (table / "table.md").read_text()


def test_real_images_beat_every_row(table: Path) -> None:
    found = results(table)
    scores = [row["evaluation"]["judgements"][0]["score"]["kid_x1000"] for row in found["results"]]
    assert found["real"]["judgements"][0]["score"]["kid_x1000"] < min(scores)


def test_a_further_network_has_a_table_of_all_rows(table: Path) -> None:
    _, text = (table / "table.md").read_text().split("These images in the features colours ")
    found = results(table)
    rows = [(f"`{row['name']}`", row["evaluation"]) for row in found["results"]]
    for name, judged in [*rows, ("real", found["real"])]:
        score = judged["judgements"][1]["score"]
        assert f"| {name} | {score['kid_x1000']:.2f} ± {score['error']:.2f} | {score['fid']:.2f} | " in text


def test_the_table_names_every_row_and_its_protocol(table: Path) -> None:
    text = (table / "table.md").read_text()
    assert all(f"| `{name}` |" in text for name in ROWS)
    assert "100 generated images of 16x16 px per row" in text and "features brightness" in text
    vnca = next(row for row in table_named("faces64", 4).rows if row.name == "vnca")
    assert vnca.model.size == 16
    learnt = sum(p.numel() for p in build_model(vnca).parameters())
    assert f"| {learnt:,} (" in text  # VNCA for 16x16 px has a smaller encoder
    assert "to generate)" in text


def test_every_row_has_a_picture(table: Path) -> None:
    for name in ROWS:
        with Image.open(table / "rows" / f"{name}-0" / "samples.png") as picture:
            assert min(picture.size) > 90


def test_every_row_is_compared_with_the_subject(table: Path) -> None:
    found, text = results(table), (table / "table.md").read_text()
    assert list(found["differences"]) == ROWS[1:]
    assert "KID x 1000 of `fourier_diff_nca` minus that of another row" in text
    assert "| `unet_1m` | 1 and 1 |" in text


def test_the_table_says_what_a_single_training_leaves_open(table: Path) -> None:
    text = (table / "table.md").read_text()
    assert "over images of one training: another training of the same row may differ by more" in text
    assert "that one model beats another, not that one recipe does" in text


def test_rows_hold_out_the_same_images(table: Path) -> None:
    cards = [read_card(table / "rows" / f"{name}-0" / "run" / "model.safetensors") for name in ROWS]
    assert len({tuple(card["held_out"]) for card in cards}) == 1
    assert len(cards[0]["held_out"]) == 7


def test_a_finished_table_is_made_again_without_training_or_sampling(table: Path, faces: Path) -> None:
    before, files = (table / "results.json").read_text(), sorted(table.glob("rows/*/samples-*/*.png"))
    times = [file.stat().st_mtime_ns for file in files]
    assert main(command(faces, table, 64)) == 0
    assert (table / "results.json").read_text() == before
    assert [file.stat().st_mtime_ns for file in files] == times


def test_steps_that_a_row_has_not_are_refused_before_it_is_trained(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in ("0", "500"):
        assert main(command(faces, tmp_path / "table", 64, "--steps", steps)) == 2
        assert f"--steps {steps}: must be from 1 to 300" in capsys.readouterr().err
    assert not (tmp_path / "table").exists()


def test_other_folders_beside_the_rows_are_left_alone(table: Path) -> None:
    (table / "rows" / f"{ROWS[0]}-0.bak").mkdir()
    kept, left_out = reproduction.others(table_named("faces64", 4), [], Terms(table, images=64, reduce=4))
    assert sorted(row.config.name for row in kept) == ROWS
    assert left_out == {}


def started(arguments: list[str]) -> subprocess.Popen[str]:
    """Start a command in a process group of its own, as a terminal does."""
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        return subprocess.Popen(
            [sys.executable, small.__file__, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_table_that_is_killed_takes_its_row_with_it_and_the_same_command_finishes_both(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "launch", LAUNCH)
    out = tmp_path / "table"
    arguments = [*command(faces, out, 400), "--rows", "diff_nca"]
    log = out / "rows" / "diff_nca-0" / "run" / "log.jsonl"
    with started([*arguments, "--images", "100000"]) as process:
        until(log.is_file)
        process.send_signal(signal.SIGKILL)
    steps = log.read_text()
    time.sleep(1.0)
    settled = log.read_text()
    time.sleep(1.0)
    assert log.read_text() == settled  # nobody trains on
    assert len(settled) >= len(steps) > 0
    assert main(arguments) == 0
    (row,) = results(out)["results"]
    assert 400 <= row["cost"]["training_images"] < 408


def test_ctrl_c_while_a_row_starts_ends_the_table(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "table"
    with started(command(faces, out, 100_000)) as process:
        until((out / "rows" / "fourier_diff_nca-0" / "job.json").is_file)
        time.sleep(0.3)  # its process is busy with imports
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60.0) == INTERRUPTED
    assert [path.name for path in (out / "rows").iterdir()] == ["fourier_diff_nca-0"]
    assert not (out / "table.md").exists()


def until(is_so: Any, seconds: float = 120.0) -> None:
    """Wait for something to happen."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.1)


@pytest.fixture
def job(faces: Path, tmp_path: Path) -> Path:
    """A job that cannot be done: its folder is a file."""
    config = to_json(table_named("faces64", 4).rows[0])
    (tmp_path / "run").touch()
    facts = {"config": config, "data": [str(faces)], "out": str(tmp_path / "run")}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**facts, "minutes": None, "images": 8}))
    return path


def test_why_a_process_fails_is_said_by_who_started_it(job: Path) -> None:
    with pytest.raises(ValueError, match="run: is a file; give a folder$"):
        LAUNCH(job, lambda: None)


def test_a_process_that_was_stopped_stops_who_started_it(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(path: Path) -> None:
        raise Interrupted

    monkeypatch.setattr(child, "work", stopped)
    monkeypatch.setattr(child, "_end_with_parent", lambda: None)
    with pytest.raises(SystemExit):
        child.main(job)
    assert json.loads(job.with_name("outcome.json").read_text()) == {"interrupted": True}


def test_a_table_that_was_stopped_says_how_it_goes_on(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(job: Path, watch: object) -> None:
        raise Interrupted

    monkeypatch.setattr(child, "launch", stopped)
    assert main(command(faces, tmp_path / "table", 64)) == INTERRUPTED
    assert capsys.readouterr().err.endswith("diffnca: stopped; the same command goes on\n")


def test_a_row_trained_with_two_seeds_is_one_line_with_the_error_over_trainings(
    faces: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table"
    assert main([*command(faces, out, 8), "--rows", "diff_nca", "--seeds", "2"]) == 0
    found, text = results(out)["results"], (out / "table.md").read_text()
    kids = [row["evaluation"]["judgements"][0]["score"]["kid_x1000"] for row in found]
    assert [row["seed"] for row in found] == [0, 1]
    assert f"| `diff_nca` | {np.mean(kids):.2f} ± {abs(kids[0] - kids[1]) / 2:.2f} |" in text
    assert "the standard error over trainings" in text


def test_an_ablation_is_trained_and_compared_with_the_default(faces: Path, tmp_path: Path) -> None:
    arguments = [*command(faces, tmp_path / "table", 16), "--rows", "default", "quadrant"]
    assert main(["reproduce", "ablation", *arguments[2:]]) == 0
    assert list(results(tmp_path / "table")["differences"]) == ["quadrant"]


def test_a_row_that_fails_is_in_the_table_and_in_the_exit_code(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = reproduction.train

    def trained(row: Row, *more: Any) -> None:
        if row.config.name == "unet_1m":
            raise ValueError("diverged")
        train(row, *more)

    monkeypatch.setattr(reproduction, "train", trained)
    out = tmp_path / "table"
    assert main([*command(faces, out, 8), "--rows", "diff_nca", "unet_1m"]) == 2
    assert list(results(out)["failed"]) == ["unet_1m, training 0"]
    assert "- failed: unet_1m, training 0: diverged" in (out / "table.md").read_text()


def test_a_row_that_cannot_be_measured_leaves_the_others(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = reproduction.measure

    def measured(row: Row, *more: Any) -> Any:
        if row.config.name == "diff_nca":
            raise RuntimeError("no\nmemory")
        return measure(row, *more)

    monkeypatch.setattr(reproduction, "measure", measured)
    out = tmp_path / "table"
    assert main([*command(faces, out, 8), "--rows", "diff_nca", "unet_1m"]) == 2
    found = results(out)
    assert found["failed"] == {"diff_nca, training 0": "no memory"}
    assert [row["name"] for row in found["results"]] == ["unet_1m"]


def test_rows_that_are_finished_stay_in_the_table(table: Path, faces: Path, tmp_path: Path) -> None:
    longer = Path(shutil.copytree(table, tmp_path / "table"))
    assert main([*command(faces, longer, 64), "--rows", "diff_nca"]) == 0
    assert {row["name"] for row in results(longer)["results"]} == {"diff_nca", *ROWS}


def test_a_row_of_a_smaller_budget_is_left_out_and_named(table: Path, faces: Path, tmp_path: Path) -> None:
    longer = Path(shutil.copytree(table, tmp_path / "table"))
    assert main([*command(faces, longer, 128), "--rows", "unet_1m"]) == 0
    found = results(longer)
    assert [row["name"] for row in found["results"]] == ["unet_1m"]
    others = [f"{name}, training 0" for name in ROWS if name != "unet_1m"]
    assert found["left_out"] == dict.fromkeys(others, "its training has not come to 128 images")


def test_a_budget_smaller_than_what_was_seen_is_refused_and_the_table_kept(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table"
    assert main([*command(faces, out, 40), "--rows", "diff_nca"]) == 0
    before = (out / "table.md").read_text()
    assert main([*command(faces, out, 16), "--rows", "diff_nca"]) == 2
    assert "has seen 40 images in" in (error := capsys.readouterr().err)
    assert "not the 16 images of this table; give the budget it was trained with" in error
    assert (out / "table.md").read_text() == before


def test_a_row_keeps_the_recipe_it_was_trained_with(table: Path) -> None:
    config = read_config(table / "rows" / "unet_1m-0" / "run" / "model.safetensors")
    wanted = next(row for row in table_named("faces64", 4).rows if row.name == "unet_1m")
    assert (config.model, config.data, config.loss) == (wanted.model, wanted.data, wanted.loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--images", "64", "--minutes", "1"), "--minutes, --images: give one of them"),
        (("--images", "-3"), "--images=-3: must be above 0"),
        (("--weights", "w.pth"), "--weights w.pth: 0 of --features efficientnet_lite0 read a file"),
        (("--n", "24"), "--n=24: must be from 100 to 100,000"),
        (("--seeds", "1000000000"), "--seeds=1000000000: must be from 1 to 100"),
        (("--rows", "cat"), "--rows cat: must be among diff_nca"),
        (("--n", "1009"), "--n 1009: must be at most 1008"),
        (("--out", "no/where"), "the folder no does not exist"),
        (("--out", str(Path(__file__))), "test_reproduction.py: is a file; give a folder"),
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
