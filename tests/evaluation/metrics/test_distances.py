"""KID and FID are the plain formulas, and their errors are honest."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics.distances import fid, kid


def features(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    """Return correlated Gaussian vectors."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + shift


def plain_kid(
    a: np.ndarray, b: np.ndarray, of_a: np.ndarray | None = None, of_b: np.ndarray | None = None
) -> float:
    """Return the distance, written as sums over pairs of vectors of different pictures."""

    def mean(x: np.ndarray, y: np.ndarray, allowed: np.ndarray) -> float:
        kernel = np.array([[(np.dot(v, w) / len(v) + 1) ** 3 for w in y] for v in x])
        return float(kernel[allowed].mean())

    of_a, of_b = (np.arange(len(x)) if of is None else of for x, of in ((a, of_a), (b, of_b)))
    within_a = mean(a, a, of_a[:, None] != of_a)
    within_b = mean(b, b, of_b[:, None] != of_b)
    return within_a + within_b - 2 * mean(a, b, np.ones((len(a), len(b)), dtype=bool))


def plain_fid(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance with the eigenvalues of the product of the covariances."""
    covariance_a, covariance_b = np.cov(a.T), np.cov(b.T)
    root_trace = np.sqrt(np.linalg.eigvals(covariance_a @ covariance_b).astype(complex)).real.sum()
    means = np.square(a.mean(0) - b.mean(0)).sum()
    return float(means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root_trace)


def test_kid_of_images_that_are_no_crops_is_the_plain_formula() -> None:
    a, b = features(31, 8, seed=0), features(24, 8, seed=1, shift=0.5)
    assert kid(a, b).value == pytest.approx(plain_kid(a.numpy(), b.numpy()), rel=1e-9)


def test_kid_of_crops_leaves_out_pairs_within_a_picture() -> None:
    a, b = features(31, 8, seed=0).numpy(), features(24, 8, seed=1, shift=0.5).numpy()
    of_a, of_b = np.arange(31) % 5 * 7, np.arange(24) ** 2 // 100
    expected = plain_kid(a, b, of_a, of_b)
    assert expected != pytest.approx(plain_kid(a, b), rel=1e-3)
    assert kid(*map(torch.from_numpy, (a, b, of_a, of_b))).value == pytest.approx(expected, rel=1e-9)


def test_kid_in_blocks_of_rows_is_the_plain_formula() -> None:
    a, b = features(700, 3, seed=0).numpy(), features(600, 3, seed=1).numpy()
    kernel_a, kernel_b, across = ((x @ y.T / 3 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within_a = (kernel_a.sum() - np.trace(kernel_a)) / (700 * 699)
    within_b = (kernel_b.sum() - np.trace(kernel_b)) / (600 * 599)
    distance = kid(torch.from_numpy(a), torch.from_numpy(b)).value
    assert distance == pytest.approx(within_a + within_b - 2 * across.mean(), rel=1e-6)


def crops_of(num_pictures: int, each: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return vectors of crops, which are alike within a picture, and their pictures."""
    pictures = torch.arange(num_pictures).repeat_interleave(each)
    return features(num_pictures, 4, seed)[pictures] + 0.3 * features(len(pictures), 4, seed + 1), pictures


def test_crops_of_few_pictures_of_one_distribution_have_a_distance_of_0_within_the_error() -> None:
    sets = [(crops_of(12, 8, seed=4 * k), crops_of(8, 12, seed=4 * k + 2)) for k in range(60)]
    found = [kid(a, b, of_a, of_b) for (a, of_a), (b, of_b) in sets]
    ratios = np.array([each.value / each.error for each in found])
    assert abs(ratios.mean()) < 0.3
    assert np.abs(ratios).max() < 4
    with_pairs_within = np.mean([kid(a, b).value for (a, _), (b, _) in sets])
    assert with_pairs_within > 3 * np.std([each.value for each in found]) / 60**0.5


def test_the_error_is_the_spread_over_fresh_draws() -> None:
    pairs = [(features(100, 4, seed=2 * k), features(100, 4, seed=2 * k + 1, shift=0.7)) for k in range(100)]
    found = [kid(a, b) for a, b in pairs]
    spread = np.std([each.value for each in found])
    assert np.mean([each.error for each in found]) == pytest.approx(spread, rel=0.2)


def test_the_distance_between_equal_distributions_is_0_within_its_error() -> None:
    found = [kid(features(100, 16, seed=2 * k), features(100, 16, seed=2 * k + 1)) for k in range(100)]
    ratios = np.array([each.value / each.error for each in found])
    assert np.abs(ratios).max() < 4
    assert abs(ratios.mean()) < 0.3


def test_the_error_leaves_out_one_picture_at_a_time() -> None:
    a, b = features(24, 5, seed=0, shift=3.0).numpy(), features(18, 5, seed=1).numpy()
    of_a, of_b = np.arange(24) % 6 * 10, np.arange(18) // 3
    variance = 0.0
    for pictures, left in (
        (of_a, lambda keep: (a[keep], b, of_a[keep], of_b)),
        (of_b, lambda keep: (a, b[keep], of_a, of_b[keep])),
    ):
        distances = np.array([plain_kid(*left(pictures != k)) for k in np.unique(pictures)])
        variance += distances.var() * (len(distances) - 1)
    error = kid(*map(torch.from_numpy, (a, b, of_a, of_b))).error
    assert error == pytest.approx(variance**0.5, rel=1e-6)


def test_copies_of_a_picture_do_not_shrink_the_error() -> None:
    a, b, pictures = features(200, 5, seed=0, shift=1.0) / 4, features(200, 5, seed=1) / 4, torch.arange(200)
    copies_a, copies_b, of_copies = (x.repeat_interleave(4, 0) for x in (a, b, pictures))
    error = kid(copies_a, copies_b, of_copies, of_copies).error
    assert error == pytest.approx(kid(a, b).error, rel=1e-6)
    assert kid(copies_a, copies_b).error < 0.7 * error


@pytest.mark.parametrize("num_pictures", [1, 2])
def test_a_set_of_one_or_two_pictures_has_a_distance_without_an_error(num_pictures: int) -> None:
    a, b = features(30, 4, seed=0), features(20, 4, seed=1, shift=1.0)
    pictures = torch.arange(20) % num_pictures
    expected = plain_kid(a.numpy(), b.numpy(), None, pictures.numpy() if num_pictures == 2 else None)
    for found in (kid(a, b, None, pictures), kid(b, a, pictures)):
        assert found.value == pytest.approx(expected, rel=1e-9)
        assert found.error is None


def test_very_many_pictures_are_put_into_groups_without_changing_the_distance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = features(600, 5, seed=0, shift=1.0) / 4, features(600, 5, seed=1) / 4
    alone = kid(a, b)
    monkeypatch.setattr("diffnca.evaluation.metrics.distances._MOST_GROUPS", 100)
    assert kid(a, b).error == pytest.approx(alone.error, rel=0.25)
    assert kid(a, b).value == pytest.approx(alone.value, rel=1e-9)


def test_fid_is_the_plain_formula() -> None:
    a, b = features(200, 12, seed=0), features(150, 12, seed=1, shift=0.4)
    assert fid(a, b) == pytest.approx(plain_fid(a.numpy(), b.numpy()), rel=1e-6)


def test_fid_of_fewer_images_than_features_is_the_plain_formula() -> None:
    a, b = features(9, 12, seed=0), features(11, 12, seed=1)
    assert fid(a, b) == pytest.approx(plain_fid(a.numpy(), b.numpy()), rel=1e-6)


def test_fid_of_two_lines_is_the_distance_of_means_and_deviations() -> None:
    x = torch.tensor([[-1.0], [0.0], [1.0]])  # mean 0, deviation 1
    assert fid(x, 3 * x + 2) == pytest.approx(2**2 + (3 - 1) ** 2, rel=1e-12)


def test_fid_of_a_set_with_itself_is_0() -> None:
    a = features(40, 60, seed=0)
    assert fid(a, a) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("distance", [kid, fid])
def test_features_that_are_no_numbers_are_one_clear_line(distance, value: float) -> None:  # type: ignore[no-untyped-def]
    broken = features(120, 4, seed=0)
    broken[7, 2] = value
    with pytest.raises(
        ValueError, match="^1 of 120 images of the second set have NaN or infinite features.*$"
    ):
        distance(features(120, 4, seed=1), broken)


@pytest.mark.parametrize("distance", [kid, fid])
def test_a_set_of_one_image_is_one_clear_line(distance) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="^the first set has 1 images: a distance needs at least 2$"):
        distance(features(1, 4, seed=0), features(120, 4, seed=1))
