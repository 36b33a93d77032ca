"""Labels: which one an image has by its folder or by a table, and what happens to it on the way to a crop."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.data.crops import crops
from diffnca.data.held_out import split
from diffnca.data.images import ImageSet, open_images
from diffnca.data.labels import FOLDERS, Labels

BARK, MOSS = 50, 150
"""Brightness of the images of two labels."""


def saved(path: Path, value: int = BARK, side: int = 24) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, dtype=np.uint8)).save(path)
    return path


def opened(told: str, *paths: Path, strict: bool = False) -> ImageSet:
    return open_images(paths, labels=Labels.of(told, paths), strict=strict)


def told_of(images: ImageSet) -> dict[str, list[float]]:
    return dict(zip(images.names, images.labels.tolist(), strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a folder for each of two labels."""
    for index in range(2):
        saved(tmp_path / "all" / "bark" / f"{index}.png", BARK)
        saved(tmp_path / "all" / "moss" / "wet" / f"{index}.png", MOSS)
    return tmp_path / "all"


def test_of_one_folder_the_folders_within_are_the_labels(folder: Path) -> None:
    assert Labels.of(FOLDERS, [folder]).names == ("bark", "moss")
    found = told_of(opened(FOLDERS, folder))
    assert found["bark/0.png"] == [1, 0] and found["moss/wet/1.png"] == [0, 1]


def test_of_several_paths_each_is_a_label(folder: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "clay.zip", "w") as archive:
        archive.write(folder / "bark" / "0.png", "deep/0.png")
    paths = [folder / "moss", folder / "bark", tmp_path / "clay.zip", saved(tmp_path / "wall.png")]
    labels = Labels.of(FOLDERS, paths)
    assert labels.names == ("bark", "clay", "moss", "wall")
    rows = open_images(paths, labels=labels).labels.argmax(axis=1)
    assert [labels.names[row] for row in rows] == ["moss", "moss", "bark", "bark", "clay", "wall"]


def test_namesakes_of_several_folders_have_their_own_labels(tmp_path: Path) -> None:
    paths = [saved(tmp_path / name / "0.png").parent for name in ("a", "b")]
    assert opened(FOLDERS, *paths).labels.tolist() == [[1, 0], [0, 1]]


def test_a_linked_folder_gives_the_name_of_the_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "oak").symlink_to(folder / "bark")
    assert Labels.of(FOLDERS, [tmp_path / "oak", folder / "moss"]).names == ("moss", "oak")


@pytest.mark.parametrize(
    "table",
    [
        "name,label\nbark/0.png,b\nbark/1.png,b\nmoss/wet/0.png,m\nmoss/wet/1.png,m\n",
        "bark/0,b\nbark/1,b\nmoss/wet/0,m\nmoss/wet/1.png,m\n",
        "\ufeffAuthor;Label;Name\r\nx;b;bark\\0.png\r\nx;b;bark/1\r\nx;m;moss/wet/0\r\ny; m ;moss/wet/1\r\n",
    ],
    ids=["header", "no header, no endings", "other columns, as a spreadsheet writes it"],
)
def test_a_table_says_the_label_of_each_name(folder: Path, table: str) -> None:
    path = folder.parent / "labels.csv"
    path.write_text(table, encoding="utf-8", newline="")
    assert Labels.of(str(path), [folder]).names == ("b", "m")
    found = told_of(opened(str(path), folder))
    assert found["bark/0.png"] == found["bark/1.png"] == [1, 0]
    assert found["moss/wet/0.png"] == found["moss/wet/1.png"] == [0, 1]


def test_an_image_without_a_label_is_left_out_with_the_reason(folder: Path) -> None:
    saved(folder / "0.png")
    images = opened(FOLDERS, folder)
    assert len(images) == 4
    assert [remark.name for remark in images.skipped] == ["0.png"]
    assert images.skipped[0].text.startswith(f"lies in no folder within {folder}, so it has no label; move")


def test_a_picture_without_a_row_or_with_an_empty_one_is_left_out(folder: Path) -> None:
    table = folder.parent / "labels.csv"
    table.write_text("bark/0,b\nmoss/wet/0,m\nmoss/wet/1,\n")
    images = opened(str(table), folder)
    assert images.names == ("bark/0.png", "moss/wet/0.png")
    assert {remark.text for remark in images.skipped} == {f"has no label in {table}; give it a row there"}


