"""Films of images in the making, and between two seeds."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas
from diffnca.cli.main import main
from diffnca.diffusion.denoiser import Query
from diffnca.formats.film import LAST_MILLISECONDS, check_film, write_film
from diffnca.models.file import load
from diffnca.sampling.filmed import Filmed, watched
from diffnca.sampling.generate import generate
from diffnca.sampling.task import walk_of

MODEL = "pathology-4step"


def test_the_last_cell_step_is_the_estimate(model: str) -> None:
    denoiser, whole = load(model), Canvas(16, 16).whole
    x_t, level = Noise((0,)).normal(Stream.INITIAL, 0, whole, 3), walk_of(denoiser, None, None)[1][0]
    with torch.no_grad():
        estimates = watched(denoiser, Query(x_t, level, whole))
        expected = denoiser.estimate(Query(x_t, level, whole))
    assert len(estimates) == denoiser.config.model.cell.num_cell_steps
    assert torch.equal(estimates[-1], expected)
    assert not torch.equal(estimates[-2], expected)


def test_a_filmed_image_is_the_image(model: str) -> None:
    filmed = Filmed(load(model), 4)
    image = generate(filmed, height=16, width=24, seed=3)
    assert torch.equal(image, generate(load(model), height=16, width=24, seed=3))


def test_a_film_shows_every_cell_step_of_a_short_walk(tmp_path: Path) -> None:
    arguments = ["sample", MODEL, "--height", "16", "--width", "16", "--out", str(tmp_path / "a.png")]
    assert main([*arguments, "--film", str(tmp_path / "a.gif")]) == 0
    cells = load(MODEL).config.model.cell.num_cell_steps
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames == pytest.approx(4 * cells, abs=4)  # alike ones are joined
        assert film.width > 200


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".mp4"])
def test_a_film_of_the_package_is_replaced_and_no_other(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    write_film([np.zeros((8, 9, 3), np.uint8)] * 2, path, 100)
    check_film(path)
    path.write_bytes(path.read_bytes().replace(b"diffnca", b"another"))
    with pytest.raises(ValueError, match="is there, and diffnca has not made it"):
        check_film(path)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_films_hold_all_frames_and_play_for_ever(tmp_path: Path, suffix: str) -> None:
    frames = [np.full((8, 9, 3), 40 * index, np.uint8) for index in range(5)]
    write_film(frames, tmp_path / f"film{suffix}", 100)
    with Image.open(tmp_path / f"film{suffix}") as film:
        assert film.n_frames == 5
        assert film.info["loop"] == 0
        shown = [np.asarray(frame.convert("RGB"))[0, 0, 0] for frame in ImageSequence.Iterator(film)]
    assert np.allclose(shown, [0, 40, 80, 120, 160], atol=4)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_mp4_holds_all_frames_and_rests_on_the_last(tmp_path: Path, channels: int) -> None:
    frames = [np.full((97, 101, channels), 40 * index, np.uint8) for index in range(5)]
    write_film(frames, tmp_path / "film.mp4", 100)
    with av.open(str(tmp_path / "film.mp4")) as film:
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        seconds = film.duration / av.time_base
    assert seconds == pytest.approx(0.1 * 4 + LAST_MILLISECONDS / 1000)
    assert np.allclose([frame.mean() for frame in shown[:5]], [0, 40, 80, 120, 160], atol=2)
    assert {frame.shape for frame in shown} == {(194, 202, 3)}  # twice as large
    assert all(abs(frame.mean() - 160) < 2 for frame in shown[4:])


def test_odd_sides_of_an_mp4_are_made_even_by_repeating_the_edge(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 301, dtype=np.uint8)[None, :, None].repeat(299, axis=0).repeat(3, axis=2)
    write_film([ramp], tmp_path / "film.mp4", 100)
    with av.open(str(tmp_path / "film.mp4")) as film:
        (first, *_) = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert first.shape == (300, 302, 3)
    assert np.abs(first[:299, :301].astype(int) - ramp).max() <= 6


def test_frames_between_two_seeds_begin_and_end_with_their_images(model: str, tmp_path: Path) -> None:
    size = ["--height", "12", "--width", "16"]
    frames = ["--seeds", "3", "8", "--frames", "3", "--batch", "2", "--out", str(tmp_path / "frames")]
    assert main(["interpolate", model, *size, *frames]) == 0
    for seed, name in ((3, "0000.png"), (8, "0002.png")):
        assert main(["sample", model, *size, "--seed", str(seed), "--out", str(tmp_path / "a.png")]) == 0
        expected, frame = (
            np.asarray(Image.open(path)) for path in (tmp_path / "a.png", tmp_path / "frames" / name)
        )
        assert np.abs(expected.astype(int) - frame).max() <= 1
    assert len(list((tmp_path / "frames").iterdir())) == 3


def test_killed_frames_begin_again_and_nothing_of_them_is_left(model: str, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / ".0000.png.0123abcd.diffnca-partial").touch()
    arguments = ["--seeds", "3", "8", "--frames", "2", "--height", "8", "--width", "8"]
    assert main(["interpolate", model, *arguments, "--out", str(tmp_path / "frames")]) == 0
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {"0000.png", "0001.png"}


def test_a_killed_film_leaves_nothing_when_it_is_repeated(model: str, tmp_path: Path) -> None:
    (tmp_path / ".f.gif.0123abcd.diffnca-partial").touch()
    files = ["--out", str(tmp_path / "a.png"), "--film", str(tmp_path / "f.gif")]
    assert main(["sample", model, "--height", "8", "--width", "8", *files]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "f.gif"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--frames", "1"), "--frames 1"),
        (("--batch", "0"), "--batch 0"),
        (("--height", "0"), "--height 0"),
        (("--out", "nowhere/film.gif"), "does not exist"),
        (("--out", "nowhere/frames"), "the folder nowhere does not exist"),
        (("--out", "film.avi"), "must end in .gif or .webp or .png or .mp4"),
    ],
)
def test_films_that_cannot_be_are_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["interpolate", MODEL, "--seeds", "1", "2", "--out", "film.gif", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_film_is_not_written_over_its_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = str(tmp_path / "a.png")
    assert main(["sample", MODEL, "--out", both, "--film", both]) == 2
    assert "must be another file than --out" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_frames_are_not_written_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frames").touch()
    assert main(["interpolate", MODEL, "--seeds", "1", "2", "--out", str(tmp_path / "frames")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_frames_do_not_join_those_of_a_longer_film(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["interpolate", model, "--seeds", "1", "2", "--height", "16", "--width", "16", "--out"]
    for frames in ("3", "3"):  # the same ones are written again
        assert main([*arguments, str(tmp_path / "film"), "--frames", frames]) == 0
    assert main([*arguments, str(tmp_path / "film"), "--frames", "2"]) == 2
    assert "holds 0002.png, which is none of 2 frames" in capsys.readouterr().err


def test_a_picture_of_the_name_of_a_frame_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "frames" / "0000.png")
    command = ["interpolate", MODEL, "--seeds", "1", "2", "--frames", "2", "--out", str(tmp_path / "frames")]
    assert main(command) == 2
    assert "0000.png: is there, and diffnca has not made it" in capsys.readouterr().err
