"""Images with a label as a user asks for them: with maps and without, identity, tiles, restart, mistakes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from diffnca import extend, interpolate, upscale, vary
from diffnca.canvas.pixels import to_model, to_uint8
from diffnca.cli.main import main
from diffnca.config.model import with_fields
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

CLASSES = {"layout.classes": ("stroma=#ff0000", "gland=#0000ff")}
LABELS = {"layout.labels": ("bark", "moss")}
SIZE = ["--height", "40", "--width", "56", "--steps", "3", "--seed", "4"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of small models with labels: one alone, one that follows maps, one that makes them."""
    folder = tmp_path_factory.mktemp("models")
    filler = CLASSES | {"layout.coarse": 4, "model.given_channels": 8, "data.crop": 16}
    maker = {"layout.made": True, "model.made_channels": 2, "sampling.steps": 2, "model.channels": 40}
    changes = {"alone": {}, "filler": filler, "maker": CLASSES | maker}
    return {
        name: write_small(
            folder / f"{name}.safetensors", with_fields(small(), LABELS | {"model.given_channels": 2} | each)
        )
        for name, each in changes.items()
    }


def request_of(models: dict[str, str], kind: str, label: str | None = "moss", obey: float = 1.0) -> Request:
    maker = models["maker"] if kind == "filler" else None
    return asked(models[kind], New(label=label, obey=obey), Choices(steps=3, seed=4), (40, 56), maker=maker)


def in_memory(models: dict[str, str], kind: str, obey: float = 1.0) -> np.ndarray:
    maker = load(models["maker"]) if kind == "filler" else None
    model, sides = load(models[kind]), {"height": 40, "width": 56}
    return to_uint8(generate(model, **sides, seed=4, steps=3, maker=maker, label="moss", obey=obey))[0]


@pytest.mark.parametrize(("kind", "obey"), [("alone", 1.0), ("alone", 2.5), ("filler", 1.0)])
def test_a_command_makes_the_image_that_python_makes(
    models: dict[str, str], kind: str, obey: float, tmp_path: Path
) -> None:
    out = str(tmp_path / "a.png")
    map_of = ["--maker", models["maker"]] if kind == "filler" else []
    told = ["--label", "moss", "--obey", str(obey), "--out", out]
    assert main(["sample", models[kind], *SIZE, *map_of, *told]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), in_memory(models, kind, obey))
    assert read_png_text(Path(out))["diffnca:label"] == "moss"


@pytest.mark.parametrize("kind", ["alone", "filler"])
def test_tiles_equal_the_whole_to_the_bit(models: dict[str, str], kind: str, tmp_path: Path) -> None:
    (made,) = run(request_of(models, kind), Place(out=str(tmp_path / "a.ome.zarr"), tile=32))
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(models, kind))


@pytest.mark.parametrize("answered", [1, 4])
def test_a_stopped_image_goes_on_and_is_the_same(
    models: dict[str, str], answered: int, tmp_path: Path
) -> None:
    place = Place(out=str(tmp_path / "a.ome.zarr"), tile=32)
    answers: Iterator[bool] = iter([False] * answered + [True])
    with pytest.raises(Interrupted):
        list(run(request_of(models, "filler"), place, cancelled=lambda: next(answers)))
    (made,) = run(request_of(models, "filler"), place)
    np.testing.assert_array_equal(read_pixels(made.path), in_memory(models, "filler"))


def test_a_label_stands_beside_a_map(models: dict[str, str], tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).save(tmp_path / "map.png")
    made = []
    for label in ("bark", "moss"):
        out = tmp_path / f"{label}.png"
        told = ["--layout", str(tmp_path / "map.png"), "--label", label, "--out", str(out)]
        assert main(["sample", models["filler"], *SIZE, *told]) == 0
        made.append(np.asarray(Image.open(out)))
    assert (made[0] != made[1]).any()


@pytest.mark.parametrize(
    ("edit", "told"), [(extend, {"right": 8}), (vary, {"strength": 0.6}), (upscale, {"factor": 1.5})]
)
def test_an_edit_makes_what_python_makes_with_its_label(
    models: dict[str, str], edit: Callable[..., Tensor], told: dict[str, float], tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    words = f"--image {tmp_path / 'x.png'} --out {tmp_path / 'y.png'} --label moss --obey 2 --steps 2"
    words += "".join(f" --{name} {value}" for name, value in told.items())
    assert main([edit.__name__, models["alone"], *words.split()]) == 0
    image = to_model(pixels)[None]
    expected = edit(load(models["alone"]), image, **told, steps=2, label="moss", obey=2.0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.png")), to_uint8(expected)[0])
    assert read_png_text(tmp_path / "y.png")["diffnca:label"] == "moss"


def test_a_film_leads_from_one_label_to_the_other(models: dict[str, str], tmp_path: Path) -> None:
    words = f"--seeds 1 2 --out {tmp_path / 'frames'} --frames 3 --height 16 --width 16 --steps 2 --batch 2"
    assert main(["interpolate", models["alone"], *words.split(), "--label", "moss", "bark"]) == 0
    options = {"height": 16, "width": 16, "steps": 2, "label": ["moss", "bark"]}
    expected = to_uint8(interpolate(load(models["alone"]), (1, 2), [0.0, 0.5, 1.0], **options))
    made = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "frames").iterdir())]
    np.testing.assert_array_equal(np.stack(made), expected)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("moss oak", "--label oak: must be one of the labels of the model: bark, moss"),
        ("a b c", "--label a b c: must be one label, or those of both images"),
    ],
)
def test_labels_that_lead_nowhere_are_refused_in_one_line(
    models: dict[str, str], label: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"--seeds 1 2 --out {tmp_path / 'a.gif'} --label {label}"
    assert main(["interpolate", models["alone"], *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_identity_knows_the_label(models: dict[str, str]) -> None:
    found = [request_of(models, "alone", label).identity() for label in ("bark", "moss", None)]
    assert found[0]["label"] == "bark" and "label" not in found[2]
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("{alone} --label oak", "--label oak: must be one of the labels of the model: bark, moss"),
        ("aerial --label oak", "--label: must be left out for a model that was trained without"),
        ("{alone} --label moss --layout x.png", "--label: must be left out with a drawing; "),
        ("{filler} --maker {maker} --label oak", "--label oak: must be one of the labels"),
    ],
)
def test_what_is_no_label_is_refused_in_one_line(
    models: dict[str, str], told: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = told.format(**models).split()
    assert main(["sample", *words, *SIZE, "--out", str(tmp_path / "a.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not any(tmp_path.iterdir())
