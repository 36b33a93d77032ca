"""`diffnca evaluate` as a user meets it: a model or a folder, two protocols, one line for each error."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffnca.canvas.pixels import to_uint8
from diffnca.cli.main import main
from diffnca.config.model import Config, DataConfig, SamplingConfig, TrainingConfig, with_fields
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.data.held_out import without_strips
from diffnca.data.images import open_images
from diffnca.evaluation import judges
from diffnca.evaluation.metrics.features import ModuleFeatures, efficientnet_lite0
from diffnca.evaluation.options import Options
from diffnca.evaluation.protocol import measure, real_images
from diffnca.evaluation.samples import Samples
from diffnca.formats.png import read_png_text
from diffnca.models.build import build_model
from diffnca.models.file import load, read_card, write_model
from diffnca.sampling.generate import generate

pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra eval")

SIDE = 16


def config() -> Config:
    cell = CellConfig(hidden=8, num_cell_steps=2, embedding_width=8, embedding_channels=8)
    model = NCAConfig(channels=8, cell=cell)
    training = TrainingConfig(precision="float32")
    sampling = SamplingConfig("ddim", 2)
    return replace(Config(model=model, training=training, data=DataConfig(crop=SIDE)), sampling=sampling)


def write_images(folder: Path, n: int, seed: int, side: int = SIDE, width: int | None = None) -> Path:
    """Write smooth random pictures of one size."""
    folder.mkdir()
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    for index, pixels in enumerate(coarse):
        enlarged = Image.fromarray(pixels).resize((width or side, side), Image.Resampling.BICUBIC)
        enlarged.save(folder / f"{seed}-{index:03d}.png")
    return folder


class Quarters(torch.nn.Module):
    """The colours of the quarters of an image: features that cost nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images be looked at by a network that costs nothing."""
    quarters = ModuleFeatures("quarters", Quarters())
    monkeypatch.setattr(judges, "efficientnet_lite0", lambda device: quarters)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("real") / "images", 130, seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, real: Path) -> Path:
    """A model that has learnt nothing, whose card tells what its training held out."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    held_out = sorted(file.name for file in real.iterdir())[:105]
    write_model(path, build_model(config()).network.state_dict(), config(), {"held_out": held_out})
    return path


