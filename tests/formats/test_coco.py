"""Annotations of COCO: connected parts against a flood fill, runs that decode to the part, the file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffnca.formats.coco import Annotated, Class, components, run_lengths, write_coco

CLASSES = (Class(1, "gland", (0, 0, 255)), Class(2, "white", (255, 255, 255)))
RING = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 1], [0, 1, 1, 1]], dtype=np.uint8)

masks = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[3]
)


def filled(mask: np.ndarray) -> list[np.ndarray]:
    """Return the parts of a mask by filling them one after the other, column by column."""
    left, parts = mask.copy(), []
    for x, y in np.argwhere(mask.T):
        part, waiting = np.zeros_like(mask), [(y, x)]
        while waiting:
            row, column = waiting.pop()
            inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
            if inside and left[row, column]:
                left[row, column], part[row, column] = False, True
                waiting += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        parts += [part] if part.any() else []
    return parts


def decoded(counts: list[int], height: int, width: int) -> np.ndarray:
    """Return the mask of an uncompressed RLE of COCO: lengths of 0 and 1 in turn, down the columns."""
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(width, height).T


def written(path: Path, *numbers: np.ndarray) -> dict[str, Any]:
    images = [Annotated(f"{index}.png", each, {"seed": index}) for index, each in enumerate(numbers)]
    write_coco(path, images, CLASSES, "CC0")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@given(masks)
def test_parts_are_those_of_a_flood_fill_with_corners(mask: np.ndarray) -> None:
    found = [decoded(run_lengths(runs, mask.size), *mask.shape) for runs in components(mask)]
    expected = filled(mask)
    assert len(found) == len(expected)
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


@given(masks)
def test_only_the_first_run_length_may_be_zero(mask: np.ndarray) -> None:
    lengths = [run_lengths(runs, mask.size) for runs in components(mask)]
    assert all(length > 0 for each in lengths for length in each[1:])


def test_pixels_that_touch_at_a_corner_are_one_part() -> None:
    assert len(components(np.eye(4, dtype=bool))) == 1
    assert len(components(np.array([[True, False, True]]))) == 2


def test_the_end_of_a_column_does_not_touch_the_start_of_the_next() -> None:
    mask = np.zeros((4, 2), dtype=bool)
    mask[3, 0] = mask[0, 1] = True
    assert len(components(mask)) == 2


def test_an_annotation_says_box_area_and_pixels_with_holes(tmp_path: Path) -> None:
    ring, hole = written(tmp_path / "a.json", RING)["annotations"]
    assert (ring["category_id"], ring["bbox"], ring["area"]) == (1, [1, 1, 3, 3], 8)
    assert (hole["category_id"], hole["bbox"], hole["area"]) == (2, [2, 2, 1, 1], 1)
    assert (decoded(ring["segmentation"]["counts"], *ring["segmentation"]["size"]) == (RING == 1)).all()


def test_the_numbers_of_annotations_and_images_begin_with_one_and_have_no_gaps(tmp_path: Path) -> None:
    found = written(tmp_path / "a.json", RING, np.zeros_like(RING), RING)
    assert [each["id"] for each in found["annotations"]] == [1, 2, 3, 4]
    assert [each["image_id"] for each in found["annotations"]] == [1, 1, 3, 3]
    assert [(each["id"], each["file_name"]) for each in found["images"]] == [
        (1, "0.png"),
        (2, "1.png"),
        (3, "2.png"),
    ]


def test_categories_are_the_classes_and_images_have_the_licence(tmp_path: Path) -> None:
    found = written(tmp_path / "a.json", RING)
    assert [(each["id"], each["name"], each["color"]) for each in found["categories"]] == [
        (1, "gland", [0, 0, 255]),
        (2, "white", [255, 255, 255]),
    ]
    assert found["licenses"][0]["name"] == "CC0"
    assert found["images"] == [
        {"id": 1, "file_name": "0.png", "height": 4, "width": 4, "license": 1, "seed": 0}
    ]


def test_without_objects_the_list_is_empty(tmp_path: Path) -> None:
    assert written(tmp_path / "a.json", np.zeros_like(RING))["annotations"] == []


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Any:
        yield Annotated("0.png", RING, {})
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_coco(tmp_path / "a.json", failing(), CLASSES, "CC0")
    assert not list(tmp_path.iterdir())
