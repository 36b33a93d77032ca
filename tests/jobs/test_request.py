"""What makes two images the same: all fields of a request, and nothing else."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnca import __version__
from diffnca.canvas.noise import MAX_SEED
from diffnca.canvas.region import Canvas
from diffnca.cli.main import main
from diffnca.config.recipes import recipe_named
from diffnca.data.given import Given
from diffnca.jobs.options import Choices
from diffnca.jobs.request import Request, Weights, asked, difference, text_of
from diffnca.jobs.tasks import Extend, Inpaint, Interpolate, New, Paste, Repaint, Upscale, Vary
from diffnca.models.build import build_model
from diffnca.models.file import write_model
from diffnca.sampling.generate import generate
from diffnca.sampling.layouts import Layout
from diffnca.sampling.maps import Raster

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
GIVEN = Given(Path("a.png"), PIXELS, None)
OTHER = Given(Path("a.png"), PIXELS[::-1].copy(), None)
OPEN = Given(Path("a.png"), PIXELS, torch.eye(2, 3) > 0)
MASK = torch.ones(2, 3) > 0
LAYOUT = Layout(Raster(torch.eye(2, 3, dtype=torch.uint8)[None]), 2)
OTHER_LAYOUT = Layout(Raster(1 - torch.eye(2, 3, dtype=torch.uint8)[None]), 2)
WEIGHTS = Weights("aerial", "0123456789abcdef")


def request(**changes: Any) -> Request:
    known = {
        "model": WEIGHTS,
        "canvas": Canvas(2, 3),
        "task": New(),
        "sampler": "ddim",
        "steps": 3,
        "seed": 4,
    }
    return Request(**{**known, **changes})


CHANGES: dict[str, Any] = {
    "model": Weights("aerial", "other"),
    "canvas": Canvas(2, 3, ("reflect", "circular")),
    "guide": WEIGHTS,
    "guidance": 1.5,
    "windows": 64,
    "engine": "eager",
    "task": Vary(GIVEN, 0.5),
    "maker": WEIGHTS,
    "sampler": "ddpm",
    "steps": 4,
    "seed": 5,
    "compression": "deflate",
    "halves": 1,
    "count": 2,
}
LEADING = {"layout": OTHER_LAYOUT, "label": "bark", "like": (0.5, -1.0), "obey": 2.0}

TASKS = [
    (
        New(layout=LAYOUT),
        {
            "region": (0, 0, 1, 1),
            "even_px": 8,
            "tone": (1.0, 0.0, 0.0),
            "grown": ((1, 1),),
            **LEADING,
        },
    ),
    (
        Inpaint(GIVEN, MASK, Repaint(5, 4), layout=LAYOUT),
        {
            "given": OTHER,
            "mask": ~MASK,
            "method": Repaint(5, 3),
            **LEADING,
        },
    ),
    (
        Extend(GIVEN, 1, 2, 3, 4, Paste(), layout=LAYOUT),
        {
            "given": OPEN,
            "top": 0,
            "bottom": 0,
            "left": 0,
            "right": 0,
            "method": Repaint(5, 4),
            **LEADING,
        },
    ),
    (
        Upscale(GIVEN, 2.0, "noise", None, layout=LAYOUT),
        {"given": OTHER, "factor": 3.0, "method": "consistent", "strength": 0.5, **LEADING},
    ),
    (Vary(GIVEN, 0.5, layout=LAYOUT), {"given": OTHER, "strength": 0.25, "size": (4, 6), **LEADING}),
    (
        Interpolate((1, 2), 3, 4, layout=LAYOUT),
        {"seeds": (1, 3), "frames": 4, "milliseconds": 5, "last_label": "moss", **LEADING},
    ),
]


def test_every_field_of_a_request_is_in_its_identity() -> None:
    assert set(CHANGES) == {each.name for each in fields(Request)}
    identities = [request(**{name: value}).identity() for name, value in CHANGES.items()]
    assert request().identity() not in identities


@pytest.mark.parametrize(("task", "changes"), TASKS, ids=lambda value: type(value).__name__)
def test_every_field_of_a_task_is_in_the_identity(task: Any, changes: dict[str, Any]) -> None:
    assert set(changes) == {each.name for each in fields(task)}
    identities = [request(task=replace(task, **{name: value})).identity() for name, value in changes.items()]
    assert request(task=task).identity() not in identities


def test_a_field_that_is_added_later_is_in_the_identity_where_it_differs_from_its_default() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Later(Request):
        stain: str = "none"

    known = {each.name: getattr(request(), each.name) for each in fields(Request)}
    assert Later(**known).identity() == request().identity()
    assert Later(**known, stain="blue").identity() == {**request().identity(), "stain": "blue"}


def test_the_name_of_a_model_and_of_a_file_are_not_in_the_identity() -> None:
    renamed = request(
        model=replace(WEIGHTS, name="elsewhere"), task=Vary(replace(GIVEN, path=Path("b")), 0.5)
    )
    assert renamed.identity() == request(task=Vary(GIVEN, 0.5)).identity()


def test_what_only_repaint_does_is_not_in_the_identity_of_paste() -> None:
    assert "rounds" not in request(task=Inpaint(GIVEN, MASK, Paste())).identity()


def test_a_new_image_says_what_images_have_always_said() -> None:
    new = New((0, 0, 1, 2), 16, (1.0, 0.0, -1.0), ((1, 2), (2, 2)))
    made = request(task=new, guide=WEIGHTS, guidance=2.0, windows=8, engine="eager", compression="jpeg")
    assert list(text_of(made).items()) == [
        ("Software", f"diffnca {__version__}"),
        ("diffnca:model", "aerial"),
        ("diffnca:weights", "0123456789abcdef"),
        ("diffnca:seamless", "none"),
        ("diffnca:guide", "aerial 0123456789abcdef"),
        ("diffnca:guidance", "2"),
        ("diffnca:windows", "8"),
        ("diffnca:engine", "eager"),
        ("diffnca:region", "0,0,1,2"),
        ("diffnca:sampler", "ddim"),
        ("diffnca:steps", "3"),
        ("diffnca:even_px", "16"),
        ("diffnca:tone", "(1.0, 0.0, -1.0)"),
        ("diffnca:grown", "1x2, 2x2"),
        ("diffnca:seed", "4"),
        ("diffnca:height", "2"),
        ("diffnca:width", "3"),
        ("diffnca:compression", "jpeg"),
    ]


def test_an_edited_image_says_what_images_have_always_said() -> None:
    text = text_of(request(task=Inpaint(OPEN, MASK, Repaint(5, 4))))
    assert {key: value for key, value in text.items() if key not in text_of(request())} == {
        "diffnca:task": "inpaint",
        "diffnca:image": "7a096cc12702bcfa",
        "diffnca:mask": "dfea2964b5deedea",
        "diffnca:method": "repaint",
        "diffnca:jump": "5",
        "diffnca:rounds": "4",
    }
    enlarged = text_of(request(task=Upscale(GIVEN, 2.0, "noise", None)))
    assert (enlarged["diffnca:factor"], enlarged["diffnca:strength"]) == ("2.0", "None")


@pytest.mark.parametrize(
    ("there", "other"),
    [
        ({}, None),
        ({"diffnca:model": "elsewhere", "Software": "diffnca 0.0.1", "dpi": "72"}, None),
        ({"diffnca:engine": "auto"}, None),
        ({"diffnca:engine": "eager"}, "of engine eager, this command says auto"),
        ({"diffnca:seed": "5"}, "of seed 5, this command says 4"),
        ({"diffnca:stain": "blue"}, "of stain blue, this command says none"),
    ],
    ids=str,
)
def test_an_image_is_the_same_if_all_is_that_changes_it(there: dict[str, str], other: str | None) -> None:
    assert difference({**text_of(request()), **there}, request()) == other


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": MAX_SEED + 1},
        {"seed": MAX_SEED, "count": 2},
        {"task": Interpolate((0, -1), 2, 1)},
    ],
    ids=str,
)
def test_seeds_that_do_not_exist_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="seed=.* must be from 0 to"):
        request(**change)


@pytest.mark.parametrize("numbers", [(1, 50), (10**8, 50), (2, 0), (2, 10**9)])
def test_films_that_cannot_be_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be from"):
        Interpolate((0, 1), *numbers)


def test_a_request_leaves_no_choice_to_the_model() -> None:
    made = asked("faces-4step", New(), Choices(), (128, 128))
    assert (made.sampler, made.steps, made.task) == ("ddim", 4, New(grown=((64, 64),)))
    assert asked("faces-4step", New(grown=()), Choices(), (128, 128)).task == New(grown=())
    assert asked("faces", New(), Choices()).canvas == Canvas(64, 64)


@pytest.mark.parametrize(("side", "halves"), [(64, 0), (128, 1), (256, 2)])
def test_files_say_how_many_smaller_canvases_an_estimate_agrees_with(side: int, halves: int) -> None:
    made = asked("faces", New(), Choices(), (side, side))
    assert made.halves == halves
    assert text_of(made).get("diffnca:halves") == (str(halves) if halves else None)


def test_the_halves_of_an_image_in_windows_are_those_of_a_window() -> None:
    made = [asked("faces", New(), Choices(windows=side), (256, 256)).halves for side in (64, 128)]
    assert made == [0, 1]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("--obey 2", "--obey 2.0: must be 1 without layout and label"),
        ("--steps 7 --sampler ddim", "must be without sampler, steps, as it draws an image at once"),
        ("--even-px 16 --tone 1 2 3", "must be without even_px, tone, as it draws an image at once"),
        ("--region 0,0,8,8", "must make whole images of 64x64 px with edges"),
        ("--seamless both", "must make whole images of 64x64 px with edges"),
        ("--save-layout {}/map.png", "--save-layout: must be of a model that makes or follows maps"),
    ],
)
def test_an_autoencoder_is_led_by_nothing(
    told: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_model(recipe_named("vnca"))
    write_model(tmp_path / "vnca.safetensors", model.network.state_dict(), model.config, {})
    command = ["sample", str(tmp_path / "vnca.safetensors"), "--out", str(tmp_path / "a.png")]
    assert main([*command, *told.format(tmp_path).split()]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="must be without obey, as it draws an image at once"):
        generate(model, height=32, width=32, obey=2.0)
