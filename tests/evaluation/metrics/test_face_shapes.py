"""Distances from the shapes of real faces: exact where the distributions are known."""

import math

import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics.face_shapes import (
    MIN_REAL_FACES,
    FaceError,
    distances_from,
    face_error,
    probability_of_larger,
    shrunk_covariance,
)


def normal(n: int, seed: int, dimensions: int = 6) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def error_of(generated: Tensor, real: Tensor) -> FaceError:
    found = face_error(generated, real)
    assert found is not None
    return found


def test_faces_like_real_ones_are_as_far_out_as_these() -> None:
    found = [error_of(normal(100, seed), normal(200, 1000 + seed)) for seed in range(100)]
    mean = sum(each.farther for each in found) / 100
    assert abs(mean - 0.5) < 3 * found[0].error / math.sqrt(100)
    beyond = sum(each.beyond for each in found) / 100
    assert found[0].expected == 1 / 101
    assert beyond == pytest.approx(1 / 101, abs=0.004)  # its standard deviation is 0.14 / sqrt(100) %


def test_the_error_is_the_spread_over_sets_of_faces() -> None:
    found = [error_of(normal(100, seed), normal(200, 1000 + seed)) for seed in range(200)]
    spread = torch.tensor([each.farther for each in found]).std().item()
    assert found[0].error == pytest.approx(spread, rel=0.2)


def test_faces_beside_the_real_ones_are_farther_out() -> None:
    found = error_of(normal(100, 0) + 5, normal(200, 1))
    assert found.farther > 0.99
    assert found.beyond > 0.99
    assert found.p_value < 1e-6


def test_a_combination_that_no_real_face_has_is_far_out_although_each_number_is_usual() -> None:
    together = normal(400, 0, 1).expand(400, 2) + 0.05 * normal(400, 1, 2)
    opposite = together * torch.tensor([1.0, -1.0])
    alone = error_of(opposite[:, 1:], together[:, 1:])
    assert abs(alone.farther - 0.5) < 3 * alone.error
    assert error_of(opposite, together).farther > 0.9


def test_average_faces_are_nearer_than_real_ones() -> None:
    found = error_of(0.1 * normal(100, 0), normal(200, 1))
    assert found.farther < 0.01
    assert found.beyond == 0.0
    assert found.p_value == 1.0


def test_the_distance_is_that_of_mahalanobis() -> None:
    faces, others = normal(5000, 0, 3) * torch.tensor([1.0, 2.0, 4.0]), torch.eye(3)
    covariance = torch.cov(faces.T.double(), correction=0)
    apart = others.double() - faces.double().mean(0)
    expected = (apart @ covariance.inverse() * apart).sum(1).sqrt()
    torch.testing.assert_close(distances_from(faces, others), expected, rtol=0.01, atol=0)


def test_the_distance_does_not_depend_on_scale_rotation_or_place() -> None:
    faces, others = normal(50, 0), normal(20, 1)
    turn = torch.linalg.qr(normal(6, 2).double()).Q
    moved = [3 * each.double() @ turn + 7 for each in (faces, others)]
    torch.testing.assert_close(distances_from(*moved), distances_from(faces, others))


def test_the_shrunk_covariance_follows_the_formulas_of_ledoit_and_wolf() -> None:
    x = normal(12, 0).double() * torch.arange(1.0, 7.0)
    centred = x - x.mean(0)
    sample = sum(torch.outer(row, row) for row in centred) / 12
    mean = sample.trace() / 6
    spread = ((sample - mean * torch.eye(6)) ** 2).sum() / 6
    noise = sum(((torch.outer(row, row) - sample) ** 2).sum() / 6 for row in centred) / 12**2
    share = min(float(noise), float(spread)) / spread
    expected = share * mean * torch.eye(6) + (1 - share) * sample
    assert 0.01 < share < 0.99
    torch.testing.assert_close(shrunk_covariance(x), expected)


def test_fewer_faces_than_numbers_still_have_a_distance() -> None:
    assert distances_from(normal(100, 0, 136), normal(5, 1, 136)).isfinite().all()


def test_the_probability_counts_pairs_and_half_of_equal_ones() -> None:
    x, y = torch.tensor([1.0, 3.0]).double(), torch.tensor([0.0, 1.0, 5.0]).double()
    assert probability_of_larger(x, y)[0] == pytest.approx((1 + 0.5 + 0 + 1 + 1 + 0) / 6)


@pytest.mark.parametrize(("real", "known"), [(MIN_REAL_FACES - 1, False), (MIN_REAL_FACES, True)])
def test_it_takes_two_hundred_real_faces(real: int, known: bool) -> None:
    assert (face_error(normal(10, 0), normal(real, 1)) is not None) == known
