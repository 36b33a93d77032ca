"""What others hold on to: public names, commands and flags, the content of the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import diffnca
from diffnca.cli.main import main

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "diffnca"
NAMES = {
    "Canvas",
    "Config",
    "Denoiser",
    "Noise",
    "Pretrained",
    "Region",
    "extend",
    "generate",
    "guided",
    "inpaint",
    "interpolate",
    "interop",
    "load",
    "recipes",
    "upscale",
    "vary",
    "world",
}
FLAGS = {
    "train": "--recipe --data --layouts --layout.classes --out --minutes --images --from --scale --dry-run "
    "--strict --model.channels",
    "export": "--format --out --weights --loop --seamless",
    "look": "--scale --out --strict",
    "sample": "--out --height --width --seed --count --batch --sampler --steps --seamless --device --layout "
    "--obey",
    "inpaint": "--image --mask --box --out --method --jump --rounds --seed --count --film",
    "extend": "--image --top --bottom --left --right --out --seamless --method --jump --rounds",
    "upscale": "--image --factor --out --method --strength --tile --workers --scheduler --dry-run",
    "vary": "--image --strength --out --count",
    "interpolate": "--seeds --out --frames --height --width --milliseconds --seamless",
    "synthesize": "--out --count --seed --height --width --layout --obey --coco --batch --device --steps",
    "evaluate": "--reference --n --held-out --train --protocol --features --weights --crop --samples --out",
    "reproduce": "--data --out --minutes --images --rows --reduce --n --sampler --steps --seeds --features",
    "average": "PATH --width --out",
    "convert": "PATH",
    "app": "--data --work --port --no-open",
    "info": "--json",
    "bench": "--height --width --batch --rounds --training --no-compiled --against --device --json",
}


def help_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the help text of a command."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--help"])
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


def test_the_public_names_are_these() -> None:
    assert set(diffnca.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_can_be_imported_and_is_listed(name: str) -> None:
    assert getattr(diffnca, name) is not None
    assert name in dir(diffnca)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffnca.nothing


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of([], capsys)
    assert [verb for verb in FLAGS if verb not in text] == []


@pytest.mark.parametrize("verb", FLAGS)
def test_the_help_of_a_command_names_its_flags(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = help_of([verb], capsys).split()
    assert [flag for flag in FLAGS[verb].split() if flag not in words] == []


def test_the_help_needs_no_torch() -> None:
    code = (
        "import sys, diffnca.cli.main\n"
        "try: diffnca.cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)], check=True
    )
    return next(folder.glob("diffnca-*.whl"))


@pytest.mark.release
def test_the_wheel_holds_every_module_and_the_weights(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {
        "diffnca/py.typed",
        "diffnca/weights/pathology.safetensors",
        "diffnca/weights/aerial.safetensors",
    } <= files
    assert sorted(files - held) == []


@pytest.mark.release
def test_the_wheel_installs_the_command(wheel: Path) -> None:
    entry_points = (
        zipfile.ZipFile(wheel).read(f"diffnca-{diffnca.__version__}.dist-info/entry_points.txt").decode()
    )
    assert "diffnca = diffnca.cli.main:main" in entry_points.splitlines()
