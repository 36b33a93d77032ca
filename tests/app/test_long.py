"""Large images and trainings of the page: names, limits, a stop, the way on, the viewer."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the page needs gradio")
pytest.importorskip("zarr")

from diffnca.app.large import Wanted, begin_image, go_on, images, link, look
from diffnca.app.long import checked_name, status
from diffnca.app.owner import Options, Owner
from diffnca.app.sessions import Session, Sessions
from diffnca.app.train import asked, begin_training
from diffnca.app.uploads import NONE, UPLOADED, UPLOADED_MAPS, maps_of, pictures_of, take_maps, take_pictures
from diffnca.app.works import Work, Works
from diffnca.config.model import with_fields
from diffnca.errors import Interrupted
from diffnca.formats.ome_zarr import read_pixels
from diffnca.models.file import MODEL_FILE, STATE_FILE
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


def test_a_new_large_image_is_listed_and_chosen(owner: Owner) -> None:
    session = owner.sessions.of("tab")
    with pytest.raises(ValueError, match="there is no image: must be made first"):
        link(owner, None)
    assert "value" not in look(owner, session)[1]
    begin_image(owner, SMALL, unseen)
    listed = look(owner, session)[1]
    assert (listed["choices"], listed["value"]) == (["meadow"], "meadow")


def test_a_stopped_image_goes_on_to_the_same_pixels(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    is_stopped = [False, True]
    monkeypatch.setattr(owner.works._stop, "is_set", lambda: is_stopped.pop(0) if is_stopped else False)
    begin_image(owner, SMALL, unseen)
    owner.works.wait()
    assert owner.works.latest["image"].text.endswith("%; `Go on` goes on from there")
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


@pytest.mark.parametrize("name", ["nothing", "../meadow"])
def test_only_images_that_are_listed_are_opened(name: str, owner: Owner) -> None:
    with pytest.raises(ValueError, match="must be one that is listed"):
        link(owner, name)


def test_a_damaged_note_gives_one_line(owner: Owner) -> None:
    owner.options.images.mkdir(parents=True)
    (owner.options.images / "meadow.json").write_text("{")
    with pytest.raises(ValueError, match="meadow: its note is damaged"):
        go_on(owner, "meadow", unseen)


def test_the_folders_with_pictures_are_offered_and_no_others(owner: Owner) -> None:
    assert list(owner.folders()) == ["leaves", "pictures"]
    session, out = owner.sessions.of("tab"), owner.options.runs / "mine"
    with pytest.raises(ValueError, match="pictures=../work: must be one of leaves, pictures, uploaded"):
        pictures_of(owner, session, "../work", out, has_labels=False)
    with pytest.raises(ValueError, match="maps=../work: must be one of none, leaves, pictures, uploaded"):
        maps_of(owner, session, "../work", out)


def test_a_link_out_of_the_folder_is_not_offered(owner: Owner, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(png())
    (tmp_path / "pictures" / "link").symlink_to(tmp_path / "elsewhere")
    assert list(owner.folders()) == ["leaves"]


def uploaded(folder: Path, *names: str) -> list[str]:
    """Return files as the page has them when they have been uploaded."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(png())
    return [str(folder / name) for name in names]


def test_uploaded_pictures_stay_for_a_training_when_the_tab_is_closed(owner: Owner, tmp_path: Path) -> None:
    session = owner.sessions.of("tab")
    take_pictures(session, unseen, uploaded(tmp_path / "up", "a.png"), "")
    folder = pictures_of(owner, session, UPLOADED, owner.options.runs / "mine", has_labels=False)
    owner.sessions.close("tab")
    assert [path.read_bytes() for path in folder.iterdir()] == [png()]


def test_a_run_keeps_the_uploads_that_it_began_with(owner: Owner, tmp_path: Path) -> None:
    out = owner.options.runs / "mine"

    def folder_of(tab: str, content: bytes) -> Path:
        session, (name,) = owner.sessions.of(tab), uploaded(tmp_path / tab, "a.png")
        Path(name).write_bytes(content)
        take_pictures(session, unseen, [name], "")
        return pictures_of(owner, session, UPLOADED, out, has_labels=False)

    folder_of("one", b"a mistake")
    folder = folder_of("two", b"first")  # before the run, a mistake is mended
    out.mkdir(parents=True)
    (out / STATE_FILE).touch()
    assert folder_of("three", b"first") == folder
    with pytest.raises(ValueError, match="^mine: began with other pictures, not with these uploads; give"):
        folder_of("four", b"other")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"first"]


