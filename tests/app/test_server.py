"""The page over HTTP: what is served, and what the hostile get."""

import base64
import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.app.owner import Options, Owner
from diffnca.app.server import bound, quiet, serve, warm
from diffnca.app.sessions import FIELDS, Sessions
from diffnca.app.works import Works
from diffnca.config.model import Config, DataConfig
from diffnca.config.networks import CellConfig, NCAConfig, VNCAConfig
from diffnca.data.given import read_image
from diffnca.models.build import build_model
from diffnca.models.file import MODEL_FILE, write_model

from .conftest import Page, png

SMALL = Config(model=NCAConfig(channels=8, cell=CellConfig(hidden=16, num_cell_steps=2)))
VNCA = Config(
    data=DataConfig(crop=16),
    model=VNCAConfig(
        size=16, latent=12, hidden=8, num_residual_blocks=1, encoder_channels=2, num_cell_steps=2
    ),
)


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with bound(0) as held, pytest.raises(ValueError, match="take another, or 0 for a free one") as refusal:
        serve(Options(work=tmp_path / "work", port=held.getsockname()[1]))
    assert "\n" not in str(refusal.value)


def test_only_this_machine_is_answered() -> None:
    with bound(0) as held:
        assert held.getsockname()[0] == "127.0.0.1"


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file or folder"):
        serve(Options(models=("nothing",), work=tmp_path / "work"))


def small_model(path: Path, config: Config = SMALL) -> Path:
    path.parent.mkdir(parents=True)
    write_model(path, build_model(config).network.state_dict(), config, {})
    return path


def test_models_are_offered_by_their_folders(tmp_path: Path) -> None:
    paths = [small_model(tmp_path / folder / MODEL_FILE) for folder in ("ra", "r.b")]
    options = Options(models=(str(paths[0]), str(paths[1].parent)), work=tmp_path / "work")
    options.check()
    with Owner(options, Sessions(), Works()) as owner:
        assert list(owner.models())[:2] == ["ra", "r.b"]


@pytest.mark.parametrize("other", ["b/mine", "work/runs/mine"])
def test_two_models_of_one_name_are_refused_at_the_start(other: str, tmp_path: Path) -> None:
    folders = [small_model(tmp_path / folder / MODEL_FILE).parent for folder in ("a/mine", other)]
    named = tuple(str(folder) for folder in folders if tmp_path / "work" not in folder.parents)
    with pytest.raises(ValueError, match="must have different names, not both mine; rename") as refusal:
        Options(models=named, work=tmp_path / "work").check()
    assert "\n" not in str(refusal.value)


def test_a_model_that_makes_no_such_image_does_not_disturb_the_start(tmp_path: Path) -> None:
    path = small_model(tmp_path / "one" / "vnca.safetensors", VNCA)
    with Owner(Options(models=(str(path),), work=tmp_path / "work"), Sessions(), Works()) as owner:
        warm(owner)


def test_a_stop_with_an_open_tab_prints_nothing_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffnca", "app", "--no-open", "--port", "0", "--work", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.readline()
        port = int(told.partition("127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/gradio_api/heartbeat/open")
        connection.getresponse().readline()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert told.endswith("makes images on this machine; stop with Ctrl-C\n")
    assert (process.returncode, rest) == (0, "")


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--data .*: is no folder"):
        serve(Options(data=tmp_path / "file", work=tmp_path / "work"))
    with pytest.raises(ValueError, match="--work .*: is a file"):
        serve(Options(work=tmp_path / "file"))


def test_gradio_takes_no_choice_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "/")
    quiet(tmp_path)
    chosen = {name: value for name, value in os.environ.items() if name.startswith("GRADIO_")}
    assert chosen == {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(tmp_path)}


def test_the_other_verbs_do_not_import_gradio() -> None:
    code = "import sys, diffnca.cli.main as m; m.parse(['app']); assert 'gradio' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def made(page: Page, tab: str, seed: int, *changed: Any) -> str:
    """Return what the tab `Make` shows; an image of 32x32 pixels."""
    fields = ["pathology-4step", seed, 1, 32, 32, "any", 1, 0, 0, "none"]
    for index, value in changed:
        fields[index] = value
    shown: str = page.event(tab, "Make", fields, "click")[0]
    return shown


def test_the_page_names_no_other_machine(page: Page) -> None:
    text = page.get("/")[1] + page.get("/theme.css")[1] + page.get("/config")[1]
    loaded = rb"""(?:src|href)\s*=\s*["']https?:[^"']+|url\(["']?https?:[^)]+|@import\s+[^;]+"""
    found = [each for each in re.findall(loaded, text) if f"127.0.0.1:{page.port}".encode() not in each]
    assert found == []


def test_an_image_is_made_as_the_command_line_makes_it(page: Page, tmp_path: Path) -> None:
    from diffnca.cli.main import main

    shown = made(page, "one", 3)
    address = shown.split('src="')[1].split('"')[0]
    words = "sample pathology-4step --height 32 --width 32 --seed 3 --out"
    assert main([*words.split(), str(tmp_path / "a.png")]) == 0
    own = np.asarray(Image.open(io.BytesIO(page.get(address)[1])))
    assert np.array_equal(own, np.asarray(Image.open(tmp_path / "a.png")))