def test_a_strict_training_stops_at_an_image_without_a_label(folder: Path) -> None:
    saved(folder / "0.png")
    with pytest.raises(ValueError, match=r"^0.png: lies in no folder within"):
        opened(FOLDERS, folder, strict=True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,class\nbark/0,b\n", "labels.csv: has no column label: must have name and label$"),
        ("bark/0,b\nbark/1\n", "labels.csv: line 2: lacks a column: must have name and label$"),
        ("bark/0,b\nbark/9,b\n", "labels.csv: line 2: there is no image bark/9; names are as in the folder$"),
        ("bark/0,b\nbark/0,m\n", "labels.csv: line 2: bark/0 has the labels b and m$"),
        ("bark/0,b\n", r"labels.csv: gives 1 label \(b\): must give 2 to 32$"),
        ("", "labels.csv: gives 0 labels: must give 2 to 32$"),
        ("bark/0,\x00\xe9\n".encode("latin-1"), "labels.csv: is no text in UTF-8; save it as a CSV file"),
        (None, "labels.csv: no such file or directory: must be `folders`, or a CSV file with the columns"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(folder: Path, table: str | bytes | None, message: str) -> None:
    path = folder.parent / "labels.csv"
    if table is not None:
        path.write_bytes(table.encode() if isinstance(table, str) else table)
    with pytest.raises(ValueError, match=message) as error:
        Labels.of(str(path), [folder])
    assert "\n" not in str(error.value)


def test_more_than_32_labels_are_refused(tmp_path: Path) -> None:
    for index in range(33):
        saved(tmp_path / f"{index:02d}" / "0.png", side=1)
    with pytest.raises(ValueError, match=r"gives 33 labels \(00, 01, 02, ...\): must give 2 to 32"):
        Labels.of(FOLDERS, [tmp_path])


def test_labels_that_a_model_knows_keep_their_numbers(folder: Path) -> None:
    labels = Labels.of(FOLDERS, [folder], ("ash", "bark", "moss"))
    assert open_images([folder], labels=labels).labels.argmax(axis=1).tolist() == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="gives the label moss: must be among bark, clay, as the model was"):
        Labels.of(FOLDERS, [folder], ("bark", "clay"))


def test_the_fingerprint_knows_the_labels(folder: Path) -> None:
    table = folder.parent / "labels.csv"
    prints = {open_images([folder]).fingerprint, opened(FOLDERS, folder).fingerprint}
    for rows in ("bark/0,b\nbark/1,m\nmoss/wet/0,m\nmoss/wet/1,m\n", "bark/0,b\nbark/1,b\nmoss/wet/0,m\n"):
        table.write_text(rows)
        prints.add(opened(str(table), folder).fingerprint)
    assert len(prints) == 4


@pytest.mark.parametrize("share", [None, 0.5])
def test_held_out_images_keep_their_labels(tmp_path: Path, share: float | None) -> None:
    for name, value in (("bark", BARK), ("moss", MOSS)):
        for index in range(2):
            saved(tmp_path / name / f"{index}.png", value, side=80)
    for part in split(opened(FOLDERS, tmp_path), share, 0, 16):
        assert len(part) > 0
        for image, row in zip(part, part.labels, strict=True):
            assert row.tolist() == ([1, 0] if image[0, 0, 0] == BARK else [0, 1])


def test_of_a_label_with_few_pictures_strips_are_held_out(tmp_path: Path) -> None:
    for index in range(10):
        saved(tmp_path / "bark" / f"{index}.png", side=80)
    saved(tmp_path / "moss" / "a.png", MOSS, side=80)
    labelled, plain = opened(FOLDERS, tmp_path), open_images([tmp_path])
    assert [len(split(each, None, 0, 16)[1]) for each in (labelled, plain)] == [11, 1]


def batch_of(images: ImageSet, **options: float) -> torch.Tensor:
    return crops(images, size=8, batch=400, seed=0, step=3, **options)


def test_a_crop_is_followed_by_constant_planes_of_its_label(folder: Path) -> None:
    made = batch_of(opened(FOLDERS, folder))
    expected = torch.stack([made[:, 0] < 0, made[:, 0] > 0], dim=1).float()
    assert torch.equal(made[:, 3:], expected)
    assert 0.3 < float(expected[:, 0].mean()) < 0.7


def test_a_share_of_the_crops_has_no_label(folder: Path) -> None:
    images = opened(FOLDERS, folder)
    made = batch_of(images, unlabelled=0.25)
    is_shown = made[:, 3:].amax(dim=(1, 2, 3)) > 0
    assert 0.18 < 1 - float(is_shown.float().mean()) < 0.32
    assert torch.equal(made[is_shown], batch_of(images)[is_shown])
    assert batch_of(images, unlabelled=1.0)[:, 3:].abs().max() == 0


def test_a_folder_without_folders_gives_no_labels(tmp_path: Path) -> None:
    saved(tmp_path / "0.png")
    with pytest.raises(ValueError, match="gives 0 labels: must give 2 to 32; give several paths to"):
        Labels.of(FOLDERS, [tmp_path])
