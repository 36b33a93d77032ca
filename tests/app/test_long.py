"""Large images and trainings of the page: names, limits, a stop, the way on, the viewer."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("zarr")

from diffnca.app.large import Wanted, begin_image, go_on, images, link
from diffnca.app.long import checked_name, status
from diffnca.app.owner import Options, Owner
from diffnca.app.sessions import Sessions
from diffnca.app.train import UPLOADED, begin_training, data_of
from diffnca.app.works import Works
from diffnca.formats.ome_zarr import read_pixels
from diffnca.progress import unseen

from .conftest import png

SMALL = Wanted("meadow", "pathology-4step", 96, 64, 1)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    data = tmp_path / "pictures"
    (data / "leaves").mkdir(parents=True)
    (data / "leaves" / "a.png").write_bytes(png())
    (data / "empty").mkdir()
    options = Options(data=data, work=tmp_path / "work", is_opened=False)
    with Owner(options, Sessions(), Works()) as made:
        yield made


@pytest.mark.parametrize("name", ["", "../evil", "/etc/evil", ".hidden", "a/b", "a\n", " a", "a" * 41, "<b>"])
def test_a_name_that_could_be_another_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 40 letters") as refusal:
        checked_name(name)
    assert "\n" not in str(refusal.value) or "\n" in name


def test_a_large_image_is_made_and_the_viewer_shows_it(owner: Owner) -> None:
    begin_image(owner, SMALL, unseen)
    owner.works.wait()
    assert "finished" in status(owner, owner.sessions.of("tab"), "image") and images(owner) == ["meadow"]
    address = link(owner, "meadow").split('href="')[1].split('"')[0]
    with urllib.request.urlopen(f"{address}image.json") as answer:
        assert json.load(answer)["name"] == "meadow.ome.zarr"


def test_a_stopped_image_goes_on_to_the_same_pixels(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    is_stopped = [False, True]
    monkeypatch.setattr(owner.works._stop, "is_set", lambda: is_stopped.pop(0) if is_stopped else False)
    begin_image(owner, SMALL, unseen)
    owner.works.wait()
    assert "the same command goes on" in owner.works.latest["image"].text
    with pytest.raises(ValueError, match="meadow: must be finished first"):
        link(owner, "meadow")
    go_on(owner, "meadow", unseen)
    owner.works.wait()
    begin_image(owner, Wanted(**(vars(SMALL) | {"name": "other"})), unseen)
    owner.works.wait()
    made = [read_pixels(str(owner.options.images / f"{name}.ome.zarr")) for name in ("meadow", "other")]
    assert np.array_equal(*made)


def test_an_image_that_is_too_large_is_refused(owner: Owner) -> None:
    with pytest.raises(ValueError, match="pixels=.*: must be at most 10,000,000,000"):
        begin_image(owner, Wanted("vast", "pathology-4step", 10**6, 10**6, 0), unseen)


@pytest.mark.parametrize("name", [None, "nothing", "../meadow"])
def test_only_images_that_are_listed_are_opened(name: str | None, owner: Owner) -> None:
    with pytest.raises(ValueError, match="must be one that is listed"):
        link(owner, name)


def test_a_damaged_note_gives_one_line(owner: Owner) -> None:
    owner.options.images.mkdir(parents=True)
    (owner.options.images / "meadow.json").write_text("{")
    with pytest.raises(ValueError, match="meadow: its note is damaged"):
        go_on(owner, "meadow", unseen)


def test_the_folders_with_pictures_are_offered_and_no_others(owner: Owner) -> None:
    assert list(owner.folders()) == ["leaves"]
    session = owner.sessions.of("tab")
    with pytest.raises(ValueError, match="pictures=../work: must be one of leaves"):
        data_of(owner, session, "../work", owner.options.runs / "mine")


def test_a_link_out_of_the_folder_is_not_offered(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(png())
    (tmp_path / "pictures" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(owner.folders()) == ["leaves"]


def test_uploaded_pictures_stay_for_a_training_when_the_tab_is_closed(owner: Owner, tmp_path: Path) -> None:
    session = owner.sessions.of("tab")
    (tmp_path / "upload").write_bytes(png())
    session.uploads.append(session.keep(tmp_path / "upload", "a.png"))
    (folder,) = data_of(owner, session, UPLOADED, owner.options.runs / "mine")
    owner.sessions.close("tab")
    assert [path.read_bytes() for path in folder.iterdir()] == [png()]


def test_a_training_is_that_of_the_command_and_hears_a_stop(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def run(report: Any, cancelled: Any) -> Any:
        owner.works.stop("training")
        assert cancelled()
        raise KeyboardInterrupt("stopped after 8 images")

    def training(options: Any, config: Any, start: str, report: Any) -> Any:
        asked.extend([options, config.data.reduce, start])
        return SimpleNamespace(run=run)

    monkeypatch.setattr("diffnca.training.session.training", training)
    out = owner.options.runs / "mine"
    begin_training(owner, (owner.folders()["leaves"],), out, 5.0, "auto")
    owner.works.wait()
    options, reduce, start = asked
    assert (options.out, options.minutes, reduce, start) == (out, 5.0, 0, "auto")
    assert owner.works.latest["training"].text == "stopped after 8 images"
