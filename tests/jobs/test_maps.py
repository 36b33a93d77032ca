"""Images whose map another model makes: in memory, in tiles, stopped, as files, and what is refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.cli.main import main
from diffnca.config.model import with_fields
from diffnca.data.layouts import UNKNOWN
from diffnca.errors import Interrupted
from diffnca.formats.ome_zarr import read_pixels
from diffnca.formats.stores import attributes_of
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.plan import plan
from diffnca.jobs.request import Request, asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New
from diffnca.models.file import load
from diffnca.sampling.generate import generate
from diffnca.sampling.layouts import obeying, read_layout

from .conftest import small, write_small

CLASSES = {"layout.classes": ("stroma=#ff0000", "gland=#0000ff")}
SIZE = (40, 56)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The files of a small model that follows coarse maps, and of one that makes them."""
    folder = tmp_path_factory.mktemp("models")
    filler = {"layout.coarse": 4, "model.given_channels": 6, "data.crop": 16}
    maker = {"layout.made": True, "model.made_channels": 2, "sampling.steps": 2, "model.channels": 40}
    names = [
        write_small(folder / f"{name}.safetensors", with_fields(small(), CLASSES | changes))
        for name, changes in (("filler", filler), ("maker", maker))
    ]
    return names[0], names[1]


def request_of(models: tuple[str, str], size: tuple[int, int] = SIZE, seamless: str = "none") -> Request:
    choices = Choices(steps=3, seed=4, seamless=seamless)  # type: ignore[arg-type]
    return asked(models[0], New(), choices, size, maker=models[1])


def in_memory(models: tuple[str, str], boundary: tuple[str, str] = ("reflect", "reflect")) -> np.ndarray:
    filler, maker = (load(name) for name in models)
    height, width = SIZE
    made = generate(filler, height=height, width=width, seed=4, steps=3, maker=maker, boundary=boundary)
    return to_uint8(made)[0]


def drawn(places: np.ndarray, path: Path) -> Path:
    """Write a map of classes; -1 is transparent."""
    colours = np.array([(255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)], dtype=np.uint8)
    Image.fromarray(colours[places]).save(path)
    return path


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    """A map in which most places are free."""
    places = np.full((5, 7), -1)
    places[:, 0], places[2, 3:5] = 1, 0
    return drawn(places, tmp_path / "sketch.png")


def known_in(sketch: Path, size: tuple[int, int]) -> np.ndarray:
    """Return the classes of a map, as large as an image; 255 where they are free."""
    config = with_fields(small(), CLASSES | {"model.given_channels": 2})
    return read_layout(sketch, config).map.on(Canvas(*size).whole)[0].numpy()


def test_a_made_map_keeps_the_known_classes_of_a_layout(
    models: tuple[str, str], sketch: Path, tmp_path: Path
) -> None:
    command = f"sample {models[1]} --layout {sketch} --height 20 --width 28 --save-layout {tmp_path}/map.png"
    assert main([*command.split(), "--out", str(tmp_path / "a.png")]) == 0
    made, known = np.asarray(Image.open(tmp_path / "map.png")), known_in(sketch, (20, 28))
    assert np.array_equal(made[known != UNKNOWN], known[known != UNKNOWN])
    assert len(np.unique(made[known == UNKNOWN])) == 2


def test_what_a_layout_leaves_free_is_made_and_the_rest_kept(
    models: tuple[str, str], sketch: Path, tmp_path: Path
) -> None:
    command = f"sample {models[0]} --layout {sketch} --maker {models[1]} --height 40 --width 56 --steps 3"
    paths = ["--save-layout", str(tmp_path / "map.png"), "--out", str(tmp_path / "a.png")]
    assert main([*command.split(), *paths]) == 0
    made, known = np.asarray(Image.open(tmp_path / "map.png")), known_in(sketch, SIZE)
    assert np.array_equal(made[known != UNKNOWN], known[known != UNKNOWN])
    assert set(np.unique(made[known == UNKNOWN])) == {0, 1}


def sketched(models: tuple[str, str], sketch: Path) -> Request:
    config = load(models[0]).config
    new = New(layout=read_layout(sketch, config))
    return asked(models[0], new, Choices(steps=3, seed=4), SIZE, maker=models[1])


def test_tiles_of_a_completed_map_equal_the_whole_to_the_bit(
    models: tuple[str, str], sketch: Path, tmp_path: Path
) -> None:
    request = sketched(models, sketch)
    (whole,) = run(request, Place(out=str(tmp_path / "a.png")))
    (tiled,) = run(request, Place(out=str(tmp_path / "a.ome.zarr"), tile=32))
    np.testing.assert_array_equal(read_pixels(tiled.path), np.asarray(Image.open(whole.path)))