def test_uploads_never_replace_a_run_and_are_offered_as_none(owner: Owner, tmp_path: Path) -> None:
    models = [owner.options.runs / f"mine-{kind}" / MODEL_FILE for kind in ("pictures", "maps")]
    for model in models:
        model.parent.mkdir(parents=True)
        model.touch()
    before = owner.models()
    session = with_maps_and_labels(owner, tmp_path / "up")
    asked(owner, session, UPLOADED, "mine", 5, "auto", UPLOADED_MAPS)
    assert all(model.is_file() for model in models) and owner.models() == before
    assert {path.name for path in owner.options.runs.iterdir()} == {"mine-pictures", "mine-maps"}


def test_a_training_does_not_take_the_name_of_another_model(owner: Owner) -> None:
    session = owner.sessions.of("tab")
    with pytest.raises(ValueError, match="^name=aerial: must be a name that no other model of the page has$"):
        asked(owner, session, "leaves", "aerial", 5, "auto")
    (owner.options.runs / "mine").mkdir(parents=True)
    (owner.options.runs / "mine" / MODEL_FILE).touch()
    options, _, _ = asked(owner, session, "leaves", "mine", 5, "auto")  # goes on
    assert options.out == owner.options.runs / "mine"


def test_uploads_of_a_running_training_are_left_alone(owner: Owner) -> None:
    owner.works.latest["training"] = Work("training", "mine", owner.options.runs / "mine", "")
    with pytest.raises(ValueError, match="^mine is being made .training.: must be finished first"):
        asked(owner, owner.sessions.of("tab"), UPLOADED, "mine", 5, "auto")


def with_maps_and_labels(owner: Owner, folder: Path) -> Session:
    """Return a tab with two pictures of two labels, and their maps in another order."""
    session = owner.sessions.of("tab")
    for name, label in (("a.png", "bark"), ("b.png", "moss")):
        take_pictures(session, unseen, uploaded(folder / "pictures", name), label)
    take_maps(session, unseen, uploaded(folder / "maps", "b.tif", "a.png"))
    return session


def test_an_uploaded_map_has_the_name_of_its_picture_in_the_folder_of_its_label(
    owner: Owner, tmp_path: Path
) -> None:
    session = with_maps_and_labels(owner, tmp_path / "up")
    options, config, _ = asked(
        owner, session, UPLOADED, "mine", 5, "auto", UPLOADED_MAPS, "bark=#ff0000, moss=#00ff00", True
    )
    data, maps = options.data[0], options.layouts[0]
    pictures = sorted(path.relative_to(data) for path in data.rglob("*.png"))
    assert [path.parts[0] for path in pictures] == ["bark", "moss"]
    assert sorted(path.relative_to(maps) for path in maps.rglob("*.*")) == [
        pictures[0],
        pictures[1].with_suffix(".tif"),
    ]
    assert (config.layout.names, options.labels) == (("bark", "moss"), "folders")


def test_a_map_that_is_uploaded_again_replaces_the_earlier_one(owner: Owner, tmp_path: Path) -> None:
    session = with_maps_and_labels(owner, tmp_path / "up")
    (again,) = uploaded(tmp_path / "again", "a.png")
    Path(again).write_bytes(b"mended")
    assert "2 maps are here" in take_maps(session, unseen, [again])
    (folder,) = maps_of(owner, session, UPLOADED_MAPS, owner.options.runs / "mine")
    assert b"mended" in [path.read_bytes() for path in folder.iterdir()]