def evaluated(capsys: pytest.CaptureFixture[str], cache: Path, *arguments: object) -> dict[str, Any]:
    """Return the numbers of an evaluation."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments), "--json", "--cache", str(cache)]) == 0
    numbers: dict[str, Any] = json.loads(capsys.readouterr().out)
    return numbers


def score_of(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return the score by the first network."""
    score: dict[str, Any] = numbers["judgements"][0]["score"]
    return score


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run an evaluation that must fail; return its one line."""
    capsys.readouterr()
    assert main(["evaluate", *map(str, arguments)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_network_that_a_model_was_trained_with_does_not_judge_it(
    tmp_path: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.safetensors"
    card = {"trained_with": ["efficientnet_lite0"]}
    write_model(path, build_model(config()).network.state_dict(), config(), card)
    said = error_of(capsys, path, "--reference", real, "--n", 10)
    assert "--features efficientnet_lite0: must not judge" in said


def test_a_folder_of_other_real_images_is_near_and_one_of_noise_is_far(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "efficientnet_lite0", efficientnet_lite0)
    real, other = (write_images(tmp_path / f"{seed}", 16, seed=seed) for seed in (0, 1))
    (tmp_path / "noise").mkdir()
    for index in range(16):
        pixels = np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{index:02d}.png")
    near = evaluated(capsys, cache, other, "--reference", real, "--n", 16)
    far = evaluated(capsys, cache, tmp_path / "noise", "--reference", real, "--n", 16)
    assert score_of(near)["features"] == "efficientnet_lite0"
    assert abs(score_of(near)["kid_x1000"]) < 3 * score_of(near)["error"]
    assert score_of(far)["kid_x1000"] > 10 * score_of(far)["error"]
    assert far["judgements"][0]["precision"] < near["judgements"][0]["precision"]
    assert far["spectrum_error_db"] > near["spectrum_error_db"]


def test_a_model_is_compared_with_what_its_training_held_out(
    model: Path, real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.png"
    arguments = (model, "--reference", real, "--n", 12, "--held-out", "--pairs", pairs)
    numbers = evaluated(capsys, cache, *arguments)
    assert (score_of(numbers)["n"], score_of(numbers)["n_reference"]) == (12, 105)
    assert numbers["protocol"]["split"] == "held out"
    assert numbers["memorisation"]["num_held_out"] == 105
    with Image.open(pairs) as picture:
        assert min(picture.size) >= 2 * SIDE


def test_all_that_a_number_depends_on_is_stored_with_it(
    model: Path, real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "numbers.json"
    arguments = (model, "--reference", real, "--n", 10, "--seed", 7, "--out", out)
    numbers = evaluated(capsys, cache, *arguments)
    assert json.loads(out.read_text()) == numbers
    assert {key: numbers["made"][key] for key in ("seed", "sampler", "steps")} == {
        "seed": "7",
        "sampler": "ddim",
        "steps": "2",
    }
    assert len(numbers["made"]["weights"]) == len(numbers["protocol"]["reference"]) == 64
    assert score_of(numbers)["features"] == "quarters"


def test_the_published_protocol_stores_as_jpeg_and_takes_the_first_images_of_training(
    model: Path, real: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = evaluated(capsys, cache, model, "--reference", real, "--n", 10, "--protocol", "published")
    assert numbers["protocol"]["name"] == "published"
    assert numbers["protocol"]["stored"] == "JPEG of quality 75"
    assert score_of(numbers)["n_reference"] == 10


def test_crops_of_larger_images_are_as_many_as_asked_for(
    model: Path, real: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--crop", 8, "--n", 21, "--height", 16, "--width", 24)
    numbers = evaluated(capsys, cache, model, "--reference", real, *arguments)
    assert (score_of(numbers)["n"], score_of(numbers)["n_reference"]) == (21, 21)
    assert (numbers["protocol"]["height"], numbers["protocol"]["width"]) == (8, 8)


def test_a_stopped_evaluation_goes_on_with_the_images_that_are_there(
    model: Path, real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = tmp_path / "samples", (model, "--reference", real, "--n", 10)
    whole = evaluated(capsys, cache, *arguments, "--samples", folder)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "000004.png").unlink()
    assert evaluated(capsys, cache, *arguments, "--samples", folder) == whole
    again = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [name for name in times if again[name] != times[name]] == ["000004.png"]
    assert read_png_text(folder / "000004.png")["diffnca:seed"] == "4"


def test_a_sample_cut_short_is_found_damaged(
    model: Path, real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = tmp_path / "samples", (model, "--reference", real, "--n", 6)
    evaluated(capsys, cache, *arguments, "--samples", folder)
    sample = folder / "000002.png"
    content = sample.read_bytes()
    sample.write_bytes(content[: len(content) * 2 // 3])
    assert "000002.png: is there, and damaged" in error_of(capsys, *arguments, "--samples", folder)


def test_damaged_files_are_counted_and_named(
    real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_images(tmp_path / "made", 10, seed=1)
    (made / "torn.png").write_bytes((made / "1-000.png").read_bytes()[:60])
    arguments = ["evaluate", str(made), "--reference", str(real), "--n", "8", "--cache", str(cache)]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "left out           1 files of generated\n" in out
    assert "diffnca: left out torn.png (generated): " in err
    assert evaluated(capsys, cache, *arguments[1:6])["left_out"] == {"generated": 1}


def test_crops_of_one_photo_have_a_score_without_an_error(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, made = (write_images(tmp_path / f"{k}", 1 + 7 * k, seed=k, side=32) for k in (0, 1))
    arguments = ["evaluate", str(made), "--reference", str(photo), "--n", "8", "--crop", "8"]
    assert main([*arguments, "--cache", str(cache)]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^KID x 1000 +[-\d.]+$", text, re.M)
    assert "crops of one picture are alike, so KID is too high" in text
    assert score_of(evaluated(capsys, cache, *arguments[1:]))["error"] is None


def test_a_terminal_of_ascii_and_a_closed_one_do_not_cost_the_numbers(
    real: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = write_images(tmp_path / "made", 8, seed=1), tmp_path / "numbers.json"
    arguments = ["evaluate", str(made), "--reference", str(real), "--n", "8", "--cache", str(cache)]
    shown = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    assert main([*arguments, "--out", str(out)]) == 0
    shown.seek(0)
    assert "KID x 1000" in shown.read() and score_of(json.loads(out.read_text()))["n"] == 8
    out.unlink()
    shown.close()
    assert main([*arguments, "--out", str(out)]) == 0
    assert out.is_file()


def test_progress_is_reported_while_images_are_made_and_looked_at(
    model: Path, real: Path, tmp_path: Path
) -> None:
    reports: list[tuple[str, float, float]] = []
    options = Options(real, n=6, held_out=True, cache=tmp_path)
    measure(str(model), options, lambda *each: reports.append(each))
    last = {title: (done, total) for title, done, total in reports}
    last = {title: share for title, share in last.items() if "generated" in title or "features" in title}
    assert last == {
        "generated images": (6, 6),
        "features of generated images by quarters": (6, 6),
        "features of real images by quarters": (105, 105),
        "features of training images by quarters": (25, 25),
    }


def test_samples_go_to_no_folder_of_other_pictures(
    model: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "holiday.png").write_bytes(b"")
    error = error_of(capsys, model, "--reference", real, "--n", 6, "--samples", folder)
    assert "holds holiday.png, no sample" in error


def test_samples_of_other_settings_are_not_taken_for_these(
    model: Path, real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = tmp_path / "samples", (model, "--reference", real, "--n", 6)
    evaluated(capsys, cache, *arguments, "--samples", folder)
    error = error_of(capsys, *arguments, "--samples", folder, "--steps", 3)
    assert "was made with steps 2, not 3" in error


def test_several_networks_judge_at_once(
    model: Path, real: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("efficientnet_lite0", "face_landmarks")
    numbers = evaluated(capsys, cache, model, "--reference", real, "--n", 10, "--features", *names)
    found = [each["score"]["features"] for each in numbers["judgements"]]
    assert found == ["quarters", "face_landmarks"]


def test_a_table_for_people_names_the_protocol(
    model: Path, real: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(model), "--reference", str(real), "--n", "10", "--cache", str(cache)]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert re.search(r"^features +quarters$", text, re.M) and re.search(r"^protocol +clean$", text, re.M)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("FOLDER --reference REAL --n 9", "--n 9: must be at most 8, as many images as FOLDER has"),
        (
            "MODEL --reference REAL --n 131 --protocol published",
            "must be at most 130, as many images as REAL has",
        ),
        ("MODEL --reference REAL --n 999 --crop 8", "at most 520, as many crops of 8 px as REAL has"),
        ("FOLDER --reference REAL --n 40 --crop 8", "at most 32, as many crops of 8 px as FOLDER has"),
        ("MODEL --reference REAL --n 10 --protocol published --train REAL", "--train: must stand without"),
        ("MODEL --reference REAL --n 10 --protocol published --pairs p.png", "--pairs: must stand without"),
        ("MODEL --reference REAL --n 10 --protocol published --held-out", "--held-out: must stand without"),
        ("MODEL --reference REAL --n 10 --train REAL --held-out", "--held-out: must stand without --train"),
        ("MODEL --reference REAL --n 10 --out EMPTY", "the name must end in .json"),
        ("MODEL --reference REAL --n 10 --samples OTHER", "is a file; give a folder"),
        ("MODEL --reference EMPTY --n 10", "no images found"),
        ("MODEL --reference MIXED --n 10", "the images have 2 shapes"),
        ("MODEL --reference LARGER --n 10", "bring them to one size, or take crops"),
        ("FOLDER --reference REAL --n 8 --held-out", "names 0 images, 0 of the 130 in --reference"),
        ("FOLDER --reference REAL --n 8 --steps 3", "--steps: must be left out for a folder of images"),
        ("MODEL --reference REAL --n 10 --pairs p.png", "--pairs: needs the training images"),
        ("MODEL --reference REAL --n 10 --weights w.pth", "0 of --features efficientnet_lite0 read a file"),
        (
            "MODEL --reference REAL --n 10 --features inception inception",
            "--features=inception inception: must be different networks",
        ),
        (
            "MODEL --reference REAL --n 10 --features face_landmarks --crop 8",
            "--crop 8: face_landmarks looks at whole faces",
        ),
        ("MODEL --reference REAL --n 5", "--n=5: must be from 6 to 100,000"),
        ("MODEL --reference REAL --n 1000000000", "--n=1000000000: must be from 6 to 100,000"),
        ("MODEL --reference REAL --n 10 --height 1000000000", "--height=1000000000: must be from 1 to 4096"),
        ("MODEL --reference REAL --n 10 --seed -1", "-1"),
        ("MODEL --reference REAL --n 10 --samples REAL/s", "lies in --reference REAL, so that generated"),
        ("MODEL --reference REAL --n 10 --held-out --pairs REAL/p.png", "lies in --reference REAL"),
        ("REAL --reference REAL --n 10", "REAL: shares images with --reference REAL"),
        ("MODEL --reference REAL --n 10 --crop 12 --height 8", "--crop 12: must be at most 8"),
        ("MODEL --reference REAL --n 10 --features inception --weights OTHER", "checksum"),
        ("MODEL --reference REAL --n 10 --out no/where.json", "the folder no does not exist"),
    ],
)
def test_an_error_is_one_line_that_says_what_is_allowed(
    arguments: str, message: str, model: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.pth").write_bytes(b"other weights")
    mixed = write_images(tmp_path / "mixed", 6, seed=2)
    Image.new("RGB", (SIDE, SIDE + 1)).save(mixed / "last.png")
    places = {
        "MODEL": model,
        "REAL": real,
        "FOLDER": write_images(tmp_path / "folder", 8, seed=1),
        "LARGER": write_images(tmp_path / "larger", 8, seed=3, side=20),
        "MIXED": mixed,
        "EMPTY": tmp_path / "empty",
        "OTHER": tmp_path / "other.pth",
    }

    def placed(text: str) -> str:
        return re.sub(r"\b[A-Z]{4,}\b", lambda found: str(places.get(found[0], found[0])), text)

    assert placed(message) in error_of(capsys, *placed(arguments).split())


def test_seams_are_those_of_whole_images_also_where_crops_are_compared(
    real: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiled").mkdir()
    for index in range(2):
        levels = np.random.default_rng(index).integers(0, 200, (4, 4, 3), dtype=np.uint8)
        tiles = levels.repeat(12, 0).repeat(12, 1)
        tiles[::2] += 4
        tiles[:, ::2] += 4
        Image.fromarray(tiles).save(tmp_path / "tiled" / f"{index}.png")
    arguments = (tmp_path / "tiled", "--reference", real, "--n", 8, "--crop", 8, "--seam-px", 12)
    assert evaluated(capsys, cache, *arguments)["seam_ratio"] > 5.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--reference LARGER --n 8", "the generated images are 16x16 px and the reference 20x20 px"),
        ("--reference REAL --n 8 --height 24", "the generated images are 24x16 px and the reference 16x16"),
        ("--reference FEW --n 8 --train LARGER", "gives 8 images or crops, all images"),
        ("--reference REAL --n 8 --train LARGER", "--train: its images have the shape (c, h, w) (3, 20, 20)"),
        ("--reference REAL --n 8 --seam-px 16", "seams every 16 px: must be from 2 to 15 px apart"),
        ("--reference REAL --n 8 --cache FILE", "cannot keep features"),
        ("--reference REAL --n 8 --train REAL", "130 of 130 unseen images equal a training image"),
        ("--reference REAL --n 8 --crop 2", "images of 2x2 px: must be 4 px or more a side"),
        ("--reference THREE --n 8", "--reference: gives 3 images or crops"),
        ("--reference WIDE --n 8 --width 20 --features face_landmarks", "networks for faces read squares"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_images_are_made(
    arguments: str,
    message: str,
    model: Path,
    real: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(Samples, "pictures")
    places = {
        "REAL": real,
        "LARGER": write_images(tmp_path / "larger", 8, seed=3, side=20),
        "FEW": write_images(tmp_path / "few", 8, seed=4),
        "THREE": write_images(tmp_path / "three", 3, seed=5),
        "WIDE": write_images(tmp_path / "wide", 8, seed=6, width=20),
        "FILE": real / "0-000.png",
    }
    words = [str(places.get(word, word)) for word in arguments.split()]
    assert message in error_of(capsys, model, *words)


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory, model: Path, real: Path) -> tuple[Path, Path]:
    """A model that follows maps, and a folder with a map of each real image."""
    folder = tmp_path_factory.mktemp("maps")
    for index, path in enumerate(sorted(real.iterdir())):
        numbers = np.random.default_rng(index).integers(0, 2, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(numbers).save(folder / path.name)
    changes = {"layout.classes": ("a", "b"), "model.given_channels": 2}
    own = with_fields(config(), changes)
    network = build_model(own).network.requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    write_model(path, network.state_dict(), own, read_card(model))
    return path, folder


def test_strips_that_were_held_out_for_a_rare_label_are_found(tmp_path: Path) -> None:
    folder, path = (
        write_images(tmp_path / "wide", 100, seed=0, width=5 * SIDE),
        tmp_path / "model.safetensors",
    )
    held_out = without_strips(open_images([folder]), SIDE)[1].names
    own = with_fields(config(), {"data.validation": None})
    write_model(path, build_model(own).network.state_dict(), own, {"held_out": list(held_out)})
    real = real_images(str(path), own, Options(folder, n=100, held_out=True, crop=SIDE))
    assert real.pictures.names == held_out


def test_samples_have_the_maps_of_the_held_out_images(
    following: tuple[Path, Path],
    real: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, maps = following
    told = ("--held-out", "--layouts", maps, "--obey", 2, "--samples", tmp_path / "samples")
    numbers = evaluated(capsys, cache, model, "--reference", real, "--n", 6, *told)
    assert numbers["made"]["layouts"] == f"105 pieces of {maps}" and numbers["made"]["obey"] == "2"
    held_out = [Image.open(maps / path.name) for path in sorted(real.iterdir())[:6]]
    layout = torch.from_numpy(np.stack([np.asarray(image) for image in held_out])).long()
    size = {"height": SIDE, "width": SIDE}
    expected = to_uint8(generate(load(model), **size, seed=list(range(6)), layout=layout, obey=2.0))
    made = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "samples").iterdir())]
    np.testing.assert_array_equal(np.stack(made), expected)


@pytest.mark.parametrize(
    ("of", "told", "message"),
    [
        ("real", ["--layouts", "."], "--layouts: must be left out for a folder of images; "),
        ("model", ["--layouts", "."], "layout: must be left out for a model that was trained"),
        ("model", ["--label", "oak"], "--label: must be left out for a model that was trained"),
        ("model", ["--obey", "2"], "--obey 2.0: must be 1 without layout and label; give one"),
    ],
)
def test_what_says_nothing_to_a_model_is_refused(
    of: str,
    told: list[str],
    message: str,
    request: pytest.FixtureRequest,
    real: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in error_of(capsys, request.getfixturevalue(of), "--reference", real, *told)