def test_python_completes_a_map_as_the_command_does(
    models: tuple[str, str], sketch: Path, tmp_path: Path
) -> None:
    (made,) = run(sketched(models, sketch), Place(out=str(tmp_path / "a.png")))
    filler, maker = (load(name) for name in models)
    signed = read_layout(sketch, filler.config).map.signed
    image = generate(filler, height=40, width=56, seed=4, steps=3, layout=signed, maker=maker)
    np.testing.assert_array_equal(np.asarray(Image.open(made.path)), to_uint8(image)[0])


def test_a_model_has_what_a_layout_leaves_free_made_by_its_own_maker(
    models: tuple[str, str], sketch: Path, tmp_path: Path
) -> None:
    own = with_fields(load(models[0]).config, {"layout.maker": models[1]})
    name = write_small(tmp_path / "own.safetensors", own)
    complete = drawn(np.zeros((5, 7), dtype=int), tmp_path / "complete.png")
    tasks = [New(layout=read_layout(path, own)) for path in (sketch, complete)]
    makers = [asked(name, task, Choices(), SIZE).maker for task in tasks]
    assert [maker and maker.name for maker in makers] == [models[1], None]


def test_a_map_that_is_made_cannot_be_obeyed_more_closely(models: tuple[str, str], sketch: Path) -> None:
    layout = read_layout(sketch, load(models[1]).config)
    with pytest.raises(ValueError, match="obey=2.0: must be 1 for a model that makes maps"):
        asked(models[1], New(layout=layout, obey=2.0), Choices(), (20, 28))


def test_a_model_is_no_layout(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", models[0], "--layout", models[1], "--out", str(tmp_path / "a.png")]) == 2
    assert f"or give --maker {models[1]}, if it is a model that makes maps" in capsys.readouterr().err


def test_a_command_makes_the_image_that_python_makes(models: tuple[str, str], tmp_path: Path) -> None:
    command = f"sample {models[0]} --maker {models[1]} --height 40 --width 56 --steps 3 --seed 4"
    assert main([*command.split(), "--out", str(tmp_path / "a.png")]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), in_memory(models))


@pytest.mark.parametrize(
    ("seamless", "boundary"), [("none", ("reflect", "reflect")), ("both", ("circular", "circular"))]
)
def test_tiles_equal_the_whole_to_the_bit(
    models: tuple[str, str], seamless: str, boundary: tuple[str, str], tmp_path: Path
) -> None:
    place = Place(out=str(tmp_path / "a.ome.zarr"), tile=32)
    (made,) = run(request_of(models, seamless=seamless), place)
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(models, boundary))


def test_the_map_of_a_large_image_is_the_image_of_its_maker(models: tuple[str, str], tmp_path: Path) -> None:
    list(run(request_of(models), Place(out=str(tmp_path / "a.ome.tif"), tile=32)))
    alone = generate(load(models[1]), height=10, width=14, seed=4)
    np.testing.assert_array_equal(read_pixels(str(tmp_path / "a.map.ome.zarr")), to_uint8(alone)[0])


@pytest.mark.parametrize("answered", [1, 2, 4])
def test_a_stopped_image_goes_on_and_is_the_same(
    models: tuple[str, str], answered: int, tmp_path: Path
) -> None:
    place = Place(out=str(tmp_path / "a.ome.zarr"), tile=32)
    answers: Iterator[bool] = iter([False] * answered + [True])
    with pytest.raises(Interrupted):
        list(run(request_of(models), place, cancelled=lambda: next(answers)))
    (made,) = run(request_of(models), place)
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(models))


def test_the_map_of_a_model_is_obeyed_as_closely_as_asked(models: tuple[str, str], tmp_path: Path) -> None:
    request = asked(models[0], New(obey=3.0), Choices(steps=3, seed=4), SIZE, maker=models[1])
    (made,) = run(request, Place(out=str(tmp_path / "a.png")))
    filler, maker = (load(name) for name in models)
    expected = generate(obeying(filler, 3.0), height=40, width=56, seed=4, steps=3, maker=maker)
    with Image.open(made.path) as image:
        np.testing.assert_array_equal(np.asarray(image), to_uint8(expected)[0])


def test_the_identity_knows_the_maker(models: tuple[str, str]) -> None:
    request = request_of(models)
    assert request.identity() != replace(request, maker=None).identity()


def test_a_saved_layout_makes_the_classes_of_the_image(models: tuple[str, str], tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.png"), save_layout=tmp_path / "map.png")
    assert [made.path for made in run(request_of(models), place)] == [place.out, str(place.save_layout)]
    numbers = np.asarray(Image.open(tmp_path / "map.png"))
    assert numbers.shape == SIZE and set(np.unique(numbers)) == {0, 1}


def test_a_saved_layout_of_a_maker_has_the_class_of_the_largest_plane(
    models: tuple[str, str], tmp_path: Path
) -> None:
    place = Place(out=str(tmp_path / "a.png"), save_layout=tmp_path / "map.png")
    list(run(asked(models[1], New(), Choices(seed=4), (10, 14)), place))
    planes = to_uint8(generate(load(models[1]), height=10, width=14, seed=4))[0, ..., 3:]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "map.png")), planes.argmax(axis=2))
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (10, 14, 3)


