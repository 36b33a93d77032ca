"""The paired bootstrap knows which of two models is nearer, and how sure that is."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics.distances import kid, kid_difference


def cloud(n: int, seed: int, shift: float = 0.0, d: int = 6) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double() + shift


def model(n: int, seed: int, shift: float = 0.0) -> Tensor:
    """Return what one training of a model makes."""
    return cloud(n, seed, shift)[None]


def test_the_difference_is_that_of_the_distances() -> None:
    a, b, real = model(40, 0, 0.3), model(40, 1, 0.6), cloud(50, 2)
    expected = kid(a[0], real).value - kid(b[0], real).value
    assert kid_difference(a, b, real).mean == pytest.approx(expected, rel=1e-9)


def test_the_difference_is_the_same_where_crops_share_their_pictures() -> None:
    a, b, real = model(40, 0, 0.3), model(40, 1, 0.6), cloud(50, 2)
    pictures = torch.arange(50) // 5
    assert kid_difference(a, b, real, pictures).mean == pytest.approx(
        kid_difference(a, b, real).mean, rel=1e-9
    )


def test_a_set_does_not_beat_itself() -> None:
    a = model(40, 0, 0.3)
    found = kid_difference(a, a, cloud(50, 2))
    assert (found.mean, found.error, found.share_a_better) == (0.0, 0.0, 0.0)


def test_the_nearer_set_wins_in_nearly_every_draw() -> None:
    found = kid_difference(model(100, 0), model(100, 1, 0.8), cloud(100, 2))
    assert found.mean < 0
    assert found.share_a_better > 0.99


def test_exchanged_sets_have_the_opposite_difference() -> None:
    a, b, real = model(40, 0, 0.3), model(40, 1, 0.6), cloud(50, 2)
    one, other = kid_difference(a, b, real), kid_difference(b, a, real)
    assert one.mean == -other.mean
    assert one.share_a_better == pytest.approx(1 - other.share_a_better, abs=1e-9)


def test_the_error_is_the_spread_over_fresh_draws() -> None:
    trials = []
    for k in range(60):
        a = model(100, 3 * k, 0.5)
        trials.append((a, a + 0.3 * model(100, 3 * k + 1, 0.5), cloud(100, 3 * k + 2)))
    found = [kid_difference(*trial, num_draws=200) for trial in trials]
    spread = np.std([each.mean for each in found])
    assert np.mean([each.error for each in found]) == pytest.approx(spread, rel=0.3)


def test_what_both_share_takes_no_part() -> None:
    common, real = model(150, 0, 0.5), cloud(150, 1)
    paired = kid_difference(common, common + 0.05 * model(150, 2), real).error
    apart = kid_difference(common, model(150, 3, 0.5), real).error
    assert paired < 0.3 * apart


def trainings(n: int, seed: int, count: int) -> Tensor:
    """Return what trainings of one recipe make, each of which has learnt something else."""
    off = 0.3 + 0.2 * torch.randn(count, 1, 1, generator=torch.Generator().manual_seed(seed + 10**6)).double()
    return torch.stack([cloud(n, seed + k) for k in range(count)]) + off


def test_the_difference_of_several_trainings_is_that_of_their_means() -> None:
    a, b, real = trainings(40, 0, 3), trainings(40, 10, 2), cloud(50, 20)
    means = [np.mean([kid(one, real).value for one in each]) for each in (a, b)]
    assert kid_difference(a, b, real).mean == pytest.approx(means[0] - means[1], rel=1e-9)


@pytest.mark.parametrize("count", [2, 4])
def test_the_error_of_several_trainings_is_the_spread_over_fresh_ones(count: int) -> None:
    trials = [
        (trainings(60, 100 * k, count), trainings(60, 100 * k + 10, count), cloud(60, 100 * k + 20))
        for k in range(80)
    ]
    found = [kid_difference(*trial, num_draws=200) for trial in trials]
    spread = np.var([each.mean for each in found])
    assert np.mean([each.error**2 for each in found]) == pytest.approx(spread, rel=0.35)


def test_one_training_says_nothing_about_another() -> None:
    a, b, real = trainings(60, 0, 4), trainings(60, 10, 4), cloud(60, 20)
    assert kid_difference(a, b, real).error > 1.5 * kid_difference(a[:1], b[:1], real).error


def test_the_draws_follow_their_seed() -> None:
    a, b, real = model(40, 0, 0.3), model(40, 1, 0.6), cloud(50, 2)
    assert (
        kid_difference(a, b, real, seed=1) == kid_difference(a, b, real, seed=1) != kid_difference(a, b, real)
    )


@pytest.mark.parametrize("n", [2, 3, 7])
def test_the_error_of_few_pairs_is_a_number(n: int) -> None:
    found = kid_difference(model(n, 0, 0.3), model(n, 1, 0.6), cloud(50, 2))
    assert 0.0 < found.error < np.inf


@pytest.mark.parametrize("n", [2, 3])
def test_of_few_pairs_one_of_two_sets_is_nearer_in_each_draw(n: int) -> None:
    a, b, real = model(n, 0, 0.3), model(n, 1, 0.6), cloud(50, 2)
    shares = kid_difference(a, b, real).share_a_better + kid_difference(b, a, real).share_a_better
    assert shares == pytest.approx(1.0, abs=1e-9)


def test_sets_that_are_no_pairs_are_one_line() -> None:
    with pytest.raises(ValueError, match="^5 images of A and 6 of B: must be pairs"):
        kid_difference(model(5, 0), model(6, 1), cloud(9, 2))