def test_a_map_that_is_replaced_does_not_count(
    owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.app.uploads.MOST_UPLOADS", 2)
    session = with_maps_and_labels(owner, tmp_path / "up")
    assert "2 maps are here" in take_maps(session, unseen, uploaded(tmp_path / "again", "a.png", "b.tif"))


def test_a_map_that_is_replaced_leaves_no_file(owner: Owner, tmp_path: Path) -> None:
    session = with_maps_and_labels(owner, tmp_path / "up")
    take_maps(session, unseen, uploaded(tmp_path / "again", "a.png"))
    assert set(session.folder.iterdir()) == {*session.uploads, *session.maps}


def test_one_map_too_many_is_refused(owner: Owner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnca.app.uploads.MOST_UPLOADS", 2)
    session = with_maps_and_labels(owner, tmp_path / "up")
    with pytest.raises(ValueError, match="^maps=3: must be at most 2$"):
        take_maps(session, unseen, uploaded(tmp_path / "more", "a.png", "c.png"))


def test_pictures_of_one_name_need_no_maps(owner: Owner, tmp_path: Path) -> None:
    session = owner.sessions.of("tab")
    take_pictures(session, unseen, uploaded(tmp_path / "up", "a.png", "a.jpg"), "")
    options, _, _ = asked(owner, session, UPLOADED, "mine", 5, "auto")
    assert len(list(options.data[0].iterdir())) == 2


def test_a_training_reads_uploaded_maps_and_labels(owner: Owner, tmp_path: Path) -> None:
    from diffnca.training.start import conditioned, images_of

    session = with_maps_and_labels(owner, tmp_path / "up")
    for path in session.maps:
        Image.fromarray(np.eye(32, dtype=np.uint8)).save(path)
    options, config, _ = asked(owner, session, UPLOADED, "mine", 5, "none", UPLOADED_MAPS, "", True)
    config = with_fields(conditioned(config, options), {"data.reduce": 1, "data.crop": 16})
    images = images_of(options, config)
    assert (config.layout.labels, config.layout.names) == (("bark", "moss"), ("0", "1"))
    assert (len(images), images.planes, images.labels.tolist()) == (2, 2, [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"pictures": ("c.png",), "has_labels": True},
            "^c.png: has no label: must have one, as all",
        ),
        ({"maps": ("d.png",)}, "^map=d.png: must be named as a picture that was uploaded$"),
        (
            {"pictures": ("a.jpg",)},
            "^map=a.png: must be named as one picture alone, not as a.png and a.jpg; rename",
        ),
        ({"maps": ("a.tif",)}, "^map=a.tif: must be the only map of a.png, beside a.png; upload"),
        ({"maps": ("a.jpg",)}, "^picture=a.jpg: must be a file of .png, .tif, .tiff$"),
        ({"label": "../evil"}, "^name=../evil: must be 1 to 40 letters"),
        (
            {"source": NONE, "classes": "bark=#ff0000"},
            "^classes=bark=#ff0000: must be left out without maps$",
        ),
        ({"classes": "bark=red"}, "^layout.classes"),
        (
            {"data": "leaves", "has_labels": True},
            "^maps=uploaded maps: must be a folder, or left out, with pictures=leaves$",
        ),
    ],
)
def test_mistakes_with_maps_and_labels_give_one_line(
    wrong: dict[str, Any], message: str, owner: Owner, tmp_path: Path
) -> None:
    session = with_maps_and_labels(owner, tmp_path / "up")

    def tell(
        pictures: tuple[str, ...] = (),
        label: str = "",
        maps: tuple[str, ...] = (),
        source: str = UPLOADED_MAPS,
        data: str = UPLOADED,
        classes: str = "",
        has_labels: bool = False,
    ) -> None:
        take_pictures(session, unseen, uploaded(tmp_path / "more", *pictures), label)
        take_maps(session, unseen, uploaded(tmp_path / "more", *maps))
        asked(owner, session, data, "mine", 5, "auto", source, classes, has_labels)

    with pytest.raises(ValueError, match=message) as refusal:
        tell(**wrong)
    assert "\n" not in str(refusal.value)


def test_a_training_is_that_of_the_command_and_hears_a_stop(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def run(report: Any, cancelled: Any) -> Any:
        owner.works.stop("training")
        assert cancelled()
        raise Interrupted("stopped after 8 images", "goes on")

    def training(options: Any, config: Any, start: str, report: Any) -> Any:
        seen.extend([options, config.data.reduce, start])
        return SimpleNamespace(run=run)

    monkeypatch.setattr("diffnca.training.session.training", training)
    out = owner.options.runs / "mine"
    begin_training(owner, *asked(owner, owner.sessions.of("tab"), "leaves", "mine", 5, "auto"))
    owner.works.wait()
    options, reduce, start = seen
    assert (options.out, options.minutes, reduce, start) == (out, 5.0, 0, "auto")
    assert owner.works.latest["training"].text == "stopped after 8 images; `Train` goes on under this name"