def test_a_saved_layout_is_written_for_each_image(models: tuple[str, str], tmp_path: Path) -> None:
    request = asked(models[0], New(), Choices(steps=1, count=2), (16, 16), maker=models[1])
    list(run(request, Place(out=str(tmp_path / "a.png"), save_layout=tmp_path / "map.png")))
    assert sorted(path.name for path in tmp_path.iterdir() if "map" in path.name) == [
        "map-000.png",
        "map-001.png",
    ]


@pytest.mark.parametrize("kind", ["made", "sketched", "given"])
def test_a_saved_layout_in_tiles_equals_that_in_memory(
    models: tuple[str, str], kind: str, sketch: Path, tmp_path: Path
) -> None:
    known = drawn(np.array([[0, 1, 0]]), tmp_path / "known.png")
    told = {"made": [], "sketched": ["--layout", str(sketch)], "given": ["--layout", str(known)]}[kind]
    told += [] if kind == "given" else ["--maker", models[1]]
    command, saved = f"sample {models[0]} --height 40 --width 56 --steps 1".split(), []
    for name, more in (("a.ome.zarr", ["--tile", "32"]), ("a.png", [])):
        layout = tmp_path / f"{len(more)}.png"
        words = ["--out", str(tmp_path / name), "--save-layout", str(layout)]
        assert main([*command, *told, *more, *words]) == 0
        saved.append(np.asarray(Image.open(layout)))
    np.testing.assert_array_equal(*saved)
    assert saved[0].shape == SIZE and set(np.unique(saved[0])) == {0, 1}


def test_a_saved_layout_of_a_model_of_maps_is_the_same_in_tiles(sketch: Path, tmp_path: Path) -> None:
    changes = {"layout.made": True, "model.made_channels": 2, "model.channels": 40, "sampling.steps": 2}
    changes |= {"layout.labels": ("a", "b"), "model.given_channels": 2}
    name = write_small(tmp_path / "labelled.safetensors", with_fields(small(), CLASSES | changes))
    led, saved = New(layout=read_layout(sketch, load(name).config), label="a", obey=2.0), []
    for place in (Place(out=str(tmp_path / "a.ome.zarr"), tile=32), Place(out=str(tmp_path / "a.png"))):
        list(run(asked(name, led, Choices(), SIZE), replace(place, save_layout=tmp_path / "map.png")))
        saved.append(np.asarray(Image.open(tmp_path / "map.png")))
    np.testing.assert_array_equal(*saved)


def test_a_film_of_a_model_that_makes_maps_shows_its_colours(models: tuple[str, str], tmp_path: Path) -> None:
    place = Place(out=str(tmp_path / "a.png"), film=tmp_path / "a.gif")
    list(run(asked(models[1], New(), Choices(), (10, 14)), place))
    with Image.open(tmp_path / "a.gif") as film:
        assert film.n_frames > 1


def test_the_layout_of_a_finished_image_is_saved_too(models: tuple[str, str], tmp_path: Path) -> None:
    request = asked(models[1], New(), Choices(seed=4), (10, 14))
    place, layout = Place(out=str(tmp_path / "a.ome.zarr")), tmp_path / "map.png"
    list(run(request, place))
    made = list(run(request, replace(place, save_layout=layout)))
    assert [(each.path, each.was_there) for each in made] == [(place.out, True), (str(layout), False)]
    planes = read_pixels(place.out)[..., 3:]
    np.testing.assert_array_equal(np.asarray(Image.open(layout)), planes.argmax(axis=2))