def test_two_users_at_once_get_their_own_images(page: Page) -> None:
    shown: dict[str, str] = {}
    threads = [
        threading.Thread(
            target=lambda tab, seed: shown.update({tab: made(page, tab, seed)}), args=(f"t{seed}", seed)
        )
        for seed in (5, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "seed 5" in shown["t5"] and "seed 6" in shown["t6"]
    assert page.owner.sessions.of("t5").last != page.owner.sessions.of("t6").last


@pytest.mark.parametrize(
    ("button", "values", "size"),
    [
        ("Extend", [0, 16, 8, 8], "48 × 48 px"),
        ("Enlarge", [1.5], "48 × 48 px"),
        ("Vary", [0.5], "32 × 32 px"),
    ],
)
def test_a_picture_is_edited(button: str, values: list[float], size: str, page: Page) -> None:
    page.event(button, "Upload a picture", [page.upload("own.png", png(32, 32))], "upload")
    (shown, *_) = page.event(button, button, ["pathology-4step", 0, 1, *values], "click")
    assert size in shown and "error" not in shown


def test_a_drawing_grows_in_the_style_of_a_picture_as_on_the_command_line(page: Page, tmp_path: Path) -> None:
    from diffnca.cli.main import main

    own, drawing = tmp_path / "own.png", tmp_path / "drawing.png"
    own.write_bytes(png(32, 32))
    numbers = Image.new("P", (16, 16), 0)
    numbers.putpalette([216, 160, 208, 80, 48, 138])  # background and nucleus
    numbers.paste(1, (4, 4, 9, 9))
    numbers.convert("RGB").save(drawing)
    painted = "data:image/png;base64," + base64.b64encode(drawing.read_bytes()).decode()
    told = page.event("like", "A picture whose style it has", [page.upload("own.png", png(32, 32))], "upload")
    assert "in the style of own.png" in told[0]
    (shown,) = page.event("like", "Grow", [painted, "nuclei", 256, 3, 1, 1], "click")
    made = np.asarray(Image.open(io.BytesIO(page.get(shown.split('src="')[1].split('"')[0])[1])))
    words = f"sample nuclei --layout {drawing} --like {own} --height 256 --width 256 --seed 3 --steps 1 --out"
    assert main([*words.split(), str(tmp_path / "a.png")]) == 0
    assert np.array_equal(made, np.asarray(Image.open(tmp_path / "a.png")))


def test_a_training_without_the_maps_that_it_names_gives_one_line(page: Page) -> None:
    file = page.upload("leaf.png", png())
    told = page.event("maps", "Upload pictures", [[file], "leaf"], "upload")[0]
    assert "1 pictures are here, 1 labels" in told
    fields = ["uploaded pictures", "mine", 5, "auto", "uploaded maps", "", True]
    assert "there are no uploaded maps: must be uploaded" in page.event("maps", "Train", fields, "click")[0]


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (3, 100_000, "must be at most 1,048,576 pixels here"),
        (2, 1000, "count=1000: must be at most 16"),
        (1, -1, "seed=-1: must be from 0 to"),
        (6, 2, "obey=2.0: must be 1 without layout and label"),
        (3, 0, "height"),
    ],
)
def test_a_wrong_number_gives_the_line_of_the_command_line(
    index: int, value: int, message: str, page: Page
) -> None:
    shown = made(page, "errors", 0, (index, value))
    assert 'class="line error"' in shown and message in shown and "\n" not in shown


def test_a_model_that_is_not_offered_is_refused(page: Page) -> None:
    with pytest.raises(ValueError, match="not in the list of choices"):
        made(page, "errors", 0, (0, "/etc/passwd"))
    with pytest.raises(ValueError, match="model=/etc/passwd: must be one of pathology-4step"):
        page.owner.model("/etc/passwd")


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "<script>alert(1)</script>.png"])
def test_an_upload_stays_in_the_folder_of_the_page_whatever_its_name(name: str, page: Page) -> None:
    file = page.upload(name, png())
    assert Path(file["path"]).resolve().is_relative_to(page.owner.sessions.folder)
    shown = page.event("uploads", "Upload a picture", [file], "upload")[0]
    assert "error" not in shown and "<script" not in shown and not Path(file["path"]).exists()


def test_a_picture_has_the_name_that_the_person_knows(page: Page) -> None:
    file = page.upload("holiday.jpg", png())
    assert "holiday.jpg" in page.event("named", "Upload a picture", [file], "upload")[0]
    made(page, "named", 4)
    assert "pathology-4step-4.png" in page.event("named", "Take the last image", [], "click")[0]


def test_a_corrupt_upload_gives_one_line(page: Page) -> None:
    file = page.upload("<b>holiday.png", b"no picture at all")
    shown = page.event("corrupt", "Upload a picture", [file], "upload")[0]
    assert 'class="line error"' in shown and "holiday" in shown and "unreadable" in shown
    assert "<b>" not in shown and str(page.owner.sessions.folder) not in shown


