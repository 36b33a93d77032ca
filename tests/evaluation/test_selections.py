"""Crops are where they should be, and worse images score worse."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional

from diffnca.evaluation.metrics.features import FeatureExtractor, efficientnet_lite0
from diffnca.evaluation.scores import Score, score
from diffnca.evaluation.selections import Picture, Selection, count_crops, crops, whole

CANOPY = Path(__file__).parent.parent / "data" / "canopy"


class Pooled:
    """Colours on a coarse grid and their spread: enough to tell textures apart, and fast."""

    name = "pooled"
    preprocessing = "[0, 1]"
    checksum = "0"

    def __call__(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        mean = functional.adaptive_avg_pool2d(x, 2)
        edges = x.diff(dim=2).abs().mean((2, 3)), x.diff(dim=3).abs().mean((2, 3))
        return torch.cat([mean.flatten(1), *edges], 1) * 10


def plain_pictures(n: int, height: int, width: int) -> list[Picture]:
    """Return pictures in which every pixel tells its picture, row and column."""
    rows, columns = np.indices((height, width))
    return [np.stack([np.full_like(rows, k), rows, columns], 2).astype(np.uint8) for k in range(n)]


def textures(n: int, seed: int) -> list[Picture]:
    """Return smooth random pictures."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return [
        np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)) for pixels in coarse
    ]


def canopy() -> list[Picture]:
    return [np.array(Image.open(path)) for path in sorted(CANOPY.glob("*.jpg"))]


def noised(pictures: Sequence[Picture], sigma: float) -> list[Picture]:
    generator = np.random.default_rng(0)
    return [
        np.clip(picture + sigma * generator.normal(size=picture.shape), 0, 255).astype(np.uint8)
        for picture in pictures
    ]


def blurred(pictures: Sequence[Picture], radius_px: float) -> list[Picture]:
    blur = ImageFilter.GaussianBlur(radius_px)
    return [np.asarray(Image.fromarray(picture).filter(blur)) for picture in pictures]


@pytest.fixture(scope="module")
def network() -> FeatureExtractor:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra eval")
    return efficientnet_lite0()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def test_all_crops_of_the_grid_tile_the_pictures() -> None:
    selection = crops(plain_pictures(2, 17, 24), n=12, side_px=8)
    corners = selection.images[:, :, 0, 0].tolist()
    assert corners == [[k, top, left] for k in (0, 1) for top in (0, 8) for left in (0, 8, 16)]


def test_some_crops_of_the_grid_are_spread_over_all_pictures() -> None:
    selection = crops(plain_pictures(6, 16, 16), n=9, side_px=4)
    assert selection.pictures.bincount().tolist() == [2, 1, 2, 1, 2, 1]


def test_crops_know_their_picture() -> None:
    selection = crops(plain_pictures(5, 20, 30), n=40, side_px=7, seed=0)
    assert selection.pictures.tolist() == selection.images[:, 0, 3, 3].tolist()


def test_crops_of_pictures_of_different_sizes_lie_inside() -> None:
    pictures = [*plain_pictures(1, 9, 30), *plain_pictures(1, 5, 50), *plain_pictures(1, 30, 8)]
    selection = crops(pictures, n=count_crops(pictures, 8), side_px=8)
    assert selection.pictures.tolist() == [0, 0, 0, 2, 2, 2]


def test_random_crops_are_all_different() -> None:
    selection = crops(plain_pictures(2, 10, 10), n=18, side_px=8, seed=0)
    assert len(selection.images[:, :, 0, 0].unique(dim=0)) == 18


