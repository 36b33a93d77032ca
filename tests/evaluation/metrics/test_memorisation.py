"""Copies of training images are caught, and unseen images are not taken for copies."""

from itertools import product

import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics.memorisation import beta_binomial_tail, memorisation, nearest


def cloud(n: int, seed: int, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_few_copies_are_caught_and_named() -> None:
    training, generated = cloud(500, 0), cloud(200, 1)
    generated[[3, 17, 40, 77, 80, 99, 123, 150]] = training[[9, 8, 7, 6, 5, 4, 3, 2]] + 1e-4
    found = memorisation(generated, training, cloud(300, 2), num_pairs=8)
    assert found.copied >= 8 / 200
    assert found.p_value < 0.01
    pairs = {(made, seen) for made, seen, _ in found.pairs}
    assert pairs == set(zip([3, 17, 40, 77, 80, 99, 123, 150], [9, 8, 7, 6, 5, 4, 3, 2], strict=True))


def test_a_set_of_copies_has_no_distance() -> None:
    training = cloud(500, 0)
    found = memorisation(training[:200], training, cloud(300, 2))
    assert (found.distance_ratio, found.copied) == (0.0, 1.0)
    assert found.p_value < 1e-9


def test_training_images_among_the_unseen_ones_are_refused() -> None:
    training, unseen = cloud(500, 0), cloud(200, 2)
    unseen[:2] = training[:2]
    with pytest.raises(ValueError, match="^2 of 200 unseen images equal a training image, and less than 1%"):
        memorisation(training[:100], training, unseen)


def test_unseen_images_are_not_taken_for_copies() -> None:
    found = memorisation(cloud(400, 1), cloud(500, 0), cloud(400, 2))
    assert found.distance_ratio == pytest.approx(1.0, abs=0.1)
    assert found.p_value > 0.01


def test_the_probability_is_rarely_small_for_unseen_images() -> None:
    training = cloud(60, 0)
    values = [
        memorisation(cloud(100, 2 * k + 1), training, cloud(150, 2 * k + 2)).p_value for k in range(100)
    ]
    assert sum(value <= 0.05 for value in values) <= 12


def test_the_expected_share_is_the_rank_of_the_threshold() -> None:
    assert memorisation(cloud(50, 0), cloud(60, 1), cloud(250, 2)).expected == 2 / 251


def test_the_tail_is_the_share_of_orders_in_which_so_many_come_first() -> None:
    orders = [c for c in product((0, 1), repeat=7) if sum(c) == 3]  # 3 generated among 4 unseen ones
    first = [sum(order[: [i for i, c in enumerate(order) if c == 0][1]]) for order in orders]
    expected = sum(count >= 2 for count in first) / len(orders)
    assert beta_binomial_tail(2, 3, 2, 3) == pytest.approx(expected, rel=1e-9)


def test_the_nearest_is_the_smallest_of_all_distances() -> None:
    queries, candidates = cloud(300, 0), cloud(70, 1)
    distances, indices = nearest(queries, candidates)
    expected = (queries.double()[:, None] - candidates.double()).square().sum(2).sqrt().min(1)
    torch.testing.assert_close(distances, expected.values, rtol=1e-12, atol=0)
    assert torch.equal(indices, expected.indices)


def test_too_few_unseen_images_are_one_line() -> None:
    with pytest.raises(ValueError, match="^99 unseen images: the report on memorisation needs 100"):
        memorisation(cloud(5, 0), cloud(5, 1), cloud(99, 2))
