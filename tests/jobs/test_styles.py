"""Images in the style of a picture, as a user asks for them: identity, tiles, restart, edits, mistakes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca import extend
from diffnca.canvas.pixels import to_model, to_uint8
from diffnca.cli.main import main
from diffnca.config.model import with_fields
from diffnca.data.styles import style_of
from diffnca.errors import Interrupted
from diffnca.formats.ome_zarr import read_pixels
from diffnca.formats.png import read_png_text
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.request import Request, asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New
from diffnca.models.file import load
from diffnca.sampling.generate import generate

from .conftest import small, write_small

STYLES = np.random.default_rng(0).normal(size=(20, 6)).round(4)
STYLED = {"layout.style": True, "layout.styles": tuple(STYLES.ravel().tolist()), "model.given_channels": 6}
CLASSES = {"layout.classes": ("stroma=#ff0000", "gland=#0000ff")}
SIZE = ["--height", "40", "--width", "56", "--steps", "3", "--seed", "4"]
TILE = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)
SIDES = {"height": 40, "width": 56, "seed": 4, "steps": 3}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of small models that follow styles: alone, with maps, and with maps that a model makes."""
    folder = tmp_path_factory.mktemp("models")
    filler = CLASSES | {"layout.coarse": 4, "model.given_channels": 12, "data.crop": 16}
    maker = {"layout.made": True, "model.made_channels": 2, "sampling.steps": 2, "model.channels": 40}
    changes = {
        "alone": STYLED,
        "mapped": STYLED | CLASSES | {"model.given_channels": 8},
        "filler": STYLED | filler,
        "maker": CLASSES | maker,
    }
    return {
        name: write_small(folder / f"{name}.safetensors", with_fields(small(), each))
        for name, each in changes.items()
    }


@pytest.fixture
def tile(tmp_path: Path) -> Path:
    Image.fromarray(TILE).save(tmp_path / "tile.png")
    return tmp_path / "tile.png"


def request_of(models: dict[str, str], kind: str = "alone", is_like: bool = True) -> Request:
    maker, like = models["maker"] if kind == "filler" else None, style_of(TILE) if is_like else None
    return asked(models[kind], New(like=like), Choices(steps=3, seed=4), (40, 56), maker=maker)


def in_memory(models: dict[str, str], kind: str = "alone", is_like: bool = True) -> np.ndarray:
    maker, like = load(models["maker"]) if kind == "filler" else None, to_model(TILE)[None]
    made = generate(load(models[kind]), **SIDES, maker=maker, like=like if is_like else None)
    return to_uint8(made)[0]


@pytest.mark.parametrize("is_like", [True, False])
def test_a_command_makes_the_image_that_python_makes(
    models: dict[str, str], tile: Path, tmp_path: Path, is_like: bool
) -> None:
    out = str(tmp_path / "a.png")
    like = ["--like", str(tile)] if is_like else []
    assert main(["sample", models["alone"], *SIZE, *like, "--out", out]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), in_memory(models, is_like=is_like))


@pytest.mark.parametrize(("kind", "is_like"), [("alone", True), ("alone", False), ("filler", True)])
def test_tiles_equal_the_whole_to_the_bit(
    models: dict[str, str], kind: str, is_like: bool, tmp_path: Path
) -> None:
    (made,) = run(request_of(models, kind, is_like), Place(out=str(tmp_path / "a.ome.zarr"), tile=32))
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(models, kind, is_like))


def test_a_stopped_image_goes_on_and_is_the_same(models: dict[str, str], tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.ome.zarr"), tile=32)
    answers: Iterator[bool] = iter([False, True])
    with pytest.raises(Interrupted):
        list(run(request_of(models), place, cancelled=lambda: next(answers)))
    (made,) = run(request_of(models), place)
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(models))


