"""Which pictures are found, and that what is left out is returned with the reason."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.data import open_images
from diffnca.data.sources import Remark, folder_listed, listed, summary
from diffnca.formats.png import write_png


def save(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return [file.name for file in listed([folder]).files]


def test_linked_folders_and_files_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/a.png"), save(tmp_path / "data/own/b.png")
    (tmp_path / "data/class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/c.png").symlink_to(tmp_path / "elsewhere/a.png")
    assert names(tmp_path / "data") == ["c.png", "class/a.png", "own/b.png"]


def test_links_in_a_circle_end_and_are_named(tmp_path: Path) -> None:
    save(tmp_path / "data/a/1.png")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
    listing = listed([tmp_path / "data"])
    assert [file.name for file in listing.files] == ["a/1.png"]
    assert listing.left_out == [Remark("a/up", "links to a folder that is searched already")]


def test_a_folder_that_is_linked_too_is_listed_once_by_its_own_name(tmp_path: Path) -> None:
    save(tmp_path / "z/1.png")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert names(tmp_path) == ["z/1.png"]


def test_a_link_to_nothing_is_left_out_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nothing")
    assert open_images([tmp_path]).skipped == (Remark("b.png", "is a link to nothing"),)


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "x.png/a.png")
    assert names(tmp_path) == ["x.png/a.png"]


def test_only_this_folder_is_listed_if_asked(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), save(tmp_path / "below/b.png")
    assert [file.name for file in folder_listed(tmp_path, is_recursive=False).files] == ["a.png"]


@pytest.mark.parametrize("suffix", [".jfif", ".JFIF", ".gif", ".mpo", ".webp"])
def test_a_picture_of_this_suffix_is_found(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (4, 4))
    image.save(tmp_path / f"a{suffix}", {".jfif": "JPEG", ".mpo": "JPEG"}.get(suffix.lower()))
    assert len(open_images([tmp_path])) == 1


def test_pictures_of_a_kind_that_is_not_read_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.HEIC").touch()
    assert open_images([tmp_path]).skipped == (Remark("b.HEIC", ".heic is not read; save it as PNG or TIFF"),)


@pytest.mark.parametrize("name", ["../../photos/a.png", "/photos/a.png", "./photos/a.png", "photos\\a.png"])
def test_the_names_in_a_zip_file_never_lead_out_of_it(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, save(tmp_path / "a.png").read_bytes())
    assert open_images([tmp_path / "a.zip"], strict=True).names == ("photos/a.png",)


@pytest.mark.parametrize("other", ["model.safetensors", "log.jsonl"])
def test_the_folder_of_a_training_is_no_input(tmp_path: Path, other: str) -> None:
    save(tmp_path / "a.png"), save(tmp_path / "run/samples/1.png")
    for name in ("state.safetensors", other):
        (tmp_path / "run" / name).touch()
    assert listed([tmp_path]).left_out == [Remark("run", "is the folder of a training of diffnca, no input")]
    assert names(tmp_path) == ["a.png"]


TEXT = {"Software": "diffnca", "diffnca:seed": "7"}


def generated(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        write_png(path, np.zeros((4, 4, 3), np.uint8), TEXT)
    else:
        tifffile = pytest.importorskip("tifffile")
        options = {"metadata": {"axes": "YX", "MapAnnotation": TEXT}, "ome": True}
        tifffile.imwrite(path, np.zeros((300, 300), np.uint8), tile=(128, 128), **options)
    return path


@pytest.mark.parametrize("name", ["samples/1.png", "1.ome.tif"])
def test_generated_images_are_no_input_beside_others(tmp_path: Path, name: str) -> None:
    save(tmp_path / "a.png"), generated(tmp_path / name)
    listing = listed([tmp_path])
    assert [file.name for file in listing.files] == ["a.png"]
    assert listing.left_out[0].name == name
    assert listing.left_out[0].text.startswith("was made by diffnca")


def test_generated_images_in_a_folder_of_their_own_are_input(tmp_path: Path) -> None:
    generated(tmp_path / "1.png"), generated(tmp_path / "2.png")
    assert names(tmp_path) == ["1.png", "2.png"]


def test_an_image_in_ome_zarr_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), (tmp_path / "b.ome.zarr").mkdir()
    assert listed([tmp_path]).left_out == [Remark("b.ome.zarr", "OME-Zarr is no input; save it as TIFF")]


def test_what_is_left_out_makes_no_strict_run_fail(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), generated(tmp_path / "samples/1.png")
    assert open_images([tmp_path], strict=True).skipped[0].name == "samples/1.png"


def test_remarks_of_equal_text_are_one_line_with_their_number() -> None:
    remarks = [Remark("a", "dark"), Remark("b", "small"), Remark("c", "dark"), Remark("d", "dark")]
    assert summary(remarks) == ["a: dark; 2 others likewise", "b: small"]
    assert summary(remarks[1:]) == ["b: small", "c: dark; 1 other likewise"]


def test_remarks_that_differ_in_numbers_alone_are_one_line() -> None:
    remarks = [
        Remark(name, f"{share}% white, {side}x9 px") for name, share, side in (("a", 50.2, 7), ("b", 8, 1))
    ]
    assert summary(remarks) == ["a: 50.2% white, 7x9 px; 1 other likewise"]


def test_the_notes_on_images_that_are_used_are_returned(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / "a.tif")
    notes = open_images([tmp_path]).notes
    assert [note.name for note in notes] == ["a.tif", "a.tif"]
    assert "nearly black" in notes[1].text
