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
from diffnca.data.given import read_drawing, read_image
from diffnca.errors import Interrupted
from diffnca.formats.ome_zarr import read_pixels
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.request import Request, asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New, drawn
from diffnca.models.file import load, read_config
from diffnca.sampling.generate import generate
from diffnca.sampling.inpaint import inpaint
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a small model that knows no layouts."""
    return write_small(tmp_path_factory.mktemp("model") / "plain.safetensors", small())


@pytest.fixture
def drawn_map(tmp_path: Path) -> Path:
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
    model: str, drawn_map: Path, obey: float, tmp_path: Path
) -> None:
    out = str(tmp_path / "a.png")
    assert main(["sample", model, *SIZE, "--layout", str(drawn_map), "--obey", str(obey), "--out", out]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), in_memory(model, obey))


def test_an_image_has_the_size_of_its_layout(model: str, drawn_map: Path) -> None:
    canvas = request_of(model, drawn_map, size=(None, None)).canvas
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
def test_tiles_equal_the_whole_to_the_bit(model: str, drawn_map: Path, obey: float, tmp_path: Path) -> None:
    out = tmp_path / "a.ome.zarr"
    (made,) = run(request_of(model, drawn_map, obey), Place(out=str(out), tile=32))
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(model, obey))


def test_a_stopped_image_goes_on_and_is_the_same(model: str, drawn_map: Path, tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.ome.zarr"), tile=32)
    answers: Iterator[bool] = iter([False] * 3 + [True])
    with pytest.raises(Interrupted):
        list(run(request_of(model, drawn_map), place, cancelled=lambda: next(answers)))
    (made,) = run(request_of(model, drawn_map), place)
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(model))


def test_the_identity_knows_the_classes_of_a_layout_and_not_how_they_are_drawn(
    model: str, drawn_map: Path, tmp_path: Path
) -> None:
    colours = np.array([(255, 0, 0), (0, 0, 255)], dtype=np.uint8)
    for name, pixels in (("colours", colours[NUMBERS]), ("other", 1 - NUMBERS), ("turned", NUMBERS.T)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    own, same, other, turned = (
        request_of(model, tmp_path / f"{name}.png").identity()
        for name in ("map", "colours", "other", "turned")
    )
    assert own == same and own != other and own["layout"] != turned["layout"]


def test_the_identity_knows_how_closely_a_layout_is_followed(model: str, drawn_map: Path) -> None:
    assert request_of(model, drawn_map, 2.0).identity() != request_of(model, drawn_map).identity()


def test_the_identity_of_an_image_without_a_layout_has_no_word_of_it(model: str) -> None:
    written = asked(model, New(), Choices()).written()
    assert not written.keys() & {"layout", "obey"}


def test_a_film_shows_an_image_with_its_layout(model: str, drawn_map: Path, tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.png"), film=tmp_path / "a.gif")
    request = request_of(model, drawn_map, size=(None, None))
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
    drawn_map: Path,
    pixels: np.ndarray,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(drawn_map.parent)
    Image.fromarray(pixels).save(drawn_map)
    polygons(drawn_map.parent / "tumour.geojson", name="tumour")
    assert main(["sample", model, "--layout", "map.png", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


COLOURS = np.array([(212, 150, 205), (130, 80, 165)], dtype=np.uint8)


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """A flat drawing for a model that knows no layouts."""
    Image.fromarray(COLOURS[NUMBERS]).save(tmp_path / "drawing.png")
    return tmp_path / "drawing.png"


def test_a_model_without_a_legend_varies_the_drawing(
    plain: str, drawing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, vary = str(tmp_path / "a.png"), ["vary", plain, "--image", str(drawing), "--strength", "0.75"]
    assert main(["sample", plain, "--layout", str(drawing), "--out", out]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "knows no layouts: drawing.png is taken for a drawing" in line
    assert main([*vary, "--out", str(tmp_path / "b.png")]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(tmp_path / "b.png")))


def test_the_places_of_a_stretched_drawing_are_kept(plain: str, drawing: Path, tmp_path: Path) -> None:
    """Even a model with random weights keeps the drawing at its start: pixels of one colour resemble it."""
    task = drawn(read_drawing(drawing, 3), 40, None)
    (made,) = run(asked(plain, task, Choices(steps=3)), Place(out=str(tmp_path / "a.png")))
    pixels = np.asarray(Image.open(made.path)).astype(float)
    places = np.kron(NUMBERS, np.ones((2, 2), dtype=np.uint8))
    assert pixels.shape == (40, 56, 3)
    assert pixels[places == 0].mean() > pixels[places == 1].mean() + 5


def test_a_stretched_drawing_in_tiles_equals_the_whole_to_the_bit(
    plain: str, drawing: Path, tmp_path: Path
) -> None:
    request = asked(plain, drawn(read_drawing(drawing, 3), None, 90), Choices(steps=3))
    zarr, png = tmp_path / "a.ome.zarr", tmp_path / "a.png"
    list(run(request, Place(out=str(zarr), tile=32)))
    list(run(request, Place(out=str(png))))
    np.testing.assert_array_equal(read_pixels(str(zarr)), np.asarray(Image.open(png)))


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("map.png", [], "map.png: holds class numbers, and the model knows no classes; draw in the "),
        ("a.geojson", [], "a.geojson: holds polygons, and the model knows no classes; draw in the "),
        ("drawing.png", ["--obey", "2"], "--obey: must be left out with a drawing; "),
        ("drawing.png", ["--region", "0,0,4,4"], "--region: must be left out with a drawing; "),
        ("none.png", [], "none.png: there is no such file"),
    ],
)
def test_what_is_no_drawing_for_a_model_without_a_legend_is_refused_in_one_line(
    name: str,
    more: list[str],
    message: str,
    plain: str,
    drawn_map: Path,
    drawing: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    polygons(drawn_map.parent / "a.geojson")
    assert main(["sample", plain, "--layout", str(drawn_map.parent / name), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A picture with a hole."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[10:30, 8:40, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


QUICK = ["--steps", "3", "--rounds", "2", "--seed", "4"]


def test_a_filled_hole_is_the_one_that_python_fills(
    model: str, photo: Path, drawn_map: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "a.png", read_image(photo, 3)
    command = ["inpaint", model, "--image", str(photo), *QUICK, "--out", str(out)]
    assert main([*command, "--layout", str(drawn_map), "--obey", "2.5"]) == 0
    options = {"steps": 3, "rounds": 2, "seed": 4, "layout": torch.from_numpy(NUMBERS), "obey": 2.5}
    filled = inpaint(load(model), given.image, given.holes, **options)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), to_uint8(filled)[0])


def test_a_layout_says_what_fills_a_hole_and_changes_nothing_else(model: str, photo: Path) -> None:
    given, options = read_image(photo, 3), {"steps": 3, "rounds": 1, "seed": 4}
    maps = torch.from_numpy(NUMBERS), torch.from_numpy(1 - NUMBERS)
    one, other = (inpaint(load(model), given.image, given.holes, layout=each, **options) for each in maps)
    is_changed = (one != other).any(dim=1)[0]
    assert is_changed.any() and not is_changed[~given.holes].any()


def test_an_extension_in_tiles_equals_the_whole_to_the_bit(
    model: str, photo: Path, drawn_map: Path, tmp_path: Path
) -> None:
    """The map lies on the whole result: 60x84 px, in proportion to the 20x28 px of the map."""
    command = ["extend", model, "--image", str(photo), "--bottom", "20", "--right", "28", *QUICK]
    command += ["--layout", str(drawn_map), "--obey", "2"]
    zarr, png = str(tmp_path / "a.ome.zarr"), str(tmp_path / "a.png")
    assert main([*command, "--tile", "32", "--out", zarr]) == main([*command, "--out", png]) == 0
    np.testing.assert_array_equal(read_pixels(zarr), np.asarray(Image.open(png)))


@pytest.mark.parametrize("edit", ["vary", "upscale"])
def test_an_edit_by_a_layout_in_tiles_equals_the_whole_to_the_bit(
    model: str, drawn_map: Path, tmp_path: Path, edit: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    command = [edit, model, "--image", str(tmp_path / "x.png"), "--steps", "3", "--obey", "2"]
    zarr, made = str(tmp_path / "a.ome.zarr"), []
    for layout, more in ((drawn_map, ["--tile", "32", "--out", zarr]), (drawn_map, []), (None, [])):
        words = ["--layout", str(layout)] if layout else ["--obey", "1"]
        out = str(tmp_path / f"{len(made)}.png")
        assert main([*command, "--out", out, *words, *more]) == 0
        made.append(read_pixels(zarr) if more else np.asarray(Image.open(out)))
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[1] != made[2]).any()


def test_a_film_has_the_size_and_the_places_of_its_layout(
    model: str, drawn_map: Path, tmp_path: Path
) -> None:
    words = f"--seeds 4 5 --frames 2 --steps 1 --layout {drawn_map} --out {tmp_path / 'frames'}"
    assert main(["interpolate", model, *words.split()]) == 0
    layout = torch.from_numpy(NUMBERS)
    first = generate(load(model), height=20, width=28, seed=4, steps=1, layout=layout)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "frames/0000.png")), to_uint8(first)[0])


def test_polygons_lie_on_the_whole_result_of_an_extension(model: str, photo: Path, tmp_path: Path) -> None:
    numbers, same = np.zeros((40, 60), dtype=np.uint8), tmp_path / "same.png"
    numbers[5:40, 10:58] = 1
    Image.fromarray(numbers).save(same)
    command, made = ["extend", model, "--image", str(photo), "--left", "4", *QUICK], []
    for layout, out in ((polygons(tmp_path / "drawn.geojson", 58), "a.png"), (str(same), "b.png")):
        assert main([*command, "--layout", layout, "--out", str(tmp_path / out)]) == 0
        made.append(np.asarray(Image.open(tmp_path / out)))
    np.testing.assert_array_equal(*made)


def test_each_image_of_a_folder_has_the_layout_of_its_name(
    model: str, photo: Path, drawn_map: Path, tmp_path: Path
) -> None:
    for folder, file in (("photos", photo), ("maps", drawn_map)):
        (tmp_path / folder).mkdir()
        file.rename(tmp_path / folder / "x.png")
    made = []
    for photos, maps, out in (("photos", "maps", "made"), ("photos/x.png", "maps/x.png", "made.png")):
        command = ["inpaint", model, "--image", str(tmp_path / photos), "--layout", str(tmp_path / maps)]
        assert main([*command, *QUICK, "--out", str(tmp_path / out)]) == 0
        made.append(np.asarray(Image.open(tmp_path / ("made/x.png" if out == "made" else out))))
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize(
    ("of", "more", "message"),
    [
        ("model", ["--layout", "turned.png"], "photo.png: layout of 28x20 px: must have the proportions of "),
        ("model", ["--layout", "no.png"], "no.png: there is no such file"),
        ("model", ["--layout", "map.png", "--out", "map.png"], "map.png: is given, and would be overwritten"),
        ("model", ["--obey", "2"], "--obey 2.0: must be 1 without layout and label; give one"),
        ("plain", ["--layout", "map.png"], "--layout: must be left out for a model that was "),
    ],
)
def test_a_mistake_with_the_layout_of_an_edit_is_one_line(
    of: str,
    more: list[str],
    message: str,
    photo: Path,
    drawn_map: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photo.parent)
    Image.fromarray(NUMBERS.T).save("turned.png")
    command = ["inpaint", request.getfixturevalue(of), "--image", "photo.png", "--out", "a.png"]
    assert main([*command, *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_to_obey_no_layout_is_refused_in_one_line(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", model, "--obey", "2"]) == 2
    assert capsys.readouterr().err == "diffnca: --obey 2.0: must be 1 without layout and label; give one\n"