def test_the_identity_and_the_file_hold_the_numbers_of_the_style(
    models: dict[str, str], tile: Path, tmp_path: Path
) -> None:
    out, style = tmp_path / "a.png", style_of(TILE)
    assert style is not None
    assert main(["sample", models["alone"], *SIZE, "--like", str(tile), "--out", str(out)]) == 0
    written = read_png_text(out)["diffnca:like"]
    assert written == request_of(models).identity()["like"]
    assert tuple(map(float, written.split())) == style
    assert "like" not in request_of(models, is_like=False).identity()


def test_each_image_of_a_count_has_the_style_of_its_seed(models: dict[str, str], tmp_path: Path) -> None:
    told = f"sample {models['alone']} --height 16 --width 16 --count 2 --batch 2 --out {tmp_path / 'a.png'}"
    assert main([*told.split(), "--seed", "4"]) == 0
    made = np.stack([np.asarray(Image.open(tmp_path / f"a-00{index}.png")) for index in range(2)])
    expected = generate(load(models["alone"]), height=16, width=16, seed=[4, 5])
    np.testing.assert_array_equal(made, to_uint8(expected))


def test_an_edit_makes_what_python_makes_in_a_style(
    models: dict[str, str], tile: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 99, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    told = f"--image {tmp_path / 'x.png'} --out {tmp_path / 'y.png'} --like {tile} --steps 2 --right 8"
    assert main(["extend", models["alone"], *told.split()]) == 0
    made = np.asarray(Image.open(tmp_path / "y.png"))
    image, model = to_model(pixels)[None], load(models["alone"])
    own, followed = (
        to_uint8(extend(model, image, right=8, steps=2, like=like))[0]
        for like in (None, to_model(TILE)[None])
    )
    np.testing.assert_array_equal(made, followed)
    assert (own != followed).any()


def test_a_film_leads_from_the_style_of_one_seed_to_that_of_the_other(
    models: dict[str, str], tmp_path: Path
) -> None:
    told = f"interpolate {models['alone']} --seeds 4 9 --frames 2 --height 16 --width 16 --steps 2"
    assert main([*told.split(), "--out", str(tmp_path / "film")]) == 0
    made = np.stack([np.asarray(Image.open(tmp_path / "film" / f"000{index}.png")) for index in range(2)])
    expected = to_uint8(generate(load(models["alone"]), height=16, width=16, steps=2, seed=[4, 9]))
    np.testing.assert_allclose(made.astype(float), expected, atol=1.0)


def test_pairs_have_the_style_of_a_picture(models: dict[str, str], tile: Path, tmp_path: Path) -> None:
    Image.fromarray(np.uint8([[0, 1]])).save(tmp_path / "map.png")
    told = f"--layout {tmp_path / 'map.png'} --like {tile} --height 40 --width 56 --steps 3"
    assert main(["sample", models["mapped"], *told.split(), "--out", str(tmp_path / "one.png")]) == 0
    pairs = ["--count", "1", "--out", str(tmp_path / "pairs")]
    assert main(["synthesize", models["mapped"], *told.split(), *pairs]) == 0
    one, other = (Image.open(tmp_path / name) for name in ("one.png", "pairs/images/000000.png"))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            "aerial --like {tile}",
            "--like: must be left out for a model that was trained without st",
        ),
        ("{alone} --like none.png", "none.png: there is no such file"),
        ("{alone} --like {small}", "small.png: must have 16x16 opaque px or more to show a style"),
        ("{alone} --like {tile} --layout {tile}", "--like: must be left out with a drawing"),
        ("{alone} --like {tile} --out {tile}", "tile.png: is given, and would be overwritten"),
        ("{alone} --like {tile} --obey 2", "--obey 2.0: must be 1 without layout and label"),
    ],
)
def test_what_is_no_style_is_refused_in_one_line(
    models: dict[str, str],
    tile: Path,
    told: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(TILE[:9, :9]).save(tmp_path / "small.png")
    words = told.format(**models, tile=tile, small=tmp_path / "small.png").split()
    out = [] if "--out" in words else ["--out", str(tmp_path / "a.png")]
    assert main(["sample", *words, *SIZE, *out]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "a.png").exists()
