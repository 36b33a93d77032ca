"""The command line as a user meets it: work done, errors in one line, exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.cli import models
from diffnca.cli.main import condensed, main
from diffnca.evaluation import closeness
from diffnca.formats.png import read_png_text
from diffnca.jobs import run as jobs
from diffnca.jobs.target import numbered
from diffnca.models.file import read_card, read_config

SMALL = (
    "--model.channels 36 --model.cell.hidden 16 --model.cell.num-cell-steps 2 --model.cell.embedding-width 8 "
    "--model.cell.embedding-channels 8 --data.crop 16 --training.batch 4 --training.precision float32 "
    "--sample-minutes 0"
).split()


def photos_in(folder: Path) -> Path:
    """Write three photos into a new folder."""
    folder.mkdir()
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photos_in(tmp_path / "photos")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 images."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = ["train", "--data", str(photos_in(folder / "photos")), "--images", "8"]
    assert main([*arguments, "--out", str(folder / "run"), *SMALL]) == 0
    return folder / "run"


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, which the test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


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


def test_a_finished_run_keeps_the_budget_that_it_has_spent(run_folder: Path, photos: Path) -> None:
    assert main(["train", "--data", str(photos), "--images", "4", "--out", str(run_folder), *SMALL]) == 0
    assert read_config(run_folder / "model.safetensors").training.images == 8


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert (
        main(["train", "--data", str(photos), "--minutes", "5", "--out", str(out), "--dry-run", *SMALL]) == 0
    )
    assert not out.exists() and "5 minutes" in capsys.readouterr().out


def test_a_run_killed_at_any_moment_goes_on(photos: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(photos), "--images", "80", "--out", str(tmp_path / "run"), *SMALL]
    command = [sys.executable, "-m", "diffnca", "train", *arguments, "--checkpoint-seconds", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "run" / "model.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(["train", *arguments]) == 0
    assert main(["info", str(tmp_path / "run")]) == 0


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT on Windows")
def test_ctrl_c_saves_and_says_how_to_go_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "run" / "model.safetensors"

    def stop() -> None:
        while not model.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=stop, daemon=True).start()
    arguments = ["--data", str(photos), "--images", "100000000", "--out", str(model.parent), *SMALL]
    assert main(["train", *arguments, "--checkpoint-seconds", "0"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert read_card(model)["images_seen"] > 0


def test_a_reader_that_goes_away_ends_no_training(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--data", str(photos), "--images", "8", "--out", str(out), *SMALL]
    command = [sys.executable, "-m", "diffnca", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        assert process.wait(120) == 0
    assert read_card(out / "model.safetensors")["images_seen"] == 8


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
        (["train", "--data", ".", "--model.channels", "2"], "--model.channels 2: must be >= 2"),
        (["train", "--data", ".", "--from", "nothing"], "model 'nothing'"),
        (
            ["sample", "pathology", "--height", "7", "--seamless", "y"],
            "7x96 px: circular sides must be multiples of 4 px",
        ),
        (
            ["train", "--data", ".", "--training.images", "0"],
            "diffnca: --training.images 0: must be from 1 to",
        ),
        (["train", "--data", ".", "--training.minutes", "-1"], "--training.minutes -1.0: must be from 0 to"),
        (["train", "--data", ".", "--sampling.steps", "999"], "--sampling.steps 999: must be 1 to 300"),
        (["sample", "aerial", "--region", "0,0,0,9"], "region of height 0: must be from 1 to"),
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


def test_images_that_are_left_out_are_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    assert main(["train", "--data", str(photos), "--out", str(tmp_path / "run"), "--dry-run", *SMALL]) == 0
    assert "3 images, 1 left out" in capsys.readouterr().out


def test_two_images_have_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.training.start.errors", lambda *_: {"texture": 0.05})
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (240, 240, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "data     2 images, a strip of each held out; crops of 64 px, 8 per step\n" in said
    assert "weights  of texture by its error" in said


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ("look {photos} --out {target}", "photos/0000.png"),
        ("average {run} --width 0.1 --out {target}", "run/state.safetensors"),
        ("interpolate {run} --seeds 0 1 --frames 2 --layout {target} --out {photos}", "photos/0000.png"),
    ],
)
def test_no_command_overwrites_what_it_is_given(
    command: str, target: str, photos: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 50)).save(photos / "0000.png")
    path = photos.parent / target
    before = path.read_bytes()
    words = command.format(photos=photos, run=run_folder, target=path).split()
    assert "would be overwritten" in error_of(capsys, words)
    assert path.read_bytes() == before


def test_numbers_of_an_evaluation_go_to_a_json_file(
    photos: Path, run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(run_folder), "--reference", str(photos), "--out", str(photos / "0.jpg")]
    assert "the name must end in .json" in error_of(capsys, words)


@pytest.mark.parametrize("size", ["0", "-3"])
def test_an_impossible_size_is_one_line(
    run_folder: Path, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert size in error_of(capsys, ["sample", str(run_folder), "--height", size])


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


def test_a_student_is_not_trained_on_as_if_it_knew_all_levels(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--from", "pathology-4step", "--data", str(photos), "--data.reduce", "1"]
    arguments += ["--data.crop", "16", "--images", "8", "--out", str(tmp_path / "on")]
    assert "--from pathology-4step: must know all levels" in error_of(capsys, arguments)
    again = ["--sampling.visited", "None", "--sampling.sampler", "dpmpp2m", "--sampling.steps", "20"]
    assert main([*arguments, *again, "--data.max-background", "1", "--dry-run"]) == 0


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


def test_a_training_ends_with_how_close_it_came_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wall.png")
    monkeypatch.setattr(models, "FEWEST_SCORED", 1)
    monkeypatch.setattr("diffnca.training.start.NUM_CROPS", 1)  # by which weights to begin with are chosen
    monkeypatch.setattr("diffnca.training.start.CROP_PX", 32)
    for name, number in (("NUM_CROPS", 8), ("NUM_SAMPLES", 2), ("SAMPLE_PX", 72)):
        monkeypatch.setattr(closeness, name, number)
    small = [
        "--data.crop",
        "16",
        "--training.batch",
        "1",
        "--training.compile",
        "off",
        "--sampling.steps",
        "2",
    ]
    command = ["train", "--data", str(tmp_path / "wall.png"), "--images", "1", "--out", str(tmp_path / "run")]
    assert main([*command, *small, "--sample-minutes", "0"]) == 0
    *_, score, following = capsys.readouterr().out.splitlines()
    assert score.startswith("KID x 1000 of samples from held-out crops: ")
    assert following.startswith(f"sample it: diffnca sample {tmp_path / 'run'} ")


def test_a_model_of_whole_images_is_sampled_at_its_own_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    command = ["train", "--recipe", "fourier_diff_nca", "--data", str(tmp_path), "--data.crop", "16"]
    short = ["--images", "1", "--training.batch", "1", "--sample-minutes", "0", "--from", "none"]
    assert main([*command, *short, "--training.compile", "off", "--out", str(tmp_path / "run")]) == 0
    *_, following = capsys.readouterr().out.splitlines()
    assert following == f"sample it: diffnca sample {tmp_path / 'run'} --out sample.png"
