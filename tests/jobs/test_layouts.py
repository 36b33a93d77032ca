"""Images with a layout as a user asks for them: size, identity, tiles, restart, films, what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.canvas.pixels import to_uint8
from diffnca.cli.main import main
from diffnca.config.model import with_fields
from diffnca.errors import Interrupted
from diffnca.formats.ome_zarr import read_pixels
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.request import Request, asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New
from diffnca.models.file import load, read_config
from diffnca.sampling.generate import generate
from diffnca.sampling.layouts import read_layout

from .conftest import small, write_small

NUMBERS = (np.indices((20, 28)).sum(axis=0) // 8 % 2).astype(np.uint8)
SIZE = ["--height", "40", "--width", "56", "--steps", "3", "--seed", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a small model that knows two classes."""
    changes = {"layout.classes": ("stroma=#ff0000", "gland=#0000ff"), "model.given_channels": 2}
    path = tmp_path_factory.mktemp("model") / "layouts.safetensors"
    return write_small(path, with_fields(small(), changes))


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    Image.fromarray(NUMBERS).save(tmp_path / "map.png")
    return tmp_path / "map.png"


def request_of(model: str, path: Path, obey: float = 1.0, size: Any = (40, 56)) -> Request:
    layout = read_layout(path, read_config(Path(model)), size)
    return asked(model, New(layout=layout, obey=obey), Choices(steps=3, seed=4), size)


def in_memory(model: str, obey: float = 1.0, numbers: np.ndarray = NUMBERS) -> np.ndarray:
    layout = torch.from_numpy(numbers)
    image = generate(load(model), height=40, width=56, seed=4, steps=3, layout=layout, obey=obey)
    return to_uint8(image)[0]


@pytest.mark.parametrize("obey", [1.0, 2.5])
def test_a_command_makes_the_image_that_python_makes(
    model: str, drawn: Path, obey: float, tmp_path: Path
) -> None:
    out = str(tmp_path / "a.png")
    assert main(["sample", model, *SIZE, "--layout", str(drawn), "--obey", str(obey), "--out", out]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), in_memory(model, obey))


def test_an_image_has_the_size_of_its_layout(model: str, drawn: Path) -> None:
    canvas = request_of(model, drawn, size=(None, None)).canvas
    assert (canvas.height, canvas.width) == (20, 28)


def polygons(path: Path, right: float = 30, name: str = "gland") -> str:
    """Write a polygon, as an annotation tool exports it."""
    ring = [[10, 5], [right, 5], [right, 40], [10, 40], [10, 5]]
    geometry, properties = {"type": "Polygon", "coordinates": [ring]}, {"classification": {"name": name}}
    feature = {"type": "Feature", "geometry": geometry, "properties": properties}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return str(path)


