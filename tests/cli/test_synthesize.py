"""The command `synthesize`: what it says, a kill at any time, and what it refuses before any work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.cli.main import main
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_model
from diffnca.models.file import write_model

CLASSES = {"layout.classes": ("stroma=#ff0000", "gland=#0000ff")}
SMALL = {"model.channels": 40, "model.coarse": None, "model.cell.num_cell_steps": 1, "model.cell.hidden": 16}
KINDS = {
    "plain": {},
    "follower": CLASSES | {"model.given_channels": 2},
    "maker": CLASSES | {"layout.made": True, "model.made_channels": 2},
    "filler": CLASSES | {"layout.coarse": 4, "model.given_channels": 6},
}
TINY = ["--height", "8", "--width", "8", "--steps", "1", "--count", "2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {name: written(folder / f"{name}.safetensors", changes) for name, changes in KINDS.items()}


def written(path: Path, changes: dict[str, object]) -> str:
    config: Config = with_fields(recipe_named("diff_nca"), SMALL | changes)
    torch.manual_seed(0)
    write_model(path, build_model(config).network.state_dict(), config, {})
    return str(path)


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    folder = tmp_path / "maps"
    folder.mkdir()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(folder / "a.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refusal(
    models: dict[str, str],
    maps: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """Return a function that runs a command which must change no file, and returns its one line.

    A kind of model stands for its file.
    """
    monkeypatch.chdir(tmp_path)

    def refused(*words: str) -> str:
        before = contents(tmp_path)
        capsys.readouterr()
        assert main(["synthesize", *(models.get(word, word) for word in words)]) == 2
        assert contents(tmp_path) == before
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refused


def test_it_says_how_many_pairs_are_new_and_what_lists_them(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs"
    assert main(["synthesize", models["maker"], *TINY, "--out", str(out), "--coco"]) == 0
    lists = f"{out}/index.csv\n{out}/annotations.json\n"
    assert capsys.readouterr().out == f"{out}: 2 pairs, 2 of them new\n{lists}"
    assert main(["synthesize", models["maker"], *TINY, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 2 pairs, 0 of them new\n{lists}"


def test_a_killed_command_goes_on_to_the_same_files(models: dict[str, str], tmp_path: Path) -> None:
    def words(out: str) -> list[str]:
        size = ["--height", "32", "--width", "32", "--steps", "2", "--count", "3", "--batch", "1"]
        return ["synthesize", models["filler"], "--maker", models["maker"], *size, "--out", out]

    program = [sys.executable, "-m", "diffnca"]
    first = tmp_path / "a/images/000000.png"
    killed = subprocess.Popen([*program, *words("a")], cwd=tmp_path, env=dict(os.environ))
    while not first.exists() and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for out in ("a", "b"):
        assert main([word if word != out else str(tmp_path / out) for word in words(out)]) == 0
    assert first.exists() and contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["plain"], "must follow or make maps, but was trained without layouts"),
        (["follower"], "--layout: must be given for"),
        (["filler", "--maker", "follower"], "maker: must be a model that makes maps, and"),
        (["follower", "--maker", "maker"], "a model that knows no coarse colours"),
        (["maker", "--layout", "maps", "--obey", "2"], "--obey 2.0: must be 1 for"),
        (["maker", "--obey", "2"], "--obey 2.0: must be 1 without layout and label"),
        (["maker", "--label", "bark"], "--label: must be left out for a model"),
        (["follower", "--layout", "empty"], "holds no layouts"),
        (["follower", "--layout", "photos"], "photos/a.png: holds the value 7: must be numbers from 0 to 1"),
        (["follower", "--layout", "maps", "--height", "4096", "--width", "4096"], "at most 4,194,304 pixels"),
        (["maker", "--batch", "0"], "--batch 0: must be >= 1"),
        (["maker", "--count", "0"], "--count 0: must be >= 1"),
        (["maker", "--out", "maps"], "maps: holds a.png and no manifest.json; name a new folder"),
        (["follower", "--layout", "maps", "--out", "."], "holds the given maps"),
        (["maker", "--out", "maps/a.png"], "is a file; name a folder"),
        (["maker", "--out", "none/pairs"], "does not exist"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line_before_any_work(
    told: list[str], message: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((4, 4), 7, dtype=np.uint8)).save(tmp_path / "photos/a.png")
    assert message in refusal(*told, *([] if "--out" in told else ["--out", "pairs"]))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["maker", "--seed", "9"], "holds pairs of seed 0, this command says 9; give another --out"),
        (["maker", "--steps", "2"], "holds pairs of steps 1, this command says 2"),
        (["maker", "--height", "12"], "holds pairs of height 8, this command says 12"),
        (["follower", "--layout", "maps"], "holds pairs of weights"),
        (["maker", "--count", "1"], "holds 2 pairs, this command says 1; give --count 2 or more"),
    ],
)
def test_a_folder_of_other_pairs_is_refused_and_kept(
    models: dict[str, str], told: list[str], message: str, refusal: Callable[..., str]
) -> None:
    assert main(["synthesize", models["maker"], *TINY, "--out", "pairs"]) == 0
    assert message in refusal(*TINY, *told, "--out", "pairs")


def test_pictures_of_others_among_the_pairs_are_refused(
    models: dict[str, str], tmp_path: Path, refusal: Callable[..., str]
) -> None:
    assert main(["synthesize", models["maker"], *TINY, "--out", "pairs"]) == 0
    (tmp_path / "pairs/images/cat.png").touch()
    assert "holds cat.png, which is of no pair" in refusal("maker", *TINY, "--out", "pairs")


@pytest.mark.parametrize("text", ["{", "[]", '{"count": 3}'])
def test_a_manifest_of_something_else_is_refused(
    text: str, tmp_path: Path, refusal: Callable[..., str]
) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/manifest.json").write_text(text)
    said = refusal("maker", *TINY, "--out", "pairs")
    assert "manifest.json: is no manifest of diffnca, or damaged" in said