def test_looks_at_the_tabs_of_a_picture_change_nothing(page: Page) -> None:
    page.event("looks", "Upload a picture", [page.upload("own.png", png())], "upload")
    classes = {each["id"]: each["props"].get("elem_classes") or [] for each in page.config["components"]}
    looks = [
        each["id"]
        for each in page.config["dependencies"]
        if any(event == "select" for _, event in each["targets"])
        and any("picture" in classes[output] for output in each["outputs"])
    ]
    told: list[list[Any]] = []
    for _ in range(2):
        for look in looks:
            page.join("looks", look, [])
        told.append([message["output"]["data"] for message in page.completed("looks", len(looks))])
    assert len(looks) == 4 and told[0] == told[1]
    assert len(list(page.owner.sessions.of("looks").folder.iterdir())) == 1


def events_of_the_picture(page: Page) -> dict[str, int]:
    """Return the numbers of the events that choose the picture of the last tab that has one."""
    classes = {each["id"]: each["props"].get("elem_classes") for each in page.config["components"]}
    (*_, picture) = [name for name, given in classes.items() if given and "picture" in given]
    upload, take, _, select = [
        each["id"] for each in page.config["dependencies"] if picture in each["outputs"]
    ]
    return {"upload": upload, "take": take, "select": select}


def test_a_fast_answer_about_the_picture_comes_after_a_slow_one_that_was_asked_before(page: Page) -> None:
    page.event("order", "Upload a picture", [page.upload("large.png", png(1000, 1000))], "upload")
    events = events_of_the_picture(page)
    slow = page.join("order", events["select"], [])
    fast = page.join("order", events["upload"], [page.upload("corrupt.png", b"no picture")])
    assert [message["event_id"] for message in page.completed("order", 2)] == [slow, fast]


def test_a_tab_that_asks_for_its_picture_after_a_refused_upload_says_why(page: Page) -> None:
    page.event("late", "Upload a picture", [page.upload("corrupt.png", b"no picture")], "upload")
    page.join("late", events_of_the_picture(page)["select"], [])
    (shown,) = page.completed("late", 1)
    assert "unreadable" in shown["output"]["data"][0]


def test_a_large_photo_is_reduced_and_the_page_says_so(page: Page) -> None:
    image, photo = Image.new("RGBA", (4000, 3000), "pink"), io.BytesIO()
    image.paste((0, 0, 0, 0), (0, 0, 2000, 3000))
    image.save(photo, format="PNG", compress_level=1)
    file = page.upload("photo.png", photo.getvalue())
    (told, canvas) = page.event("photo", "Upload a picture", [file], "upload")
    assert "photo.png, reduced from 4000 × 3000 px" in told
    assert '"height": 886, "width": 1182' in canvas
    given = read_image(page.owner.sessions.of("photo").given, 3)
    assert given.holes is not None and given.holes[:, :591].all() and not given.holes[:, 591:].any()


def test_a_picture_whose_edit_is_too_large_is_halved(page: Page) -> None:
    page.event("halve", "Upload a picture", [page.upload("own.png", png(1000, 900))], "upload")
    fields = ["pathology-4step", 0, 1, 0, 0, 100, 100]
    (shown,) = page.event("halve", "Extend", fields, "click")
    assert "1100 × 1000 px: must be at most 1,048,576 pixels here; `Halve` makes the picture" in shown
    for width, height in ((900, 1000), (450, 500)):
        (told, _) = page.event("halve", "Halve", [], "click")
        assert f"own.png, reduced from {width} × {height} px: paint" in told


def test_a_picture_that_no_machine_should_unpack_is_refused_without_a_flag(page: Page) -> None:
    gigantic = io.BytesIO()
    Image.new("1", (20000, 20000)).save(gigantic, format="PNG")
    file = page.upload("gigantic.png", gigantic.getvalue())
    shown = page.event("gigantic", "Upload a picture", [file], "upload")[0]
    assert "gigantic.png: gigantic" in shown and "make it smaller" in shown and "--" not in shown


@pytest.mark.parametrize("path", ["secret.png", "http://127.0.0.1:9/a.png", "uploads/../../secret.png"])
def test_nothing_but_an_upload_is_taken_as_a_picture(path: str, page: Page) -> None:
    folder = page.owner.options.work.parent
    (folder / "secret.png").write_bytes(png())
    named = path if "://" in path else str(folder / path)
    file = {"path": named, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(ValueError, match="the file was not uploaded"):
        page.event("thief", "Upload a picture", [file], "upload")


def test_a_tab_that_is_closed_at_work_leaves_no_file(page: Page) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
    connection.request("GET", "/gradio_api/heartbeat/closing")
    connection.getresponse().readline()
    made(page, "closing", 1)
    folder = page.owner.sessions.of("closing").folder
    assert folder.is_dir()
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    for _ in range(400):
        if not folder.exists():
            break
        time.sleep(0.05)
    assert not folder.exists() and page.owner.sessions.known("closing") is None


def test_every_field_that_a_message_names_is_on_the_page(page: Page) -> None:
    labels = {each["props"].get("label") for each in page.config["components"]}
    assert set(FIELDS.values()) <= labels