def test_polygons_make_the_image_of_the_map_that_they_draw(model: str, tmp_path: Path) -> None:
    numbers, out = np.zeros((40, 56), dtype=np.uint8), tmp_path / "a.png"
    numbers[5:40, 10:30] = 1
    layout = polygons(tmp_path / "drawn.geojson")
    assert main(["sample", model, *SIZE, "--layout", layout, "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), in_memory(model, numbers=numbers))


def test_polygons_in_tiles_equal_the_whole_to_the_bit(model: str, tmp_path: Path) -> None:
    request = request_of(model, Path(polygons(tmp_path / "drawn.geojson", 33.7)))
    zarr, png = tmp_path / "a.ome.zarr", tmp_path / "a.png"
    list(run(request, Place(out=str(zarr), tile=32)))
    list(run(request, Place(out=str(png))))
    np.testing.assert_array_equal(read_pixels(str(zarr)), np.asarray(Image.open(png)))


def test_the_identity_knows_the_polygons(model: str, tmp_path: Path) -> None:
    one, other = (
        request_of(model, Path(polygons(tmp_path / f"{x}.geojson", x))).identity() for x in (30, 31)
    )
    assert one != other


def test_an_image_holds_all_polygons(model: str, tmp_path: Path) -> None:
    path = Path(polygons(tmp_path / "drawn.geojson", 30.2))
    canvas = request_of(model, path, size=(None, None)).canvas
    assert (canvas.height, canvas.width) == (40, 31)


@pytest.mark.parametrize("obey", [1.0, 2.5])
def test_tiles_equal_the_whole_to_the_bit(model: str, drawn: Path, obey: float, tmp_path: Path) -> None:
    out = tmp_path / "a.ome.zarr"
    (made,) = run(request_of(model, drawn, obey), Place(out=str(out), tile=32))
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(model, obey))


def test_a_stopped_image_goes_on_and_is_the_same(model: str, drawn: Path, tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.ome.zarr"), tile=32)
    answers: Iterator[bool] = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        list(run(request_of(model, drawn), place, cancelled=lambda: next(answers)))
    (made,) = run(request_of(model, drawn), place)
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(model))


def test_the_identity_knows_the_classes_of_a_layout_and_not_how_they_are_drawn(
    model: str, drawn: Path, tmp_path: Path
) -> None:
    colours = np.array([(255, 0, 0), (0, 0, 255)], dtype=np.uint8)
    for name, pixels in (("colours", colours[NUMBERS]), ("other", 1 - NUMBERS), ("turned", NUMBERS.T)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    own, same, other, turned = (
        request_of(model, tmp_path / f"{name}.png").identity()
        for name in ("map", "colours", "other", "turned")
    )
    assert own == same and own != other and own["layout"] != turned["layout"]


def test_the_identity_knows_how_closely_a_layout_is_followed(model: str, drawn: Path) -> None:
    assert request_of(model, drawn, 2.0).identity() != request_of(model, drawn).identity()


def test_the_identity_of_an_image_without_a_layout_has_no_word_of_it(model: str) -> None:
    written = asked(model, New(), Choices()).written()
    assert not written.keys() & {"layout", "obey"}


def test_a_film_shows_an_image_with_its_layout(model: str, drawn: Path, tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.png"), film=tmp_path / "a.gif")
    request = request_of(model, drawn, size=(None, None))
    assert [made.path for made in run(request, place)] == [place.out, str(place.film)]


@pytest.mark.parametrize(
    ("pixels", "more", "message"),
    [
        (
            NUMBERS + 1,
            [],
            "map.png: holds the value 2: must be numbers from 0 to 1, or the colours of stroma=",
        ),
        (
            np.dstack([NUMBERS, NUMBERS, NUMBERS + 9]),
            [],
            "map.png: holds the colour #000009: must be numbers",
        ),
        (NUMBERS, ["--obey", "20"], "--obey 20.0: must be from 0 to 10"),
        (
            NUMBERS,
            ["--layout", "tumour.geojson"],
            "tumour.geojson: feature 1 is of the class 'tumour': must be one of stroma, gland, or unknown",
        ),
        (NUMBERS, ["--layout", "no.png"], "no.png: there is no such file"),
        (NUMBERS, ["--out", "map.png"], "map.png: is given, and would be overwritten"),
    ],
)
def test_a_mistake_is_one_line(
    model: str,
    drawn: Path,
    pixels: np.ndarray,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(drawn.parent)
    Image.fromarray(pixels).save(drawn)
    polygons(drawn.parent / "tumour.geojson", name="tumour")
    assert main(["sample", model, "--layout", "map.png", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_layout_for_a_model_without_a_legend_is_refused_in_one_line(
    drawn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "aerial", "--layout", str(drawn)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "must be left out for the model" in line and "trained without layouts" in line


def test_to_obey_no_layout_is_refused_in_one_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", model, "--obey", "2"]) == 2
    assert capsys.readouterr().err == "diffnca: --obey 2.0: must be 1 without a layout; give one\n"
