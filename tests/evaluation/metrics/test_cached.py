"""Features are looked up where they are known, and only there."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics import features
from diffnca.evaluation.metrics.features import extract_cached, user_cache


class Counting:
    """The mean and the deviation of each channel; counts the images it looks at."""

    preprocessing = "none"

    def __init__(self, name: str = "counting", checksum: str = "0" * 64) -> None:
        self.name, self.checksum, self.seen = name, checksum, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        pixels = images.float().flatten(2)
        return torch.cat([pixels.mean(2), pixels.std(2)], 1)


def images(n: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 6, 8), generator=generator, dtype=torch.uint8)


def seen_again(folder: Path, extractor: Counting, other: Tensor) -> int:
    """Return how many images are looked at after the features of `images()` are known."""
    extract_cached(Counting(), images(), folder)
    extract_cached(extractor, other, folder)
    return extractor.seen


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    features = extract_cached(first, images(), tmp_path)
    assert torch.equal(extract_cached(second, images(), tmp_path), features)
    assert (first.seen, second.seen) == (7, 0)


def test_the_features_are_those_of_the_extractor(tmp_path: Path) -> None:
    torch.testing.assert_close(extract_cached(Counting(), images(), tmp_path), Counting()(images()))


def test_an_image_laid_out_otherwise_in_memory_is_the_same(tmp_path: Path) -> None:
    laid_out = images().to(memory_format=torch.channels_last)
    assert seen_again(tmp_path, Counting(), laid_out) == 0


def test_of_a_set_with_one_new_image_only_that_one_is_looked_at(tmp_path: Path) -> None:
    other = images()
    other[3, 1, 2, 4] += 1
    extractor = Counting()
    assert seen_again(tmp_path, extractor, other.flip(0)) == 1
    assert torch.equal(extract_cached(Counting(), other.flip(0), tmp_path), Counting()(other.flip(0)))


def test_equal_images_of_a_set_are_looked_at_once(tmp_path: Path) -> None:
    extractor, twice = Counting(), images().repeat(2, 1, 1, 1)
    assert torch.equal(extract_cached(extractor, twice, tmp_path), Counting()(twice))
    assert extractor.seen == 7


def test_the_same_pixels_in_another_shape_are_another_entry(tmp_path: Path) -> None:
    assert seen_again(tmp_path, Counting(), images().reshape(7, 3, 8, 6)) == 7


def test_other_weights_are_another_entry(tmp_path: Path) -> None:
    assert seen_again(tmp_path, Counting(checksum="1" * 64), images()) == 7


def test_another_network_is_another_entry(tmp_path: Path) -> None:
    assert seen_again(tmp_path, Counting(name="other"), images()) == 7


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    extractor = Counting()
    extract_cached(extractor, images(), None)
    extract_cached(extractor, images(), None)
    assert extractor.seen == 14
    assert list(tmp_path.iterdir()) == []


def test_the_report_counts_the_images_that_are_looked_at(tmp_path: Path) -> None:
    extract_cached(Counting(), images(3), tmp_path)
    reports: list[tuple[str, float, float]] = []
    extract_cached(Counting(), images(9), tmp_path, lambda *each: reports.append(each), "real")
    assert reports == [("real", 4, 6), ("real", 6, 6)]


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "other"])
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: str) -> None:
    features = extract_cached(Counting(), images(), tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    content = path.read_bytes()
    flipped = content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]
    path.write_bytes(
        {"empty": b"", "truncated": content[:-9], "flipped": flipped, "other": b"x" * 99}[damage]
    )
    again, third = Counting(), Counting()
    assert torch.equal(extract_cached(again, images(), tmp_path), features)
    assert torch.equal(extract_cached(third, images(), tmp_path), features)
    assert (again.seen, third.seen) == (7, 0)


def test_a_run_that_stops_keeps_what_it_has_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "IMAGES_PER_FILE", 4)

    class Stopping(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            if self.seen >= 8:
                raise KeyboardInterrupt
            return super().__call__(images)

    with pytest.raises(KeyboardInterrupt):
        extract_cached(Stopping(), images(14), tmp_path)
    extractor = Counting()
    assert torch.equal(extract_cached(extractor, images(14), tmp_path), Counting()(images(14)))
    assert extractor.seen == 6


def test_a_user_without_a_home_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ValueError, match="^the home folder is unknown, [^\n]+ --cache FOLDER [^\n]+$"):
        user_cache()


def test_a_folder_that_is_a_file_is_one_clear_line_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    extractor = Counting()
    with pytest.raises(ValueError, match=r"file cannot keep features \([^\n]+\): choose a folder[^\n]+$"):
        extract_cached(extractor, images(), tmp_path / "file")
    assert extractor.seen == 0
