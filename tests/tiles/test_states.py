"""The folder in which an image is made: what is ours is recognised, checked and removed, nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffnca.canvas.region import Canvas
from diffnca.formats.ome_zarr import OmeZarrWriter
from diffnca.formats.stores import facts_of
from diffnca.tiles.states import States, check_work, remove_work

FACTS = {"diffnca:seed": "7"}


def begun(work: Path) -> States:
    """Return the states of an image that was begun, in the folder `work`."""
    states = States(f"{work}/states", Canvas(16, 24), 3, 8, True)
    states.begin(FACTS)
    states.create(1)
    OmeZarrWriter(f"{work}/image.ome.zarr", None, 16, 8).open(Canvas(16, 24), 3, FACTS)
    return states


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_an_image_in_the_making_is_ours_and_is_removed(tmp_path: Path) -> None:
    work = tmp_path / "x.png.work"
    begun(work)
    (work / "states" / f"zarr.{'ab' * 16}.partial").write_bytes(b"killed")
    check_work(str(work))
    remove_work(str(work))
    assert not work.exists()


def test_a_folder_that_is_not_there_is_neither_refused_nor_an_error(tmp_path: Path) -> None:
    check_work(str(tmp_path / "none.work"))
    remove_work(str(tmp_path / "none.work"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("notes.txt", "notes.txt"),
        ("states/notes.txt", "notes.txt"),
        ("image.ome.zarr/a.partial", "a.partial"),
        ("more/x", "more"),
    ],
)
def test_what_others_put_there_is_refused_by_name_and_kept(tmp_path: Path, place: str, name: str) -> None:
    work = tmp_path / "x.png.work"
    begun(work)
    (work / place).parent.mkdir(exist_ok=True)
    (work / place).write_text("of a user")
    with pytest.raises(ValueError, match=f"holds {name}, which diffnca did not make"):
        check_work(str(work))
    remove_work(str(work))
    assert files_in(work) == {place}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.work").write_text("of a user")
    with pytest.raises(ValueError, match="is a file; move it away"):
        check_work(str(tmp_path / "x.work"))


def test_what_is_noted_comes_back(tmp_path: Path) -> None:
    assert facts_of(begun(tmp_path).url) == FACTS


def test_a_group_without_notes_is_noted_when_the_image_is_begun(tmp_path: Path) -> None:
    states = begun(tmp_path)
    states.delete(1)
    write_attributes(tmp_path / "states", {})
    states.begin(FACTS)
    assert facts_of(states.url) == FACTS


def test_states_of_an_unknown_image_are_refused(tmp_path: Path) -> None:
    states = begun(tmp_path)
    write_attributes(tmp_path / "states", {})
    with pytest.raises(ValueError, match="states: does not say of which image it is; delete"):
        states.begin(FACTS)


def write_attributes(group: Path, attributes: Any) -> None:
    values = json.loads((group / "zarr.json").read_text())
    (group / "zarr.json").write_text(json.dumps(values | {"attributes": attributes}))


BROKEN = {
    "no JSON": "{bad",
    "null": "null",
    "list": "[]",
    "deeply nested": "[" * 100_000,
    "bytes": "\0\0",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize(
    "read", [facts_of, lambda url: OmeZarrWriter(url).is_finished], ids=["states", "image"]
)
def test_broken_metadata_are_one_line_that_names_the_file(
    tmp_path: Path, content: str, read: Callable[[str], Any]
) -> None:
    url = tmp_path / "x.zarr"
    url.mkdir()
    (url / "zarr.json").write_text(content)
    with pytest.raises(ValueError, match=rf"^{url}/zarr\.json: is damaged \([^\n]*\); delete"):
        read(str(url))


@pytest.mark.parametrize("facts", [[1], {"a": None}, {"a": {}}, "text", 1])
def test_notes_of_another_form_are_one_line_that_names_the_folder(tmp_path: Path, facts: Any) -> None:
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"diffnca": facts}}
    (tmp_path / "zarr.json").write_text(json.dumps(group))
    with pytest.raises(ValueError, match="its `diffnca` metadata are damaged; delete"):
        facts_of(str(tmp_path))


@pytest.mark.parametrize("change", [{"shape": [3, 16, 25]}, {"data_type": "float64"}])
def test_states_of_another_shape_or_type_are_refused(tmp_path: Path, change: dict) -> None:
    states = begun(tmp_path)
    path = tmp_path / "states" / "image-0001" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="image-0001: holds shape, .*, not .*; delete .*/states"):
        states.read_image(1, states.canvas.whole)
