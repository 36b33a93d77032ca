"""KID and FID are the plain formulas, and their errors are honest."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics import fid, kid, kid_error, kid_full


def features(n: int, d: int, seed: int, shift: float = 0.0) -> Tensor:
    """Return correlated Gaussian vectors."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + shift


def plain_kid(a: np.ndarray, b: np.ndarray) -> float:
    """Return the unbiased estimate, written as sums over pairs."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_a + within_b - 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)


def plain_fid(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance with the eigenvalues of the product of the covariances."""
    covariance_a, covariance_b = np.cov(a.T), np.cov(b.T)
    root_trace = np.sqrt(np.linalg.eigvals(covariance_a @ covariance_b).astype(complex)).real.sum()
    means = np.square(a.mean(0) - b.mean(0)).sum()
    return float(means + np.trace(covariance_a) + np.trace(covariance_b) - 2 * root_trace)


def test_kid_over_all_is_the_plain_formula() -> None:
    a, b = features(31, 8, seed=0), features(24, 8, seed=1, shift=0.5)
    assert kid_full(a, b) == pytest.approx(plain_kid(a.numpy(), b.numpy()), rel=1e-6)


def test_kid_in_blocks_of_rows_is_the_plain_formula() -> None:
    a, b = features(700, 3, seed=0).numpy(), features(600, 3, seed=1).numpy()
    kernel_a, kernel_b, across = ((x @ y.T / 3 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within_a = (kernel_a.sum() - np.trace(kernel_a)) / (700 * 699)
    within_b = (kernel_b.sum() - np.trace(kernel_b)) / (600 * 599)
    distance = kid_full(torch.from_numpy(a), torch.from_numpy(b))
    assert distance == pytest.approx(within_a + within_b - 2 * across.mean(), rel=1e-6)


def test_kid_of_subsets_averages_to_kid_over_all() -> None:
    a, b = features(60, 6, seed=0), features(50, 6, seed=1, shift=0.3)
    mean, error = kid(a, b, subset_size=25, num_subsets=800)
    assert abs(mean - kid_full(a, b)) < 0.1 * error


def test_kid_of_subsets_follows_its_seed() -> None:
    a, b = features(60, 6, seed=0), features(50, 6, seed=1)
    assert kid(a, b, 20, 5, seed=3) == kid(a, b, 20, 5, seed=3) != kid(a, b, 20, 5, seed=4)


def test_drawing_more_subsets_does_not_shrink_the_error() -> None:
    a, b = features(200, 6, seed=0), features(200, 6, seed=1, shift=0.5)
    assert kid(a, b, 50, 400)[1] == pytest.approx(kid(a, b, 50, 100)[1], rel=0.25)


def test_both_errors_are_the_spread_over_fresh_draws() -> None:
    pairs = [(features(100, 4, seed=2 * k), features(100, 4, seed=2 * k + 1, shift=0.7)) for k in range(100)]
    spread = np.std([kid_full(a, b) for a, b in pairs])
    jackknife = np.mean([kid_error(a, b) for a, b in pairs])
    subsets = np.mean([kid(a, b, 50, 50)[1] for a, b in pairs[:20]])
    assert jackknife == pytest.approx(spread, rel=0.2)
    assert subsets == pytest.approx(spread, rel=0.3)


def test_the_distance_between_equal_distributions_is_0_within_its_error() -> None:
    pairs = [(features(100, 16, seed=2 * k), features(100, 16, seed=2 * k + 1)) for k in range(100)]
    ratios = np.array([kid_full(a, b) / kid_error(a, b) for a, b in pairs])
    assert np.abs(ratios).max() < 4
    assert abs(ratios.mean()) < 0.3


def test_the_error_leaves_out_one_picture_at_a_time() -> None:
    a, b = features(24, 5, seed=0, shift=3.0).numpy(), features(18, 5, seed=1).numpy()
    pictures_a, pictures_b = np.arange(24) % 6 * 10, np.arange(18) // 3
    variance = 0.0
    for pictures, left in ((pictures_a, lambda keep: (a[keep], b)), (pictures_b, lambda keep: (a, b[keep]))):
        distances = np.array([plain_kid(*left(pictures != k)) for k in np.unique(pictures)])
        variance += distances.var() * (len(distances) - 1)
    error = kid_error(*map(torch.from_numpy, (a, b, pictures_a, pictures_b)))
    assert error == pytest.approx(variance**0.5, rel=1e-6)


def test_copies_of_a_picture_do_not_shrink_the_error() -> None:
    a, b, pictures = features(200, 5, seed=0, shift=1.0) / 4, features(200, 5, seed=1) / 4, torch.arange(200)
    copies_a, copies_b, pictures_of_copies = (x.repeat_interleave(4, 0) for x in (a, b, pictures))
    error = kid_error(copies_a, copies_b, pictures_of_copies, pictures_of_copies)
    assert error == pytest.approx(kid_error(a, b), rel=0.1)
    assert kid_error(copies_a, copies_b) < 0.7 * error


def test_very_many_pictures_are_put_into_groups_without_changing_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a, b = features(600, 5, seed=0, shift=1.0) / 4, features(600, 5, seed=1) / 4
    alone = kid_error(a, b)
    monkeypatch.setattr("diffnca.evaluation.metrics.distances._MOST_GROUPS", 100)
    assert kid_error(a, b) == pytest.approx(alone, rel=0.25)


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
@pytest.mark.parametrize("distance", [kid, kid_full, kid_error, fid])
def test_features_that_are_no_numbers_are_one_clear_line(distance, value: float) -> None:  # type: ignore[no-untyped-def]
    broken = features(120, 4, seed=0)
    broken[7, 2] = value
    with pytest.raises(
        ValueError, match="^1 of 120 images of the second set have NaN or infinite features.*$"
    ):
        distance(features(120, 4, seed=1), broken)


@pytest.mark.parametrize("distance", [kid, kid_full, kid_error, fid])
def test_a_set_of_one_image_is_one_clear_line(distance) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="^the first set has 1 images: a distance needs at least 2$"):
        distance(features(1, 4, seed=0), features(120, 4, seed=1))


def test_a_subset_as_large_as_the_set_is_one_clear_line() -> None:
    a, b = features(40, 4, seed=0), features(30, 4, seed=1)
    with pytest.raises(
        ValueError, match="^subset_size is 30, but the smaller set has 30 images: choose 2 to 29"
    ):
        kid(a, b, subset_size=30)


def test_a_single_subset_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match="^num_subsets is 1, but an error needs at least 2"):
        kid(features(40, 4, seed=0), features(30, 4, seed=1), subset_size=10, num_subsets=1)


def test_crops_of_one_picture_alone_have_no_error_in_one_clear_line() -> None:
    a, pictures = features(40, 4, seed=0), torch.zeros(40, dtype=torch.int64)
    with pytest.raises(
        ValueError, match="^the first set has 40 images out of 1 pictures: an error needs 2 or more"
    ):
        kid_error(a, a, pictures)
