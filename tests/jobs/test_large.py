"""Large images as a user asks for them: the plan, restarts after any death, what is refused and left."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import active_children
from pathlib import Path
from threading import Thread
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

import diffnca.formats
import diffnca.tiles
from diffnca.canvas.noise import MAX_SEED
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas, Region
from diffnca.cli.main import main
from diffnca.formats.ome_zarr import read_pixels
from diffnca.jobs import plan as jobs_plan
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.plan import check_tile, plan, shard_of
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import New
from diffnca.models.file import load
from diffnca.sampling.generate import generate

from .conftest import small, write_small

SIZE = ["--height", "40", "--width", "56", "--steps", "3", "--seed", "4"]
"""Four tiles of 32 px, in files of 16 px."""


def command(model: str, out: Path, *more: str) -> list[str]:
    return ["sample", model, *SIZE, "--out", str(out), "--tile", "32", *more]


def started(arguments: list[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "diffnca", *arguments], stdout=subprocess.DEVNULL, text=True, **options
    )


def until_there(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait until a process has written a file to its end."""
    while not any(path.suffix != ".partial" for path in folder.glob(pattern)):
        assert process.poll() is None, "it ended too early"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def in_memory(model: str) -> np.ndarray:
    """The pixels of the image, made in memory."""
    return to_uint8(generate(load(model), height=40, width=56, steps=3, seed=4))[0]


@pytest.fixture(scope="module")
def once(model: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes an image for all tests, which leave it as it is."""

    @cache
    def make(name: str, *more: str) -> Path:
        out = tmp_path_factory.mktemp("made") / name
        assert main(command(model, out, *more)) == 0
        return out

    return make


@pytest.fixture
def finished(once: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that gives a finished image to one test."""

    def copied(name: str, *more: str) -> Path:
        made = once(name, *more)
        (shutil.copytree if made.is_dir() else shutil.copy2)(made, tmp_path / name)
        return tmp_path / name

    return copied


def error_of(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


Once = Callable[..., Path]
"""Returns an image of this name, made with these further options."""


def test_an_ome_zarr_image_has_the_pixels_of_the_image_in_memory(once: Once, in_memory: np.ndarray) -> None:
    assert np.array_equal(read_pixels(str(once("x.ome.zarr"))), in_memory)


def test_a_png_in_tiles_has_the_pixels_of_the_image_in_memory(once: Once, in_memory: np.ndarray) -> None:
    with Image.open(once("x.png")) as image:
        assert np.array_equal(np.asarray(image), in_memory)


def test_an_ome_tiff_is_written(once: Once) -> None:
    tifffile = pytest.importorskip("tifffile")
    assert tifffile.imread(once("x.ome.tif")).shape[:2] == (40, 56)


@pytest.mark.parametrize("name", ["x.ome.zarr", "x.ome.tif", "x.png"])
def test_nothing_but_the_image_is_left(once: Once, name: str) -> None:
    assert [path.name for path in once(name).parent.iterdir()] == [name]


def test_the_pixel_size_of_the_card_reaches_the_file(once: Once) -> None:
    levels = zarr.open_group(once("x.ome.zarr"), mode="r").attrs["ome"]["multiscales"][0]["datasets"]
    assert levels[0]["coordinateTransformations"][0]["scale"] == [1.0, 0.5, 0.5]


def test_processes_change_nothing(once: Once, in_memory: np.ndarray) -> None:
    assert np.array_equal(read_pixels(str(once("x.ome.zarr", "--workers", "2"))), in_memory)


def test_a_dry_run_tells_the_plan_and_writes_nothing(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(model, tmp_path / "x.ome.zarr", "--dry-run")) == 0
    words = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert words == ["image", "tiles", "memory", "disk", "time"]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "largest"), [(0.0, 64), (1e9, 300)])
def test_a_machine_is_measured_on_larger_pieces_until_one_takes_long(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, largest: int
) -> None:
    sides, first_step = [], jobs_plan._first_step

    def noted(job: Any, whole: Region) -> Any:
        sides.append(whole.width)
        return first_step(job, whole)

    monkeypatch.setattr(jobs_plan, "MEASURED_SECONDS", seconds)
    monkeypatch.setattr(jobs_plan, "_first_step", noted)
    planned = plan(asked(model, New(), Choices(), (40, 300)), Place(out=str(tmp_path / "x.ome.zarr")))
    assert max(sides) == largest
    assert planned.tiles is not None and planned.tiles.rates.draw > 0.0


