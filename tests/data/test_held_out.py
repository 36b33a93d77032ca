"""What training does not see: complete images, or a strip of each image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.data import ImageSet, open_images
from diffnca.data.held_out import FEWEST_PICTURES, Part, split

CANOPY = Path(__file__).parent / "canopy"
SIDE = 16


def noise(path: Path, height: int = 100, width: int = 100, seed: int = 0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def names_of_split(images: ImageSet, share: float | None, seed: int) -> tuple[set[str], set[str]]:
    training, held_out = split(images, share, seed, SIDE)
    return set(training.names), set(held_out.names)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.34, 2), (0.5, 3)])
def test_a_split_is_a_partition_of_the_images(share: float, count: int) -> None:
    images = open_images([CANOPY])
    training, held_out = names_of_split(images, share, seed=0)
    assert len(held_out) == count
    assert training | held_out == set(images.names)
    assert not training & held_out


def test_a_split_depends_on_the_seed_only() -> None:
    splits = [names_of_split(open_images([CANOPY]), 0.34, seed) for seed in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert any(other != splits[0] for other in splits[2:])


def test_one_more_image_moves_at_most_one_image_of_the_split(tmp_path: Path) -> None:
    folder = shutil.copytree(CANOPY, tmp_path / "more")
    noise(folder / "new.png")
    _, before = names_of_split(open_images([CANOPY]), 0.34, seed=0)
    _, after = names_of_split(open_images([folder]), 0.34, seed=0)
    assert len(before - after) <= 1


@pytest.mark.parametrize("share", [0.5, None])
def test_the_parts_of_a_split_are_pixels_of_the_images(share: float | None) -> None:
    images = open_images([CANOPY])
    by_name = dict(zip(images.names, images, strict=True))
    for part in split(images, share, 0, SIDE):
        for source, pixels in zip(part.sources, part, strict=True):
            top, left, height, width = source.box if isinstance(source, Part) else (0, 0, *pixels.shape[:2])
            expected = by_name[source.picture][top : top + height, left : left + width]
            np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("share", [-0.1, 1.0, 0.95])
def test_a_split_that_leaves_nothing_to_train_on_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match="validation fraction"):
        split(open_images([CANOPY]), share, 0, SIDE)


@pytest.mark.parametrize(("height", "width"), [(100, 100), (60, 200), (200, 60)])
def test_the_parts_of_one_photo_join_to_the_photo(tmp_path: Path, height: int, width: int) -> None:
    pixels = noise(tmp_path / "a.png", height, width)
    parts = [part[0] for part in split(open_images([tmp_path]), None, 0, SIDE)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=int(width >= height)), pixels)


def test_a_photo_without_room_for_a_strip_is_trained_on_as_it_is(tmp_path: Path) -> None:
    pixels = noise(tmp_path / "a.png", 3 * SIDE - 1, 3 * SIDE - 1)
    training, held_out = split(open_images([tmp_path]), None, 0, SIDE)
    assert len(held_out) == 0
    np.testing.assert_array_equal(training[0], pixels)


def test_of_enough_pictures_a_tenth_is_held_out(tmp_path: Path) -> None:
    for seed in range(2 * FEWEST_PICTURES):
        noise(tmp_path / f"{seed}.png", seed=seed)
    training, held_out = split(open_images([tmp_path]), None, 0, SIDE)
    assert (len(training), len(held_out)) == (2 * FEWEST_PICTURES - 2, 2)


def test_namesakes_are_held_out_in_strips(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(FEWEST_PICTURES)]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        noise(folder / "a.png", seed=seed)
    assert len(split(open_images(folders), None, 0, SIDE)[1]) == FEWEST_PICTURES