def test_a_layout_that_no_png_holds_is_refused_in_one_line(
    models: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.jobs.plan.LARGEST_IMAGE_PX", 1_000)
    place = Place(out=str(tmp_path / "a.ome.zarr"), save_layout=tmp_path / "map.png")
    message = (
        "^--save-layout: must be of at most 1,000 pixels, as it is a PNG file, not of 2,240; its map is .*"
    )
    with pytest.raises(ValueError, match=message + "a.map.ome.zarr$"):
        list(run(request_of(models), place))


def test_a_given_layout_is_saved_in_the_size_of_the_image(models: tuple[str, str], tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).save(tmp_path / "given.png")
    command = f"sample {models[0]} --height 4 --width 8 --steps 1 --layout {tmp_path / 'given.png'}"
    told = f"--out {tmp_path / 'a.png'} --save-layout {tmp_path / 'map.png'}"
    assert main([*command.split(), *told.split()]) == 0
    assert np.asarray(Image.open(tmp_path / "map.png")).tolist() == 4 * [[0, 0, 0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            "{0} --save-layout {2}/m.png",
            "--save-layout: must be of a model that makes or follows maps, with one",
        ),
        ("{0} --maker {1} --save-layout {2}/m.jpg", "must end in .png"),
        ("{0} --maker {1} --save-layout {2}/a.png", "must be another file than --out"),
        ("{1} --film {2}/m.png --save-layout {2}/m.png", "must be another file than --film"),
        ("{0} --maker {0}", "maker: must be a model that makes maps, and this one makes none"),
        ("{1} --tile 16", "must end in .ome.zarr for a model that makes maps too"),
    ],
)
def test_what_has_no_map_is_refused_in_one_line(
    models: tuple[str, str], told: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = (*models, tmp_path)
    size = ["--height", "16", "--width", "16", "--out", str(tmp_path / "a.png")]
    assert main(["sample", *told.format(*values).split(), *size]) != 0
    assert message.format(*values) in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_model_that_makes_maps_edits_no_images(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    assert (
        main(["vary", models[1], "--image", str(tmp_path / "x.png"), "--out", str(tmp_path / "y.png")]) != 0
    )
    assert "must edit images alone, but makes maps too" in capsys.readouterr().err


def test_a_maker_needs_a_model_that_knows_coarse_colours(models: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="a model that knows no coarse colours"):
        asked(models[1], New(), Choices(), (16, 16), maker=models[1])
    assert torch.is_grad_enabled()


def test_the_planes_of_a_map_take_room_too(models: tuple[str, str], tmp_path: Path) -> None:
    planned = plan(asked(models[1], New(), Choices(), (10, 14)), Place(out=str(tmp_path / "a.ome.zarr")))
    assert planned.finished_bytes == (3 + 2) * 10 * 14


def test_a_large_image_names_the_planes_of_its_map(models: tuple[str, str], tmp_path: Path) -> None:
    (made,) = run(asked(models[1], New(), Choices(), (10, 14)), Place(out=str(tmp_path / "a.ome.zarr")))
    omero = attributes_of(made.path)["ome"]["omero"]  # type: ignore[index]
    assert [channel["label"] for channel in omero["channels"]][3:] == ["stroma", "gland"]


def test_the_plan_of_a_large_image_says_who_makes_its_map(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"sample {models[0]} --maker {models[1]} --height 40 --width 56 --tile 16 --dry-run"
    assert main([*command.split(), "--out", str(tmp_path / "a.ome.zarr")]) == 0
    line = f"map      10x14 px, made first by {models[1]}: {tmp_path}/a.map.ome.zarr"
    assert line in capsys.readouterr().out


def test_a_map_that_a_model_makes_is_obeyed(models: tuple[str, str]) -> None:
    obeying = asked(models[0], New(obey=2.0), Choices(seed=4), SIZE, maker=models[1])
    assert obeying.identity() != replace(obeying, task=replace(obeying.task, obey=1.0)).identity()
    with pytest.raises(ValueError, match="obey=2.0: must be 1 without layout and label"):
        asked(models[0], New(obey=2.0), Choices(seed=4), SIZE)


def test_a_given_map_is_not_overwritten(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given.png"
    Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).save(given)
    before = given.read_bytes()
    command = f"sample {models[0]} --height 4 --width 8 --layout {given} --save-layout {given}"
    assert main([*command.split(), "--out", str(tmp_path / "a.png")]) != 0
    assert "given.png: is given, and would be overwritten" in capsys.readouterr().err
    assert given.read_bytes() == before


def test_a_map_is_made_by_the_engine_of_its_image(models: tuple[str, str]) -> None:
    request = asked(models[0], New(), Choices(engine="eager"), SIZE, maker=models[1])
    assert request.map().engine == "eager"


def test_images_with_saved_layouts_go_on(models: tuple[str, str], tmp_path: Path) -> None:
    request = asked(models[1], New(), Choices(count=2), (10, 14))
    place = Place(out=str(tmp_path / "a.png"), save_layout=tmp_path / "map.png")
    list(run(request, place))
    (tmp_path / "map-001.png").unlink()
    assert [made.was_there for made in run(request, place)] == [True, True, False, False]
    assert [made.was_there for made in run(request, place)] == [True] * 4


def test_maps_of_a_folder_of_images_do_not_share_a_file(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name in "ab":
        drawn(np.array([[0, 1], [1, 0]]), tmp_path / "images" / f"{name}.png")
    command = (
        f"vary {models[1]} --image {tmp_path}/images --out {tmp_path}/new --save-layout {tmp_path}/map.png"
    )
    assert main(command.split()) == 2
    assert "--save-layout: must be of a single --image" in capsys.readouterr().err