def test_a_dry_run_tells_what_is_made_in_memory(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sample", model, *SIZE, "--count", "3", "--out", str(tmp_path / "x.png"), "--dry-run"]
    assert main(arguments) == 0
    assert "3 in all, in memory" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x.ome.zarr", "x.ome.tif"])
def test_a_finished_image_is_not_made_again(
    model: str, once: Once, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(command(model, once(name))) == 0
    assert "is finished already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "5"], "holds an image of seed 4, this command says 5"),
        (["--steps", "2"], "holds an image of steps 3, this command says 2"),
        (["--height", "41"], "holds an image of height 40, this command says 41"),
        (["--sampler", "ddim"], "holds an image of sampler dpmpp2m, this command says ddim"),
        (["--seamless", "x"], "holds an image of seamless none, this command says x"),
        (["--windows", "32"], "holds an image of windows none, this command says 32"),
        (["--engine", "eager"], "holds an image of engine auto, this command says eager"),
    ],
)
def test_another_image_is_refused(
    model: str, once: Once, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    out = once("x.ome.zarr")
    before = bytes_of(out)
    assert message in error_of(capsys, command(model, out, *change))
    assert bytes_of(out) == before


def test_an_image_made_with_more_than_is_asked_for_is_another(
    model: str, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    out = once("x.ome.zarr", "--steps", "1", "--windows", "32")
    said = error_of(capsys, command(model, out, "--steps", "1"))
    assert "holds an image of windows 32, this command says none" in said


def test_an_image_made_of_another_is_not_a_new_one(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (56, 40)).save(tmp_path / "given.png")
    out, given = str(tmp_path / "x.ome.zarr"), str(tmp_path / "given.png")
    options = f"{model} --steps 3 --seed 4 --out {out} --tile 32".split()
    assert main(["vary", *options, "--image", given]) == 0
    assert "holds an image of task vary, this command says none" in error_of(
        capsys, command(model, Path(out))
    )


def test_a_compression_is_of_tiff_files_alone(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = error_of(capsys, command(model, tmp_path / "x.png", "--compression", "deflate"))
    assert "--compression deflate: must be of a TIFF file" in said


def test_an_ome_tiff_of_another_compression_is_refused(
    model: str, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tifffile")
    said = error_of(capsys, command(model, once("x.ome.tif"), "--compression", "deflate"))
    assert "holds an image of compression jpeg, this command says deflate" in said


def test_deflate_loses_nothing(once: Once, in_memory: np.ndarray) -> None:
    tifffile = pytest.importorskip("tifffile")
    assert np.array_equal(tifffile.imread(once("x.ome.tif", "--compression", "deflate")), in_memory)


@pytest.mark.parametrize("name", ["x.ome.tif", "x.png"])
def test_a_kill_while_the_work_is_removed_changes_nothing(
    model: str, finished: Once, tmp_path: Path, name: str
) -> None:
    out = finished(name)
    before = out.read_bytes()
    (tmp_path / f"{name}.work" / "image.ome.zarr" / "1").mkdir(parents=True)  # what is left of it
    assert main(command(model, out)) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["x.ome.tif", "x.ome.zarr"])
def test_a_command_killed_as_it_ended_leaves_no_lock_when_it_is_repeated(
    model: str, finished: Once, tmp_path: Path, name: str
) -> None:
    out = finished(name)
    (tmp_path / f".{name}.diffnca-lock").touch()
    assert main(command(model, out)) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_command_killed_as_it_tried_its_folder_goes_on(
    model: str, once: Once, tmp_path: Path, in_memory: np.ndarray
) -> None:
    work = tmp_path / "x.png.work"
    work.mkdir()
    (work / ".image.ome.zarr.0123abcd.diffnca-partial").touch()
    assert main(command(model, tmp_path / "x.png")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), in_memory)


def test_a_file_in_the_place_of_an_image_is_refused_before_the_work(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.ome.zarr").touch()
    assert "x.ome.zarr: is a file" in error_of(capsys, command(model, tmp_path / "x.ome.zarr"))
    assert [path.name for path in tmp_path.iterdir()] == ["x.ome.zarr"]


def test_a_link_to_a_folder_that_is_not_there_yet_is_followed(model: str, once: Once, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "x.ome.zarr").symlink_to(tmp_path / "far" / "x.ome.zarr")
    assert main(command(model, tmp_path / "x.ome.zarr")) == 0
    assert bytes_of(tmp_path / "far" / "x.ome.zarr") == bytes_of(once("x.ome.zarr"))


def test_an_address_of_a_file_is_its_path(
    model: str, once: Once, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, missing = (f"file://{tmp_path / name}" for name in ("x.ome.zarr", "missing/x.ome.zarr"))
    arguments = ["sample", model, *SIZE, "--tile", "32"]
    assert main([*arguments, "--out", out]) == 0
    assert bytes_of(tmp_path) == {
        f"x.ome.zarr/{name}": data for name, data in bytes_of(once("x.ome.zarr")).items()
    }
    assert main(["verify", out]) == 0
    assert "does not exist; create it first" in error_of(capsys, [*arguments, "--out", missing])


def test_a_dry_run_of_a_finished_image_deletes_nothing(model: str, finished: Once, tmp_path: Path) -> None:
    out = finished("x.png")
    (tmp_path / "x.png.work").mkdir()
    assert main(command(model, out, "--dry-run")) == 0
    assert (tmp_path / "x.png.work").is_dir()


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("x.ome.zarr", 40 * 300 + 20 * 150), ("x.ome.tif", 40 * 300 + 20 * 150), ("x.png", 40 * 300)],
)
def test_a_finished_image_takes_a_byte_for_each_pixel_and_colour(
    model: str, tmp_path: Path, name: str, pixels: int
) -> None:
    request = asked(model, New(), Choices(), (40, 300))
    assert plan(request, Place(out=str(tmp_path / name), tile=32)).finished_bytes == 3 * pixels


@pytest.mark.parametrize(("name", "files"), [("x.ome.zarr", 1), ("x.ome.tif", 2)])
def test_a_file_is_written_while_its_pixels_are_still_there(
    model: str, tmp_path: Path, name: str, files: int
) -> None:
    request = asked(model, New(), Choices(steps=1), (40, 300))  # one step leaves no states
    planned = plan(request, Place(out=str(tmp_path / name), tile=32))
    assert planned.needed_bytes == files * planned.finished_bytes


def test_a_dry_run_tells_that_the_disk_is_too_small(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--height", "20000000", "--width", "20000000", "--tile", "2048"]
    out = tmp_path / "x.ome.zarr"
    assert "are free; make room or choose another disk" in error_of(
        capsys, command(model, out, *size, "--dry-run")
    )


def test_a_dry_run_of_what_was_begun_tells_what_is_left(
    model: str, killed: Once, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = killed("first sweep")
    before = bytes_of(tmp_path)
    assert main(command(model, out, "--dry-run")) == 0
    assert " left of " in capsys.readouterr().out and bytes_of(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "is_lacking"),
    [({"workers": 10**6}, True), ({"workers": 1}, False), ({"scheduler": "tcp://elsewhere:8786"}, False)],
    ids=str,
)
def test_a_plan_says_whether_its_workers_need_more_memory_than_there_is(
    model: str, tmp_path: Path, place: dict[str, Any], is_lacking: bool
) -> None:
    request = asked(model, New(), Choices(steps=2), (64, 64))
    planned = plan(request, Place(out=str(tmp_path / "x.ome.zarr"), **place))
    assert (planned.lacking_memory is not None) == is_lacking


@pytest.mark.parametrize("more", [[], ["--workers", "2"], ["--scheduler", "tcp://127.0.0.1:9"]])
def test_an_address_in_the_memory_of_the_command_is_refused(
    model: str, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    arguments = ["sample", model, *SIZE, "--out", "memory://private/x.ome.zarr", *more]
    assert "would be lost when the command ends" in error_of(capsys, arguments)


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there_is_one_clear_line_and_nothing_is_left(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("diffnca.tiles.dask.CONNECT_SECONDS", 1)
    said = error_of(capsys, command(model, tmp_path / "x.ome.zarr", "--scheduler", address))
    assert f"--scheduler {address}: no answer" in said
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("side", "shard"), [(1, 16), (255, 16), (256, 32), (2048, 256), (4095, 256), (4096, 512), (2**20, 512)]
)
def test_shards_grow_with_the_image_up_to_512_px(side: int, shard: int) -> None:
    assert shard_of(Canvas(side, 1)) == shard


@pytest.mark.parametrize("tile", [256, 768, 2048])
def test_tiles_of_a_large_image_are_multiples_of_256_px(tile: int) -> None:
    check_tile(tile, Canvas(32768, 32768))
    with pytest.raises(ValueError, match="must be a multiple of 256 px"):
        check_tile(tile + 16, Canvas(32768, 32768))


def test_another_image_is_refused_also_when_the_states_are_gone(
    model: str, killed: Once, in_memory: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = killed("first sweep")
    shutil.rmtree(f"{out}.work")
    assert "holds an image of seed 4" in error_of(capsys, command(model, out, "--seed", "5"))
    assert main(command(model, out)) == 0
    assert np.array_equal(read_pixels(str(out)), in_memory)


class KeptFileSystem(MemoryFileSystem):
    """A place that fsspec knows and that is no folder."""

    protocol = "kept"


def test_an_address_of_fsspec_is_written(model: str, in_memory: np.ndarray) -> None:
    fsspec.register_implementation("kept", KeptFileSystem, clobber=True)
    url = "kept://made/x.ome.zarr"
    assert main(["sample", model, *SIZE, "--out", url, "--tile", "64"]) == 0
    assert np.array_equal(read_pixels(url), in_memory)


@contextmanager
def short_files() -> Iterator[None]:
    """Let no file grow beyond 2 kB, as if the disk was full."""
    ignored, before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_write_that_fails_is_one_clear_line_and_nothing_is_lost(
    model: str, tmp_path: Path, in_memory: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.ome.zarr"
    with short_files():
        error = error_of(capsys, command(model, out))
    assert "File too large" in error and "the same request goes on" in error
    assert main(command(model, out)) == 0
    assert np.array_equal(read_pixels(str(out)), in_memory)


def test_another_model_of_the_same_name_is_refused(
    once: Once, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_small(tmp_path / "small.safetensors", small(), other=1)
    assert "holds an image of weights" in error_of(capsys, command(other, once("x.ome.zarr")))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tile", "20"], "--tile 20: must be a multiple of 16 px"),
        (["--workers", "0"], "--workers 0: must be >= 1"),
        (["--out", "missing/x.ome.zarr"], "the folder missing does not exist; create it first"),
        (["--out", "x.ome.png", "--height", "65536", "--width", "65536"], "are too many for a PNG file"),
        (["--out", "x.tif.gz"], "must end in .png, .ome.zarr or .ome.tif"),
        (["--count", "2"], "--count"),
        (["--region", "0", "0", "9", "9"], "--out end in .png"),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert message in error_of(capsys, command(model, tmp_path / "x.ome.zarr", *more))


def test_a_region_is_the_crop_of_the_whole(model: str, tmp_path: Path, in_memory: np.ndarray) -> None:
    arguments = ["sample", model, *SIZE, "--region", "20", "30", "11", "13", "--out", str(tmp_path / "r.png")]
    assert main(arguments) == 0
    with Image.open(tmp_path / "r.png") as image:
        assert np.array_equal(np.asarray(image), in_memory[20:31, 30:43])


def test_a_region_is_not_taken_for_the_whole(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.png"
    assert main(["sample", model, *SIZE, "--region", "20", "30", "11", "13", "--out", str(out)]) == 0
    message = error_of(capsys, command(model, out))
    assert "holds an image of region 20,30,11,13, this command says none" in message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "missing/x.ome.zarr"], "the folder missing does not exist"),
        (["--tile", "17"], "--tile 17: must be a multiple of"),
        (["--region", "0", "0", "8", "8", "--out", "x.png"], "region of 8x8 px: must be the whole canvas"),
        (
            ["--seamless", "both", "--height", "130", "--out", "x.png"],
            "130x128 px: circular sides must be mult",
        ),
    ],
    ids=str,
)
def test_what_is_refused_is_refused_before_smaller_images_are_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("diffnca.sampling.growth.sample_task", None)
    arguments = ["sample", "faces", "--height", "128", "--width", "128", "--out", "x.ome.zarr", *more]
    assert message in error_of(capsys, arguments)


def test_a_dry_run_makes_no_smaller_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnca.sampling.growth.sample_task", None)
    size = ["--height", "128", "--width", "128"]
    assert main(["sample", "faces", *size, "--out", str(tmp_path / "x.ome.zarr"), "--dry-run"]) == 0


@pytest.mark.parametrize("more", [["--workers", "2"], ["--scheduler", "tcp://nowhere:1"]])
def test_a_small_image_takes_no_workers(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    arguments = ["sample", model, *SIZE, "--out", str(tmp_path / "x.png"), *more]
    assert "--workers and --scheduler: must be left out for a small image" in error_of(capsys, arguments)


def test_a_file_that_is_there_and_no_tiff_is_one_clear_line(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tifffile")
    (tmp_path / "x.ome.tif").write_text("notes")
    assert "x.ome.tif: is there, and no TIFF file" in error_of(capsys, command(model, tmp_path / "x.ome.tif"))


def test_seeds_that_end_too_high_are_refused_before_the_first_image(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sample", model, *SIZE, "--seed", str(MAX_SEED), "--count", "2"]
    assert f"--seed {MAX_SEED + 1}" in error_of(capsys, [*arguments, "--out", str(tmp_path / "x.png")])
    assert not (tmp_path / "x-000.png").exists()


def test_a_region_over_the_seam_is_the_whole_rolled(model: str, tmp_path: Path) -> None:
    square = ["sample", model, "--height", "32", "--width", "32", "--steps", "2", "--seamless", "both"]
    assert main([*square, "--out", str(tmp_path / "whole.png")]) == 0
    assert main([*square, "--region", "0", "16", "32", "32", "--out", str(tmp_path / "rolled.png")]) == 0
    whole, rolled = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("whole", "rolled"))
    assert np.array_equal(rolled, np.roll(whole, -16, axis=1))


def test_the_end_of_a_name_may_be_in_capitals(once: Once, in_memory: np.ndarray) -> None:
    assert np.array_equal(np.asarray(Image.open(once("x.PNG"))), in_memory)


def test_circular_axes_are_told_what_the_largest_cells_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    square = ["--height", "18", "--width", "18", "--seamless", "both"]
    for more in ([], ["--tile", "64"]):
        message = error_of(capsys, ["sample", "aerial", *square, *more, "--out", str(tmp_path / "x.png")])
        assert "18x18 px: circular sides must be multiples of 4 px; choose such a size" in message
        assert message.rstrip().endswith("20x20")


def test_a_region_tells_what_it_costs(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sample", model, *SIZE, "--region", "20", "30", "11", "13", "--out", str(tmp_path / "r.png")])
    assert "times the work of an image of its size" in capsys.readouterr().out


LAST = "last sweep"
MOMENTS = {
    "metadata": "x.ome.zarr.work/states/zarr.json",
    "first sweep": "x.ome.zarr.work/states/image-0001/c/0/*/*",
    "second sweep": "x.ome.zarr.work/states/image-0002/c/0/*/*",
    LAST: "x.ome.zarr/0/c/*/*/*",
}
"""What is there as soon as a command works on these parts of the image."""


@pytest.fixture(scope="module")
def deaths(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with what a command leaves that is killed at each of the moments.

    One command is killed at the last of them; at the others it stands still, and what is there is copied.
    """
    folder, kept = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("left")
    process = started(command(model, folder / "x.ome.zarr", "--tile", "16"))  # one step is a sweep
    try:
        for moment, pattern in MOMENTS.items():
            until_there(folder, pattern, process)
            process.send_signal(signal.SIGKILL if moment == LAST else signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)  # until it has ended, or stands
            shutil.copytree(folder, kept / moment)
            process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
    return kept


@pytest.fixture
def killed(deaths: Path, tmp_path: Path) -> Once:
    """Return a function that gives the unfinished image of a command which was killed at a moment."""

    def copied(moment: str) -> Path:
        shutil.copytree(deaths / moment, tmp_path, dirs_exist_ok=True)
        return tmp_path / "x.ome.zarr"

    return copied


@pytest.mark.parametrize(
    ("moment", "tile"),
    [("metadata", 48), ("first sweep", 16), ("first sweep", 48), ("second sweep", 48), (LAST, 16)],
)  # each moment, with the tile of the killed command and with another
def test_a_killed_command_goes_on_to_the_same_bytes(
    model: str, killed: Once, once: Once, moment: str, tile: int
) -> None:
    out = killed(moment)
    assert main(command(model, out, "--tile", str(tile))) == 0
    assert bytes_of(out) == bytes_of(once("x.ome.zarr"))


def test_an_unfinished_image_is_no_image(killed: Once) -> None:
    assert "ome" not in zarr.open_group(killed(LAST), mode="r").attrs


A_STATE = "x.ome.zarr.work/states/image-*/c/0/*/*"
"""A part of an image after a step, or after some steps: a sweep may take many."""


def test_workers_end_when_their_parent_is_killed(model: str, tmp_path: Path) -> None:
    process = started(command(model, tmp_path / "x.ome.zarr", "--workers", "2", "--tile", "16"))
    until_there(tmp_path, A_STATE, process)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20.0
    pids = [int(pid) for pid in children.stdout.split()]
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_worker_that_dies_is_one_clear_line_and_nothing_is_lost(
    model: str, tmp_path: Path, in_memory: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out, others = tmp_path / "x.ome.zarr", active_children()

    def kill_one() -> None:
        while not any(tmp_path.glob(A_STATE)):
            time.sleep(0.002)
        next(child for child in active_children() if child not in others).kill()

    Thread(target=kill_one, daemon=True).start()
    error = error_of(capsys, command(model, out, "--workers", "2", "--tile", "16"))
    assert "a worker died" in error and "goes on" in error
    assert main(command(model, out)) == 0
    assert np.array_equal(read_pixels(str(out)), in_memory)


def test_ctrl_c_says_that_the_same_command_goes_on(model: str, tmp_path: Path) -> None:
    size = "--height 256 --width 256 --tile 32 --steps 300".split()  # work of minutes
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    process = started(command(model, tmp_path / "x.ome.zarr", *size), stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, before)
    until_there(tmp_path, A_STATE, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and "the same command goes on" in errors


def test_verify_says_that_a_finished_image_is_whole(once: Once, capsys: pytest.CaptureFixture[str]) -> None:
    out = once("x.ome.zarr")
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert capsys.readouterr().out.strip().endswith("complete")


def test_verify_names_what_is_missing(finished: Once, capsys: pytest.CaptureFixture[str]) -> None:
    out = finished("x.ome.zarr")
    shards = [path for path in (out / "0" / "c").rglob("*") if path.is_file()]
    shards[0].unlink()
    assert str(shards[0].relative_to(out)) in error_of(capsys, ["verify", str(out)])


def test_a_network_that_sees_everything_is_refused_until_windows_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_small(tmp_path / "group.safetensors", small(normalisation="group"))
    out = tmp_path / "x.ome.zarr"
    assert "takes statistics over the whole image" in error_of(capsys, command(model, out))
    assert main(command(model, out, "--steps", "1", "--windows", "32")) == 0


def test_without_zarr_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("formats", "tiles"):  # they are imported anew
        monkeypatch.setattr(diffnca, part, getattr(diffnca, part))
        for name in [name for name in sys.modules if name.startswith(f"diffnca.{part}")]:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zarr", None)
    said = error_of(capsys, ["sample", "aerial", "--out", str(tmp_path / "x.ome.zarr")])
    assert said == "diffnca: large images need zarr: pip install 'diffnca[giga]'"


def test_another_images_store_is_not_overwritten(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = zarr.open_group(tmp_path / "x.ome.zarr", mode="w")
    group.create_array("s0", shape=(4, 4), dtype="uint8")
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": "s0"}]}]}
    before = bytes_of(tmp_path / "x.ome.zarr")
    assert "holds something else" in error_of(capsys, command(model, tmp_path / "x.ome.zarr"))
    assert bytes_of(tmp_path / "x.ome.zarr") == before


@pytest.mark.parametrize("more", [["--count", "2"], ["--region", "0", "0", "9", "9"]])
def test_what_is_made_in_memory_takes_no_tiles(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    arguments = command(model, tmp_path / "x.png", *more)
    assert "must be without --" in error_of(capsys, arguments)


def test_a_tiff_at_an_address_is_refused_before_the_work(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sample", model, *SIZE, "--out", "s3://made/x.ome.tif"]
    assert "must end in .ome.zarr" in error_of(capsys, arguments)


def test_an_image_that_lost_a_file_is_not_finished(
    model: str, finished: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    there = finished("x.ome.zarr")
    next(path for path in (there / "0" / "c").rglob("*") if path.is_file()).unlink()
    assert "is missing; delete it and make it again" in error_of(capsys, command(model, there))


def test_an_image_with_an_empty_file_is_not_finished(
    model: str, finished: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    there = finished("x.ome.zarr")
    (there / "0" / "c" / "0" / "1" / "1").write_bytes(b"")
    assert "0/c/0/1/1 is empty; delete it and make it again" in error_of(capsys, command(model, there))


def test_a_slash_at_the_end_is_no_other_image(
    model: str, once: Once, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", model, *SIZE, "--out", f"{once('x.ome.zarr')}/", "--tile", "32"]) == 0
    assert "is finished already" in capsys.readouterr().out


def test_an_image_made_in_memory_is_known_again(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", model, *SIZE, "--out", str(tmp_path / "x.png")]) == 0
    assert main(command(model, tmp_path / "x.png")) == 0
    assert "is finished already" in capsys.readouterr().out
