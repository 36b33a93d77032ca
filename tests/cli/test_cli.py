"""The command line as a user meets it: work done, errors in one line, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from diffnca.cli.main import condensed, main
from diffnca.formats.png import read_png_text
from diffnca.jobs import run as jobs
from diffnca.jobs.target import numbered
from diffnca.models.file import load, read_card, read_config
from diffnca.training.run import LOCK_FILE, SHEET_STEPS

SMALL = (
    "--model.channels 36 --model.cell.hidden 16 --model.cell.num-cell-steps 2 --model.cell.embedding-width 8 "
    "--model.cell.embedding-channels 8 --data.crop 16 --training.batch 4 --training.precision float32 "
    "--sample-minutes 0"
).split()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return folder


@pytest.fixture
def run_folder(photos: Path, tmp_path: Path) -> Path:
    assert (
        main(["train", "--data", str(photos), "--images", "8", "--out", str(tmp_path / "run"), *SMALL]) == 0
    )
    return tmp_path / "run"


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Run a command that must fail; return its one line."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_trained_model_makes_an_image_of_any_size(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "image.png"
    command = ["sample", str(run_folder), "--height", "7", "--width", "23", "--steps", "2", "--out", str(out)]
    assert main(command) == 0
    with Image.open(out) as image:
        assert image.size == (23, 7)


def test_the_same_seed_gives_the_same_image_whatever_the_batch(run_folder: Path, tmp_path: Path) -> None:
    common = ["sample", str(run_folder), "--height", "9", "--width", "9", "--steps", "2", "--seed", "5"]
    assert main([*common, "--count", "3", "--batch", "3", "--out", str(tmp_path / "a.png")]) == 0
    assert main([*common, "--count", "3", "--batch", "1", "--out", str(tmp_path / "b.png")]) == 0
    one, other = ((tmp_path / f"{name}-002.png").read_bytes() for name in "ab")
    assert one == other


def test_the_file_tells_how_it_was_made(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "image.png"
    assert (
        main(
            ["sample", str(run_folder), "--seed", "9", "--sampler", "ddim", "--steps", "2", "--out", str(out)]
        )
        == 0
    )
    with Image.open(out) as image:
        text = image.text
    assert (text["diffnca:seed"], text["diffnca:sampler"], text["diffnca:steps"]) == ("9", "ddim", "2")


def test_a_finished_run_says_so(run_folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", str(photos), "--images", "8", "--out", str(run_folder), *SMALL]) == 0
    assert "is finished already (8 images" in capsys.readouterr().out


def test_a_finished_run_ends_with_a_sheet_of_samples(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--data", str(photos), "--images", "8", "--out", str(out), *SMALL]
    assert main([*arguments, "--sample-minutes", "10"]) == 0
    with Image.open(out / "samples" / "000000008.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 2, 3 * 16 + 2 * 2)


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        main(["train", "--data", str(photos), "--minutes", "5", "--out", str(out), "--dry-run", *SMALL]) == 0
    )
    assert not out.exists() and "5 minutes" in capsys.readouterr().out


def test_a_run_killed_at_any_moment_goes_on(photos: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(photos), "--images", "400", "--out", str(tmp_path / "run"), *SMALL]
    command = [sys.executable, "-m", "diffnca", "train", *arguments, "--checkpoint-seconds", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "model.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["train", *arguments]) == 0
    assert main(["info", str(tmp_path / "run")]) == 0


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT on Windows")
def test_ctrl_c_saves_and_says_how_to_go_on(photos: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(photos), "--images", "100000000", "--out", str(tmp_path / "run"), *SMALL]
    command = [sys.executable, "-m", "diffnca", "train", *arguments, "--checkpoint-seconds", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "model.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in errors


def test_info_of_a_recipe_counts_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "diff_nca_arxiv_v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 208_792


def test_info_without_a_name_lists_recipes_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "fourier_diff_nca" in facts["recipes"] and "torch" in facts["versions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "nothing"], "model 'nothing': no such file or folder"),
        (["sample", "aerial", "--out", "missing/x.png"], "the folder missing does not exist"),
        (["sample", "aerial", "--out", "x.gif"], "must end in .png"),
        (["sample", "aerial", "--count", "0"], "--count 0: must be >= 1"),
        (["sample", "aerial", "--device", "tpu9"], "--device tpu9: not available here"),
        (["sample", "nothing", "--heigth", "3"], "Unrecognized options: --heigth"),
        (["sample"], "a bundled model, a model file"),
        (["paint"], "paint"),
        (["train"], "--data"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--data", ".", "--recipe", "unet"], "recipe 'unet': must be one of"),
        (["train", "--data", ".", "--minutes", "0"], "--minutes 0.0: must be above 0"),
        (["train", "--data", ".", "--minutes", "nan"], "--minutes nan: must be above 0"),
        (["train", "--data", ".", "--out", "a/b/c"], "does not exist"),
        (["train", "--data", ".", "--model.chanels", "3"], "--model.chan"),
        (["train", "--data", ".", "--model.channels", "2"], "channels=2: must be >= 2"),
        (["train", "--data", ".", "--from", "nothing"], "model 'nothing'"),
        (
            ["sample", "pathology", "--height", "7", "--seamless", "y"],
            "--height 7 on a circular axis: must be",
        ),
        (
            ["train", "--data", ".", "--training.images", "0"],
            "diffnca: --training.images 0: must be from 1 to",
        ),
        (["train", "--data", ".", "--training.minutes", "-1"], "--training.minutes -1.0: must be from 0 to"),
        (["train", "--data", ".", "--sampling.steps", "999"], "--sampling.steps 999: must be 1 to 300"),
        (["sample", "aerial", "--device", "meta"], "--device meta: not available here"),
        (["convert", "missing.pth", "out.safetensors"], "missing.pth"),
        (["convert", "missing.pth", "out.bin"], "must end in .safetensors"),
        (["info", "nothing"], "model 'nothing'"),
    ],
)
def test_an_error_is_one_line_that_names_it(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, arguments)


def test_a_model_is_fine_tuned_as_what_it_is(
    run_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["train", "--data", str(photos), "--from", str(run_folder), "--out", str(tmp_path / "tuned")]
    assert "has another `prediction`" in error_of(capsys, [*common, "--images", "8", "--prediction", "noise"])
    assert main([*common, "--images", "8", "--sample-minutes", "0"]) == 0


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["train", "--data", str(photos), "--out", str(out), "--trackers", "abacus", *SMALL]) == 2
    assert "trackers=abacus: not installed" in capsys.readouterr().err
    assert not out.exists()


def test_images_that_are_left_out_are_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    assert main(["train", "--data", str(photos), "--out", str(tmp_path / "run"), "--dry-run", *SMALL]) == 0
    assert "3 images, 1 left out" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["0", "-3"])
def test_an_impossible_size_is_one_line(
    run_folder: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert size in error_of(capsys, ["sample", str(run_folder), "--height", size])


def test_a_folder_with_other_files_is_no_run(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(photos), "--images", "8", "--out", str(photos)]
    assert "holds other files" in error_of(capsys, arguments)


def test_a_model_without_its_training_is_not_overwritten(
    run_folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "state.safetensors").unlink()
    arguments = ["train", "--data", str(photos), "--images", "8", "--out", str(run_folder), *SMALL]
    assert "holds other files (model.safetensors)" in error_of(capsys, arguments)


def test_a_finished_run_that_was_killed_before_its_model_gets_it(run_folder: Path, photos: Path) -> None:
    model = run_folder / "model.safetensors"
    weights, card = load(model).state_dict(), read_card(model)
    model.unlink()
    assert main(["train", "--data", str(photos), "--images", "8", "--out", str(run_folder), *SMALL]) == 0
    assert read_card(model) == card
    torch.testing.assert_close(load(model).state_dict(), weights, rtol=0, atol=0)


def test_a_finished_run_can_be_sampled_otherwise(run_folder: Path, photos: Path) -> None:
    arguments = ["train", "--data", str(photos), "--images", "8", "--out", str(run_folder), *SMALL]
    assert main([*arguments, "--sampling.steps", "7"]) == 0
    assert read_config(run_folder / "model.safetensors").sampling.steps == 7


def test_two_commands_do_not_train_in_one_folder(
    run_folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(run_folder / LOCK_FILE):
        arguments = ["train", "--data", str(photos), "--images", "16", "--out", str(run_folder), *SMALL]
        assert main(arguments) == 2
    assert "another command trains here" in capsys.readouterr().err


def test_a_dry_run_refuses_what_the_run_would(
    run_folder: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(photos), "--out", str(run_folder), *SMALL, "--dry-run"]
    assert "began with --training.batch 4, not 2" in error_of(capsys, [*arguments, "--training.batch", "2"])


def test_a_sheet_of_a_student_of_many_steps_shows_its_own_walk(
    run_folder: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    distill = ["distill", str(run_folder), "--steps", str(SHEET_STEPS + 1), "--data", str(photos)]
    assert main([*distill, "--images", "8", "--out", str(out)]) == 0
    assert (out / "samples" / "000000008.png").is_file()


def test_numbers_are_added_to_the_name_only_where_there_are_several() -> None:
    assert (numbered(Path("a.png"), 0, 1), numbered(Path("a.png"), 7, 9)) == (
        Path("a.png"),
        Path("a-007.png"),
    )


def test_a_usage_box_becomes_one_line() -> None:
    box = "╭─ Unrecognized options ─╮\n│ Unrecognized options: --a │\n│ ───── │\n│ For full helptext │\n╰──╯"
    assert condensed(box) == "Unrecognized options: --a; see `diffnca --help`"


def test_a_usage_box_in_ascii_becomes_one_line() -> None:
    box = " Unrecognized options \n ------- \n  Unrecognized options: --a \n  ------- \n  For full helptext"
    assert condensed(box) == "Unrecognized options: --a; see `diffnca --help`"


def test_a_student_samples_in_its_few_steps(run_folder: Path, photos: Path, tmp_path: Path) -> None:
    out, image = tmp_path / "student", tmp_path / "image.png"
    distill = ["distill", str(run_folder), "--steps", "3", "--data", str(photos), "--out", str(out)]
    assert main([*distill, "--images", "8", "--sample-minutes", "0"]) == 0
    assert main(["sample", str(out), "--height", "9", "--width", "9", "--out", str(image)]) == 0
    with Image.open(image) as made:
        assert (made.text["diffnca:sampler"], made.text["diffnca:steps"]) == ("ddim", "3")


def test_a_student_of_another_teacher_is_another_run(
    run_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "--data",
        str(photos),
        "--out",
        str(tmp_path / "student"),
        "--images",
        "8",
        "--sample-minutes",
        "0",
    ]
    assert main(["distill", str(run_folder), "--steps", "3", *common]) == 0
    assert main(["train", "--data", str(photos), "--images", "12", "--out", str(run_folder), *SMALL]) == 0
    line = error_of(capsys, ["distill", str(run_folder), "--steps", "3", *common])
    assert "began with other images, weights or another teacher" in line


def test_a_run_that_began_with_other_weights_is_not_gone_on_with(
    run_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--from", str(run_folder), "--data", str(photos), "--images", "16"]
    assert "began with other images, weights or another teacher" in error_of(
        capsys, [*arguments, "--out", str(run_folder)]
    )


def test_a_student_is_not_trained_on_as_if_it_knew_all_levels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--from", "pathology-4step", "--data", str(photos), "--data.reduce", "1"]
    arguments += ["--data.crop", "16", "--images", "8", "--out", str(tmp_path / "on")]
    assert "--from pathology-4step: must know all levels" in error_of(capsys, arguments)
    again = ["--sampling.visited", "None", "--sampling.sampler", "dpmpp2m", "--sampling.steps", "20"]
    assert main([*arguments, *again, "--data.max-background", "1", "--dry-run"]) == 0


def test_the_pixel_size_of_training_reaches_the_card(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--data", str(photos), "--images", "8", "--out", str(out), *SMALL]
    assert main([*arguments, "--data.microns-per-px", "0.5"]) == 0
    assert read_card(out / "model.safetensors")["microns_per_px"] == 0.5


def test_images_tell_the_weights_they_were_made_with(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = run_folder / "model.safetensors"
    weights = sha256(file.read_bytes()).hexdigest()[:16]
    made = jobs.write_png

    def trained_on(*arguments: Any) -> None:
        made(*arguments)
        file.write_bytes(file.read_bytes() + b" ")  # as a training that goes on replaces it

    monkeypatch.setattr(jobs, "write_png", trained_on)
    command = ["sample", str(run_folder), "--steps", "2", "--count", "2", "--out", str(tmp_path / "a.png")]
    assert main(command) == 0
    texts = [read_png_text(tmp_path / f"a-{index:03d}.png") for index in range(2)]
    assert [text["diffnca:weights"] for text in texts] == [weights, weights]