def test_random_crops_follow_their_seed() -> None:
    first, again, other = (crops(plain_pictures(3, 30, 30), 20, 8, seed).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_score_says_what_it_was_measured_with() -> None:
    result = score(whole(textures(8, seed=0)), whole(textures(6, seed=1)), Pooled())
    assert (result.n, result.n_reference, result.features, result.checksum) == (8, 6, "pooled", "0")


def test_real_against_real_is_0_within_its_error() -> None:
    result = score(whole(textures(100, seed=0)), whole(textures(100, seed=1)), Pooled())
    assert abs(result.kid_x1000) < 2 * result.error


def test_a_set_scores_better_against_itself_than_real_against_real() -> None:
    pictures = whole(textures(50, seed=0))
    assert score(pictures, pictures, Pooled()).kid_x1000 < 0


def test_crops_of_few_pictures_have_a_larger_error_than_as_many_pictures() -> None:
    pictures, others = textures(60, seed=0), whole(noised(textures(60, seed=1), 30))
    apart = score(whole(pictures), others, Pooled()).error
    copies = Selection(whole(pictures[:6] * 10).images, torch.arange(60) % 6)
    assert score(copies, others, Pooled()).error > 2 * apart


def assert_worsening(results: Sequence[Score]) -> None:
    kids, fids = [result.kid_x1000 for result in results], [result.fid for result in results]
    assert kids == sorted(kids)
    assert fids == sorted(fids)
    assert kids[-1] > kids[0] + 3 * results[-1].error


def test_noise_worsens_the_score_of_canopy_monotonically(network: FeatureExtractor, cache: Path) -> None:
    reference = crops(canopy(), 12)
    worse = [crops(noised(canopy(), sigma), 12) for sigma in (0, 8, 24, 72)]
    assert_worsening([score(each, reference, network, cache) for each in worse])


def test_blur_worsens_the_score_of_canopy_monotonically(network: FeatureExtractor, cache: Path) -> None:
    reference = crops(canopy(), 12)
    worse = [crops(blurred(canopy(), radius_px), 12) for radius_px in (0, 1, 2, 4)]
    assert_worsening([score(each, reference, network, cache) for each in worse])


def test_canopy_against_canopy_is_0_within_its_error(network: FeatureExtractor, cache: Path) -> None:
    images = crops(canopy(), 24).images
    result = score(whole(as_pictures(images[::2])), whole(as_pictures(images[1::2])), network, cache)
    assert abs(result.kid_x1000) < 2 * result.error


def as_pictures(images: Tensor) -> list[Picture]:
    return list(images.movedim(1, 3).numpy())


def test_more_crops_than_there_are_is_one_clear_line() -> None:
    line = "^25 crops of 64x64 px are asked for, but the images hold 24: ask for fewer [^\n]+$"
    with pytest.raises(ValueError, match=line):
        crops(canopy(), 25)


def test_pictures_smaller_than_a_crop_are_one_clear_line() -> None:
    with pytest.raises(
        ValueError, match="^4 crops of 64x64 px are asked for, but the images hold 0: [^\n]+$"
    ):
        crops(textures(3, seed=0), 4, seed=0)


@pytest.mark.parametrize("select", [whole, lambda pictures: crops(pictures, 1), count_crops])
def test_no_images_are_one_clear_line(select) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="^there are no images to score: give at least 2$"):
        select([])


def test_whole_images_of_mixed_sizes_are_one_clear_line() -> None:
    mixed = [*textures(2, seed=0), *plain_pictures(1, 9, 30)]
    with pytest.raises(
        ValueError, match=r"^the images have 2 shapes .*\(9, 30, 3\) and \(48, 48, 3\): bring [^\n]+$"
    ):
        whole(mixed)


def test_crops_of_gray_and_colour_are_one_clear_line() -> None:
    mixed = [*textures(2, seed=0), textures(1, seed=1)[0][:, :, :1]]
    with pytest.raises(ValueError, match=r"^the images have \[1, 3\] channels: bring [^\n]+$"):
        crops(mixed, 2, side_px=8)


def test_generated_and_reference_of_different_sizes_are_one_clear_line() -> None:
    pictures = textures(9, seed=0)
    with pytest.raises(
        ValueError, match="^the generated images are 16x16 px and the reference 48x48 px [^\n]+$"
    ):
        score(crops(pictures, 9, side_px=16), whole(pictures), Pooled())


def test_a_crop_without_a_side_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match="^side_px is 0: a crop has a side of 1 px or more$"):
        crops(textures(2, seed=0), 1, side_px=0)
