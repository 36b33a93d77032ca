"""Sets of images: where they come from, which are left out and why, and that nothing fails later."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.data import open_images
from diffnca.data.held_out import split

CANOPY = Path(__file__).parent / "canopy"


def save(path: Path, height: int = 20, width: int = 30, level: int = 100, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), level, dtype=np.uint8)
    pixels[::2] //= 2
    Image.fromarray(pixels).save(path, **options)
    return path


def pack(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_two_files_of_one_name_in_a_zip_file_are_both_read(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{level}.png", level=level) for level in (10, 200)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(files[0], "same.png")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.write(files[1], "same.png")
    assert sorted(int(image.max()) for image in open_images([tmp_path / "a.zip"])) == [10, 200]


def test_images_of_one_name_cannot_be_held_out(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save(tmp_path / folder / "0.png"), save(tmp_path / folder / "1.png")
    images = open_images([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ValueError, match=r"^0.png: 2 images have this name.* give the folder above them"):
        split(images, 0.25, seed=0, side=16)
    assert len(split(images, 0.0, seed=0, side=16)[0]) == 4


def test_what_lies_in_hidden_folders_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), save(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    assert open_images([tmp_path]).names == ("a.png",)


def truncated(path: Path) -> Path:
    save(path, 200, 200)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_a_folder_is_searched_recursively_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.tiff"):
        save(tmp_path / name)
    assert open_images([tmp_path]).names == ("a/b/c.tiff", "a/z.JPG", "b.png")


def test_hidden_and_other_files_of_a_folder_are_ignored(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"Mac OS X")
    (tmp_path / "notes.txt").write_text("no image")
    images = open_images([tmp_path])
    assert images.names == ("a.png",)
    assert images.skipped == ()


def test_a_zip_file_gives_the_same_images_as_its_folder(tmp_path: Path) -> None:
    folder, packed = open_images([CANOPY]), open_images([pack(CANOPY, tmp_path / "canopy.zip")])
    assert packed.names == folder.names
    assert all(np.array_equal(a, b) for a, b in zip(folder, packed, strict=True))


def test_several_paths_are_joined(tmp_path: Path) -> None:
    files = sorted(CANOPY.glob("*.jpg"))
    assert open_images([files[1], files[0], CANOPY]).names[:3] == (
        "canopy_02.jpg",
        "canopy_01.jpg",
        "canopy_01.jpg",
    )


def test_images_are_read_only_uint8_h_w_c(tmp_path: Path) -> None:
    image = open_images([save(tmp_path / "a.png", 20, 30)])[0]
    assert (image.shape, image.dtype, image.flags.writeable) == ((20, 30, 3), np.uint8, False)


def test_each_unusable_image_is_named_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path / "good.png")
    truncated(tmp_path / "cut.jpg")
    (tmp_path / "empty.png").touch()
    save(tmp_path / "small.png", 10, 90)
    save(tmp_path / "white.png", level=255)
    skipped = dict(open_images([tmp_path], min_size=16, max_background=0.3).skipped)
    assert list(skipped) == ["cut.jpg", "empty.png", "small.png", "white.png"]
    for name, reason in {
        "cut.jpg": "unreadable: image file is truncated",
        "empty.png": "unreadable: cannot identify image file",
        "small.png": "too small: 90x10 px after any reduction; at least 16 are needed",
        "white.png": "mostly background: 50.0% of it is as bright as 220; at most 30.0% is allowed",
    }.items():
        assert skipped[name].startswith(reason)
        assert "\n" not in skipped[name]


def test_strict_stops_at_the_first_unusable_image(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    truncated(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match=r"b\.jpg: unreadable"):
        open_images([tmp_path], strict=True)


def test_damage_inside_a_zip_file_is_found_when_it_is_opened(tmp_path: Path) -> None:
    save(tmp_path / "in/a.bmp")
    save(tmp_path / "in/b.bmp", level=200)
    path = pack(tmp_path / "in", tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[500] ^= 255
    path.write_bytes(content)
    images = open_images([path])
    assert images.names == ("b.bmp",)
    assert images.skipped[0].text.startswith("unreadable in the zip file: Bad CRC-32")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("notes.txt", b"text", "unsupported kind of file"),
        ("broken.zip", b"PK no zip", "not a readable zip file"),
        ("broken.png", b"text", "none of 1 images can be used; the first, broken.png: unreadable"),
    ],
)
def test_an_unusable_path_is_an_error_of_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        open_images([tmp_path / name])
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images found"):
        open_images([tmp_path])


@pytest.mark.parametrize(
    "option", [{"reduce": 0}, {"max_background": 1.5}, {"channels": 4}, {"microns_per_px": -1.0}]
)
def test_an_option_out_of_range_is_named(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        open_images([CANOPY], **option)


def test_what_does_not_fit_in_the_cache_is_decoded_again_alike() -> None:
    held, decoded = open_images([CANOPY]), open_images([CANOPY], cache_bytes=100_000)
    assert all(np.array_equal(a, b) for a, b in zip(held, decoded, strict=True))


def test_an_image_that_vanishes_later_is_an_error_that_names_it(tmp_path: Path) -> None:
    images = open_images([save(tmp_path / "a.png")], cache_bytes=0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match=r"a\.png: could be read at the start and cannot now"):
        images[0]


def test_an_image_that_changes_its_size_later_is_an_error(tmp_path: Path) -> None:
    images = open_images([save(tmp_path / "a.png")], cache_bytes=0)
    save(tmp_path / "a.png", 50, 50)
    with pytest.raises(ValueError, match="changed its size"):
        images[0]


def test_an_image_left_out_does_not_shift_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    save(tmp_path / "b.png", level=40)
    save(tmp_path / "c.png", level=80)
    images = open_images([tmp_path])
    assert [int(image[1, 0, 0]) for image in images] == [40, 80]


def test_the_fingerprint_does_not_depend_on_the_place(tmp_path: Path) -> None:
    shutil.copytree(CANOPY, tmp_path / "moved")
    assert open_images([tmp_path / "moved"]).fingerprint == open_images([CANOPY]).fingerprint


@pytest.mark.parametrize("change", ["rename", "remove", "replace"])
def test_the_fingerprint_changes_with_the_data(tmp_path: Path, change: str) -> None:
    folder = shutil.copytree(CANOPY, tmp_path / "changed")
    first = folder / "canopy_01.jpg"
    if change == "rename":
        first.rename(folder / "canopy_00.jpg")
    elif change == "remove":
        first.unlink()
    else:
        save(first)
    assert open_images([folder]).fingerprint != open_images([CANOPY]).fingerprint


def test_the_examples_for_the_tutorial_can_be_read() -> None:
    folder = Path(__file__).parents[2] / "examples" / "canopy"
    images = open_images([folder], strict=True)
    assert len(images) == 20
