"""Noise of one tone: the means of its squares, what stays as it is, and that parts are parts of the whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca import Canvas, Region, generate, interpolate, load
from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Boundary
from diffnca.cli.main import main
from diffnca.diffusion.denoiser import Denoiser
from diffnca.formats.ome_zarr import read_pixels
from diffnca.sampling.starts import EvenNoise, PureNoise, start_of

SEEDS = Noise((3, 9))


def means(noise: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return the means of so many rows and columns of equal squares."""
    height, width = noise.shape[-2:]
    squares = noise.double().unflatten(3, (columns, width // columns)).unflatten(2, (rows, height // rows))
    return squares.mean(dim=(3, 5))


def test_all_squares_have_the_mean_that_the_tone_says() -> None:
    tone = (1.5, -0.5, 0.0)
    found = means(EvenNoise(3, 16, tone)(Canvas(48, 32).whole, SEEDS), 3, 2)
    expected = torch.tensor(tone).double()[:, None, None].expand_as(found) / 16
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_a_tone_that_is_drawn_is_another_for_each_seed_and_channel() -> None:
    drawn = means(EvenNoise(3, 16)(Canvas(48, 32).whole, SEEDS), 3, 2)[..., 0, 0]
    assert len(drawn.unique()) == 6


def test_tones_that_are_drawn_vary_as_the_means_of_independent_noise_do() -> None:
    drawn = 16 * means(EvenNoise(3, 16)(Canvas(16, 16).whole, Noise(tuple(range(2000)))), 1, 1)
    assert abs(drawn.mean()) < 4 / len(drawn.flatten()) ** 0.5
    assert drawn.std() == pytest.approx(1.0, abs=0.04)


def test_within_a_square_nothing_but_the_mean_is_changed() -> None:
    whole = Canvas(16, 16).whole
    even, own = (start(whole, SEEDS) for start in (EvenNoise(3, 16), PureNoise(3)))
    change = even - own
    torch.testing.assert_close(change, change[..., :1, :1].expand_as(change), rtol=0, atol=1e-6)


@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "reflect")], ids=str)
@pytest.mark.parametrize("size", [(50, 37), (16, 90), (7, 7)], ids=str)
def test_a_part_is_the_same_to_the_bit_as_in_the_whole(
    size: tuple[int, int], boundary: tuple[Boundary, Boundary]
) -> None:
    canvas, start = Canvas(*size, boundary), EvenNoise(3, 16)
    whole = start(canvas.whole, SEEDS)
    for part in canvas.whole.tiles(11, 23):
        assert torch.equal(start(part, SEEDS), part.crop(whole, canvas.whole))


def test_a_part_across_a_circular_edge_is_that_of_the_whole() -> None:
    canvas, start = Canvas(60, 50, ("circular", "circular")), EvenNoise(3, 16)
    part = Region(-7, 44, 20, 13, canvas)
    assert torch.equal(start(part, SEEDS), part.crop(start(canvas.whole, SEEDS), canvas.whole))


def test_a_far_corner_of_a_huge_canvas_takes_no_more_than_its_squares() -> None:
    side = 2**31
    corner = Region(side - 16, side - 32, 16, 32, Canvas(side, side))
    found = means(EvenNoise(3, 16, (1.0, 2.0, -1.0))(corner, SEEDS), 1, 2)
    assert found[0, :, 0, 1].mul(16).tolist() == pytest.approx([1.0, 2.0, -1.0], abs=1e-5)


def test_a_tone_is_seen_in_the_image() -> None:
    model = load("pathology")
    size = {"height": 48, "width": 48, "steps": 4, "even_px": 16}
    bright, dark = (generate(model, tone=(sign,) * 3, **size).mean() for sign in (2.0, -2.0))
    assert bright > dark + 0.1


def test_a_film_begins_with_the_image_of_its_seed() -> None:
    model = load("pathology")
    sampling = replace(model.config.sampling, even_px=16)
    even = Denoiser(model.network, model.schedule, replace(model.config, sampling=sampling))
    size = {"height": 40, "width": 24, "steps": 1}
    first = interpolate(even, seeds=(3, 4), shares=(0.0,), **size)
    assert torch.equal(first, generate(even, seed=3, **size))


def test_without_squares_the_noise_is_as_it_was() -> None:
    assert isinstance(start_of(load("aerial"), 0), PureNoise)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"even_px": -1}, "even_px=-1: must be from 0 to 1024"),
        ({"even_px": 2000}, "even_px=2000: must be from 0 to 1024"),
        ({"even_px": 16, "tone": (1.0, float("nan"), 0.0)}, "must be 3 finite numbers"),
        ({"even_px": 0, "tone": (1.0, 0.0, 0.0)}, "left out where even_px=0"),
        ({"even_px": 16, "tone": (1.0, 0.0)}, "must be 3 finite numbers, one for each channel"),
    ],
)
def test_what_cannot_be_started_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start_of(load("aerial"), **given)


def test_the_command_makes_the_image_of_the_python_function(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    command = ["sample", "pathology", "--height", "40", "--width", "30", "--steps", "1", "--out", str(path)]
    assert main([*command, "--even-px", "16", "--tone", "1", "0", "-1"]) == 0
    expected = generate(load("pathology"), height=40, width=30, steps=1, even_px=16, tone=(1.0, 0.0, -1.0))
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), to_uint8(expected)[0])
        assert image.info["diffnca:tone"] == "(1.0, 0.0, -1.0)"


def test_in_tiles_it_is_the_same_image(tmp_path: Path) -> None:
    command = ["sample", "aerial", "--height", "70", "--width", "60", "--steps", "2", "--even-px", "32"]
    assert main([*command, "--out", str(tmp_path / "a.png")]) == 0
    assert main([*command, "--tile", "32", "--out", str(tmp_path / "a.ome.zarr")]) == 0
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), read_pixels(str(tmp_path / "a.ome.zarr")))
