"""Images whose map another model makes: in memory, in tiles, stopped, as files, and what is refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
from diffnca.models.file import load
from diffnca.sampling.generate import generate
from diffnca.sampling.layouts import obeying

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
    made = generate(filler, height=height, width=width, seed=4, steps=3, layout=maker, boundary=boundary)
    return to_uint8(made)[0]


def test_a_model_that_makes_maps_follows_none(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "map.png")
    command = ["sample", models[1], "--layout", str(tmp_path / "map.png")]
    assert main([*command, "--out", str(tmp_path / "a.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "layout: must be left out for the model" in line and "makes maps itself" in line


def test_a_command_makes_the_image_that_python_makes(models: tuple[str, str], tmp_path: Path) -> None:
    command = f"sample {models[0]} --layout {models[1]} --height 40 --width 56 --steps 3 --seed 4"
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
    expected = generate(obeying(filler, 3.0), height=40, width=56, seed=4, steps=3, layout=maker)
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
    planes = generate(load(models[1]), height=10, width=14, seed=4)[0, 3:]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "map.png")), planes.argmax(dim=0).numpy())
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (10, 14, 3)


def test_a_saved_layout_is_written_for_each_image(models: tuple[str, str], tmp_path: Path) -> None:
    request = asked(models[0], New(), Choices(steps=1, count=2), (16, 16), maker=models[1])
    list(run(request, Place(out=str(tmp_path / "a.png"), save_layout=tmp_path / "map.png")))
    assert sorted(path.name for path in tmp_path.iterdir() if "map" in path.name) == [
        "map-000.png",
        "map-001.png",
    ]


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
        (
            "{0} --layout {1} --tile 16 --save-layout {2}/m.png",
            "the map of a large one is {2}/a.map.ome.zarr",
        ),
        ("{0} --layout {1} --save-layout {2}/m.jpg", "must end in .png"),
        ("{0} --layout {1} --save-layout {2}/a.png", "must be another file than --out"),
        ("{0} --layout {0}", "must be a map or a model that makes maps, which"),
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
    with pytest.raises(ValueError, match="which knows no coarse colours"):
        asked(models[1], New(), Choices(), (16, 16), maker=models[1])
    assert torch.is_grad_enabled()


def test_the_plan_of_a_large_image_says_who_makes_its_map(
    models: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"sample {models[0]} --layout {models[1]} --height 40 --width 56 --tile 16 --dry-run"
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
