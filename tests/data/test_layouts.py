"""Layouts: which class a label image gives a pixel, which image it belongs to, and what happens to both."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.config.layout import LayoutConfig
from diffnca.data.crops import crops
from diffnca.data.held_out import split
from diffnca.data.images import ImageSet, open_images
from diffnca.data.layouts import UNKNOWN, Layouts, count_classes, layouts_in, numbers_in, planes_of, reduced

LEGEND = LayoutConfig(("stroma=#d496cd", "gland=#8250a5", "lumen=#f2e8f4"))
NUMBERS = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
COLOURS = np.array(LEGEND.colours, dtype=np.uint8)


def saved(image: Image.Image | np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    return path


def read(image: Image.Image | np.ndarray, folder: Path, legend: LayoutConfig = LEGEND) -> np.ndarray:
    return numbers_in(saved(image, folder / "layout.png").read_bytes(), legend)


def with_palette(colours: Any) -> Image.Image:
    image = Image.fromarray(NUMBERS, "P")
    image.putpalette([int(value) for colour in colours for value in colour])
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (NUMBERS, NUMBERS),
        (COLOURS[NUMBERS], NUMBERS),
        (np.repeat(NUMBERS[..., None], 3, axis=2), NUMBERS),
        (with_palette([(255, 0, 0), (0, 255, 0), (0, 0, 255)]), NUMBERS),
        (with_palette(COLOURS[::-1]), 2 - NUMBERS),
        (Image.fromarray(NUMBERS == 1), NUMBERS == 1),
        (np.uint8(255) * (NUMBERS == 1), NUMBERS == 1),
        (np.full((2, 3), 255, dtype=np.uint8), np.ones((2, 3))),
    ],
    ids=[
        "numbers",
        "colours",
        "gray_rgb",
        "palette",
        "palette_of_legend",
        "bits",
        "black_and_white",
        "white",
    ],
)
def test_a_layout_gives_the_number_of_each_class(image: Any, expected: Any, tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(image, tmp_path), expected)


def test_what_is_transparent_is_unknown(tmp_path: Path) -> None:
    colours = np.dstack([COLOURS[NUMBERS], np.full((2, 3), 255, dtype=np.uint8)])
    colours[0, 0] = (9, 9, 9, 0)
    assert read(colours, tmp_path)[0].tolist() == [UNKNOWN, 1, 2]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (NUMBERS + 1, r"^holds the value 3: must be numbers from 0 to 2, or the colours of stroma=#d496cd, "),
        (COLOURS[NUMBERS] // 2, r"^holds the colour #\w{6}: must be numbers from 0 to 2"),
        (NUMBERS.astype(np.uint16), "^holds 16-bit samples; save the numbers of the classes with 8 bits$"),
    ],
)
def test_other_values_are_refused_in_one_line(image: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(image, tmp_path)


def test_a_plane_is_full_where_its_class_is() -> None:
    planes = planes_of(np.array([[0, 1, UNKNOWN]], dtype=np.uint8), 2)
    assert planes[0].tolist() == [[255, 0], [0, 255], [0, 0]]


def test_reduced_planes_hold_the_share_of_each_class() -> None:
    numbers = np.random.default_rng(0).integers(0, 3, (13, 9), dtype=np.uint8)
    found = reduced(planes_of(numbers, 3), 4) / 255.0
    for y, x in ((0, 0), (2, 1)):
        part = numbers[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        shares = [float((part == each).mean()) for each in range(3)]
        np.testing.assert_allclose(found[y, x], shares, atol=0.5 / 255)


def photos(folder: Path, count: int = 3, legend: LayoutConfig = LEGEND, **options: Any) -> ImageSet:
    """Open images whose red is 80 times their class, with the layouts of these classes."""
    for index in range(count):
        numbers = np.random.default_rng(index).integers(0, 3, (24, 30), dtype=np.uint8)
        pixels = np.stack([80 * numbers, 0 * numbers, 0 * numbers + index], axis=2)
        saved(pixels, folder / "photos" / f"{index}.png"), saved(numbers, folder / "maps" / f"{index}.png")
    layouts = Layouts([folder / "maps"], legend)
    return open_images([folder / "photos"], layouts=layouts, **options)


def test_an_image_set_gives_images_without_their_planes(tmp_path: Path) -> None:
    images = photos(tmp_path)
    assert images[0].shape == (24, 30, 3) and images.labelled(0).shape == (24, 30, 3 + 3)


def test_crops_cut_turn_and_mirror_image_and_layout_alike(tmp_path: Path) -> None:
    batch = crops(photos(tmp_path), size=9, batch=40, seed=0, step=0)
    red = ((batch[:, 0] + 1) * 127.5 / 80).round()
    assert torch.equal(batch[:, 3:6].argmax(dim=1).float(), red)


def test_reduction_averages_image_and_layout_over_the_same_pixels(tmp_path: Path) -> None:
    images = photos(tmp_path, reduce=8)
    whole = photos(tmp_path).labelled(0)[..., 3:].astype(float)
    expected = whole[:24, :24].reshape(3, 8, 3, 8, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(images.labelled(0)[..., 3:], expected, atol=0.5)


def test_layouts_change_no_pixel_of_the_crops(tmp_path: Path) -> None:
    labelled = photos(tmp_path)
    alone = open_images([tmp_path / "photos"])
    both = [crops(each, size=9, batch=8, seed=3, step=4, dropped=0.5) for each in (labelled, alone)]
    assert torch.equal(both[0][:, :3], both[1])


def test_the_asked_share_of_the_crops_has_no_layout(tmp_path: Path) -> None:
    images = photos(tmp_path)
    batch = crops(images, size=2, batch=4000, seed=0, step=0, dropped=0.15)
    is_dropped = (batch[:, 3:] == 0).all(dim=(1, 2, 3))
    assert abs(float(is_dropped.float().mean()) - 0.15) < 4 * (0.15 * 0.85 / 4000) ** 0.5
    assert torch.equal(batch, crops(images, size=2, batch=4000, seed=0, step=0, dropped=0.15))


def test_white_is_measured_before_the_reduction(tmp_path: Path) -> None:
    numbers, pixels = np.ones((16, 16), dtype=np.uint8), np.full((16, 16, 3), 100, dtype=np.uint8)
    pixels[:, :9], pixels[9, 14] = (255, 250, 255), 255  # the mean of 7 pixels is 228 in column 6, 207 in 7
    saved(pixels, tmp_path / "a" / "x.png"), saved(numbers, tmp_path / "b" / "x.png")
    legend = LayoutConfig(("stroma", "gland", "white"))
    images = open_images([tmp_path / "a"], reduce=8, layouts=Layouts([tmp_path / "b"], legend))
    assert images.labelled(0)[1, :, 3:].tolist() == [[0, 32, 223], [0, 255, 0]]


def test_a_held_out_strip_keeps_its_layout(tmp_path: Path) -> None:
    seen, held_out = split(photos(tmp_path), None, seed=0, side=4)
    for part in (seen, held_out):
        assert (part.labelled(0)[..., 3:6].argmax(axis=2) * 80 == part[0][..., 0]).all()


def left_out(folder: Path, **options: Any) -> dict[str, str]:
    images = photos(folder, **options)
    return {remark.name: remark.text for remark in images.skipped}


def test_an_image_without_a_layout_is_left_out(tmp_path: Path) -> None:
    saved(np.zeros((24, 30, 3), dtype=np.uint8), tmp_path / "photos" / "other.png")
    where = tmp_path / "maps"
    assert left_out(tmp_path) == {"other.png": f"has no layout in {where}; give it one of this name"}


def test_an_image_whose_layout_has_another_size_is_left_out(tmp_path: Path) -> None:
    saved(np.zeros((24, 31, 3), dtype=np.uint8), tmp_path / "photos" / "other.png")
    saved(np.zeros((24, 30), dtype=np.uint8), tmp_path / "maps" / "other.tif")
    text = "its layout other.tif has 30x24 px: must have 31x24 px, as the image; save it in this size"
    assert left_out(tmp_path) == {"other.png": text}


def test_an_image_whose_layout_has_another_class_is_left_out(tmp_path: Path) -> None:
    text = left_out(tmp_path, legend=LayoutConfig(("a", "b", "c")), count=1)
    assert text == {}
    saved(np.zeros((24, 30, 3), dtype=np.uint8), tmp_path / "photos" / "other.png")
    saved(np.full((24, 30), 3, dtype=np.uint8), tmp_path / "maps" / "other.png")
    (text,) = left_out(tmp_path).values()
    assert text.startswith("its layout other.png: holds the value 3: must be numbers from 0 to 2, or ")


def test_strict_stops_at_the_first_image_without_a_layout(tmp_path: Path) -> None:
    saved(np.zeros((24, 30, 3), dtype=np.uint8), tmp_path / "photos" / "other.png")
    with pytest.raises(ValueError, match=r"^other.png: has no layout in "):
        photos(tmp_path, strict=True)


def test_names_are_equal_in_any_form_of_unicode_and_with_any_ending(tmp_path: Path) -> None:
    for form, name in (("NFC", "a/é.jpg"), ("NFD", "b/é.tif")):
        saved(np.zeros((8, 8), dtype=np.uint8), tmp_path / unicodedata.normalize(form, name))
    images = open_images([tmp_path / "a"], layouts=Layouts([tmp_path / "b"], LEGEND))
    assert len(images) == 1


def test_namesakes_find_the_layouts_of_their_own_folders(tmp_path: Path) -> None:
    for number, folder in enumerate(("one", "two")):
        saved(np.full((8, 8, 3), number, dtype=np.uint8), tmp_path / "photos" / folder / "x.png")
        saved(np.full((8, 8), number, dtype=np.uint8), tmp_path / "maps" / folder / "x.png")
    images = open_images([tmp_path / "photos"], layouts=Layouts([tmp_path / "maps"], LEGEND))
    assert [int(images.labelled(index)[0, 0, 3:6].argmax()) for index in range(2)] == [0, 1]


def test_namesakes_do_not_share_a_layout(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        saved(np.zeros((8, 8, 3), dtype=np.uint8), tmp_path / "photos" / folder / "x.png")
    saved(np.zeros((8, 8), dtype=np.uint8), tmp_path / "maps" / "x.png")
    with pytest.raises(
        ValueError, match="none of 2 images can be used; .* shares its name with other images"
    ):
        open_images([tmp_path / "photos"], layouts=Layouts([tmp_path / "maps"], LEGEND))


def test_layouts_that_lie_among_the_images_are_no_images(tmp_path: Path) -> None:
    photos(tmp_path)
    images = open_images([tmp_path], layouts=Layouts([tmp_path / "maps"], LEGEND))
    assert images.names == ("photos/0.png", "photos/1.png", "photos/2.png")


def test_other_layouts_give_another_fingerprint(tmp_path: Path) -> None:
    before = photos(tmp_path).fingerprint
    saved(np.zeros((24, 30), dtype=np.uint8), tmp_path / "maps" / "0.png")
    layouts = Layouts([tmp_path / "maps"], LEGEND)
    assert open_images([tmp_path / "photos"], layouts=layouts).fingerprint != before


@pytest.mark.parametrize(("most", "classes"), [(0, 1), (2, 3), (255, 2)])
def test_the_numbers_in_layouts_say_how_many_classes_there_are(
    most: int, classes: int, tmp_path: Path
) -> None:
    for name, value in (("a", 0), ("b", most)):
        saved(np.full((4, 4), value, dtype=np.uint8), tmp_path / f"{name}.png")
    (tmp_path / "damaged.png").write_bytes(b"nothing")
    assert count_classes(layouts_in([tmp_path])) == classes


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.full((4, 4), 32, dtype=np.uint8),
            r"^a.png: holds the value 32: must be the number of a class, at",
        ),
        (
            COLOURS[NUMBERS],
            r"^a.png: holds the colours #.{6}, .*, so it needs a legend: give --layout.classes",
        ),
    ],
)
def test_layouts_that_need_a_legend_are_refused_without_one(
    pixels: np.ndarray, message: str, tmp_path: Path
) -> None:
    saved(pixels, tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        count_classes(layouts_in([tmp_path]))


def test_a_folder_without_layouts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no layouts; give a folder of label images"):
        layouts_in([tmp_path])
