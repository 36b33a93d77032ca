"""Random crops, each batch a pure function of (seed, step)."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffnca.data import ImageSet, open_images
from diffnca.data.crops import crops

CANOPY = Path(__file__).parent / "canopy"


def images_of(folder: Path, *sizes: tuple[int, int]) -> ImageSet:
    """Make images whose pixels tell where they are: red is the image, green the row, blue the column."""
    for number, (height, width) in enumerate(sizes):
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        pixels[..., 0], pixels[..., 1], pixels[..., 2] = number, np.arange(height)[:, None], np.arange(width)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return open_images([folder])


def as_uint8(batch: torch.Tensor) -> np.ndarray:
    return ((batch + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).numpy()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    first, again = (open_images([CANOPY], cache_bytes=budget) for budget in (2 << 30, 0))
    crops(first, size=24, batch=4, seed=5, step=6)
    ahead = crops(first, size=24, batch=4, seed=5, step=7)
    assert torch.equal(ahead, crops(again, size=24, batch=4, seed=5, step=7))


@pytest.mark.parametrize(("seed", "step"), [(0, 1), (1, 0)])
def test_other_seeds_and_steps_give_other_crops(seed: int, step: int) -> None:
    images = open_images([CANOPY])
    first = crops(images, size=24, batch=4, seed=0, step=0)
    assert not torch.equal(first, crops(images, size=24, batch=4, seed=seed, step=step))


def test_the_range_is_minus_1_to_1(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).save(tmp_path / "a.png")
    batch = crops(open_images([tmp_path]), size=2, batch=3, seed=0, step=0)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous()
    assert batch.unique().tolist() == [-1.0, 1.0]


def test_without_flips_and_turns_crops_are_parts_of_the_images(tmp_path: Path) -> None:
    images = images_of(tmp_path, (20, 30), (40, 10))
    for crop in as_uint8(crops(images, size=6, batch=50, seed=0, step=0, flips=False, quarter_turns=False)):
        number, top, left = crop[0, 0].tolist()
        np.testing.assert_array_equal(crop, images[number][top : top + 6, left : left + 6])


def test_every_position_of_every_image_is_equally_likely(tmp_path: Path) -> None:
    images = images_of(tmp_path, (4, 7), (2, 2), (5, 3), (1, 9))  # 3*6 + 1 + 4*2 + 0 = 27 positions of 2x2
    batch = crops(images, size=2, batch=5_400, seed=0, step=0, flips=False, quarter_turns=False)
    _, counts = np.unique(as_uint8(batch)[:, 0, 0], axis=0, return_counts=True)
    assert len(counts) == 27
    assert ((counts - 200) ** 2 / 200).sum() < 60  # chi square, 26 degrees of freedom: p = 2e-4


@pytest.mark.parametrize(
    ("flips", "quarter_turns", "count"),
    [(False, False, 1), (True, False, 2), (False, True, 4), (True, True, 8)],
)
def test_flips_and_quarter_turns_give_their_symmetries(
    tmp_path: Path, flips: bool, quarter_turns: bool, count: int
) -> None:
    images = images_of(tmp_path, (3, 3))
    batch = crops(images, size=3, batch=200, seed=0, step=0, flips=flips, quarter_turns=quarter_turns)
    assert len(batch.unique(dim=0)) == count


def test_a_flip_is_left_right(tmp_path: Path) -> None:
    images = images_of(tmp_path, (3, 3))
    batch = crops(images, size=3, batch=20, seed=0, step=0, quarter_turns=False)
    assert {tuple(crop[:, 0, 1]) for crop in as_uint8(batch)} == {(0, 1, 2)}


def test_positions_do_not_depend_on_the_orientation(tmp_path: Path) -> None:
    images = images_of(tmp_path, (20, 30), (40, 10))
    plain, turned = (
        as_uint8(crops(images, size=5, batch=20, seed=0, step=0, flips=on, quarter_turns=on))
        for on in (False, True)
    )
    np.testing.assert_array_equal(plain.min(axis=(1, 2)), turned.min(axis=(1, 2)))


def test_gray_images_give_one_channel() -> None:
    images = open_images([CANOPY], channels=1)
    assert crops(images, size=8, batch=2, seed=0, step=0).shape == (2, 1, 8, 8)


def test_images_smaller_than_the_crop_are_never_drawn(tmp_path: Path) -> None:
    images = images_of(tmp_path, (4, 50), (10, 10), (50, 4))
    assert set(as_uint8(crops(images, size=10, batch=20, seed=0, step=0))[..., 0].ravel()) == {1}


def test_crops_larger_than_all_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="crops of 129 px: none of 6 images is as large"):
        crops(open_images([CANOPY]), size=129, batch=1, seed=0, step=0)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"batch": 0}, {"seed": -1}, {"step": -1}])
def test_numbers_out_of_range_are_an_error(wrong: dict[str, int]) -> None:
    arguments = {"size": 8, "batch": 1, "seed": 0, "step": 0} | wrong
    with pytest.raises(ValueError, match="must be"):
        crops(open_images([CANOPY]), **arguments)


def test_crops_of_real_photos_look_like_the_photos() -> None:
    images = open_images([CANOPY])
    batch = crops(images, size=64, batch=64, seed=0, step=0)
    mean = np.mean([image.mean(axis=(0, 1)) for image in images], axis=0) / 127.5 - 1
    assert np.abs(batch.mean(dim=(0, 2, 3)).numpy() - mean).max() < 0.1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are not listed here")
def test_no_threads_are_started_beside_those_of_training() -> None:
    images, allowed = open_images([CANOPY]), torch.get_num_threads()

    def started() -> set[str]:
        torch.set_num_threads(2)
        before = set(os.listdir("/proc/self/task"))  # names, for others may end meanwhile
        crops(images, size=48, batch=64, seed=0, step=0)
        return set(os.listdir("/proc/self/task")) - before

    try:
        with ThreadPoolExecutor(1) as prefetching:
            assert prefetching.submit(started).result() == set()
    finally:
        torch.set_num_threads(allowed)


def test_each_label_is_drawn_equally_often_and_every_position_within_it(tmp_path: Path) -> None:
    images = images_of(tmp_path, (4, 7), (2, 2), (5, 3))  # 18, 1 and 8 positions of 2x2
    labels = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    batch = crops(replace(images, labels=labels), size=2, batch=5_200, seed=0, step=0)
    shown, is_rare = as_uint8(batch[:, :3])[:, 0, 0, 0], batch[:, 4, 0, 0].numpy() == 1
    np.testing.assert_array_equal(is_rare, shown == 1)
    assert abs(is_rare.sum() - 2_600) < 150  # four standard deviations
    assert abs((shown == 0).sum() / (~is_rare).sum() - 18 / 26) < 0.04


def test_labels_change_no_crop_if_there_is_but_one(tmp_path: Path) -> None:
    images = images_of(tmp_path, (20, 30), (40, 10))
    alike = replace(images, labels=np.ones((2, 1), dtype=np.float32))
    made = [crops(each, size=6, batch=9, seed=3, step=4)[:, :3] for each in (images, alike)]
    assert torch.equal(*made)
