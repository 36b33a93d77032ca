"""The examples give the images of the package, in processes without torch."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.models.file import find_model, load
from diffnca.sampling.generate import generate

EXAMPLES = Path(__file__).parent.parent / "examples"
MODEL, SIZE = "pathology-4step", ["--height", "21", "--width", "34"]


def run(example: str, *arguments: object) -> None:
    """Run an example in a process that has neither torch nor diffnca."""
    code = (
        "import runpy, sys; sys.modules |= {'torch': None, 'diffnca': None}; sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, EXAMPLES / example, *arguments, *SIZE, "--seed", "3"]
    subprocess.run([str(each) for each in command], check=True)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The image of the package, computed in float32 as the examples do."""
    image = generate(load(MODEL), height=21, width=34, seed=3, engine="eager")
    return to_uint8(image)[0].astype(int)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_plain_numpy_gives_the_image_of_the_package(tmp_path: Path, expected: np.ndarray) -> None:
    run("numpy_sampler.py", find_model(MODEL), tmp_path / "image.png")
    assert np.abs(pixels_of(tmp_path / "image.png") - expected).max() <= 1


def test_the_onnx_file_gives_the_image_of_the_package(tmp_path: Path, expected: np.ndarray) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    onnx = pytest.importorskip("diffnca.export.onnx", reason="needs the extra export", exc_type=ImportError)
    file = tmp_path / "student.onnx"
    onnx.write_onnx(file, load(MODEL), onnx.Options(loop=True))
    run("onnx_sampler.py", file, tmp_path / "image.png")
    assert np.abs(pixels_of(tmp_path / "image.png") - expected).max() <= 1


def test_blender_repeats_a_tile(tmp_path: Path) -> None:
    pytest.importorskip("bpy", reason="needs Blender as the package bpy, some 400 MB")
    tile = np.full((8, 8, 3), [0, 200, 0], np.uint8)
    tile[::2] = [0, 20, 0]
    Image.fromarray(tile).save(tmp_path / "tile.png")
    command = [EXAMPLES / "blender_material.py", tmp_path / "tile.png", tmp_path / "made.png"]
    small = ["--width", "64", "--height", "36", "--samples", "1"]
    subprocess.run([sys.executable, *map(str, command), *small], check=True, stdout=subprocess.DEVNULL)
    ground = pixels_of(tmp_path / "made.png")[24:, :, :3].reshape(-1, 3)
    red, green, blue = ground.mean(axis=0)
    assert green > max(red, blue) + 20 and np.ptp(ground[:, 1]) > 40


def test_the_noise_of_the_example_is_that_of_the_package() -> None:
    spec: Any = importlib.util.spec_from_file_location("numpy_sampler", EXAMPLES / "numpy_sampler.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    seed = 2**63 + 11
    own = Noise((seed,)).normal(Stream.STEP, 5, Canvas(9, 13).whole, 6)[0].numpy()
    np.testing.assert_allclose(example.normal(seed, 1, 5, 9, 13, 6), own, rtol=1e-6)
