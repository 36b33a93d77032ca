"""Precision, recall, density and coverage are their definitions, written as loops."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.evaluation.metrics.manifolds import density_coverage, precision_recall


def cloud(n: int, seed: int, d: int = 4, shift: float = 0.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def plain_radii(x: np.ndarray, k: int) -> list[float]:
    return [sorted(np.linalg.norm(x - x[i], axis=1)[np.arange(len(x)) != i])[k - 1] for i in range(len(x))]


def plain_share_inside(x: np.ndarray, centres: np.ndarray, k: int) -> float:
    radii = plain_radii(centres, k)
    inside = [any(np.linalg.norm(v - c) <= r for c, r in zip(centres, radii, strict=True)) for v in x]
    return float(np.mean(inside))


def test_precision_and_recall_are_the_definition() -> None:
    a, b = cloud(40, 0, shift=0.7), cloud(30, 1)
    expected = (
        plain_share_inside(a.double().numpy(), b.double().numpy(), 3),
        plain_share_inside(b.double().numpy(), a.double().numpy(), 3),
    )
    assert precision_recall(a, b) == pytest.approx(expected, abs=1e-12)
    assert 0.1 < min(expected) < 1.0


def test_density_and_coverage_are_the_definition() -> None:
    a, b = cloud(40, 0, shift=0.7), cloud(30, 1)
    x, y = a.double().numpy(), b.double().numpy()
    radii = plain_radii(y, 5)
    inside = np.array([[np.linalg.norm(v - c) <= r for c, r in zip(y, radii, strict=True)] for v in x])
    assert density_coverage(a, b) == pytest.approx(
        (inside.sum() / (5 * len(x)), inside.any(0).mean()), abs=1e-12
    )


def test_blocks_of_rows_change_nothing() -> None:
    a, b = cloud(600, 0, d=2), cloud(530, 1, d=2)
    one = torch.stack([torch.tensor(precision_recall(a[k : k + 200], b)[0]) for k in (0, 200, 400)]).mean()
    assert precision_recall(a, b)[0] == pytest.approx(float(one), abs=1e-6)


def test_a_set_covers_itself() -> None:
    a = cloud(50, 0)
    assert precision_recall(a, a) == (1.0, 1.0)
    assert density_coverage(a, a)[1] == 1.0


def test_sets_far_apart_share_nothing() -> None:
    a, b = cloud(50, 0), cloud(50, 1, shift=100.0)
    assert precision_recall(a, b) == density_coverage(a, b) == (0.0, 0.0)


def test_one_mode_of_two_has_precision_and_half_the_recall() -> None:
    both = torch.cat([cloud(200, 0), cloud(200, 1, shift=50.0)])
    precision, recall = precision_recall(cloud(200, 2), both)
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.06)


def test_equal_distributions_have_density_one() -> None:
    assert density_coverage(cloud(800, 0), cloud(800, 1))[0] == pytest.approx(1.0, abs=0.1)


def test_copies_of_one_image_are_at_distance_zero() -> None:
    same = cloud(1, 0, d=64).expand(10, -1) * 100
    assert precision_recall(same, same) == (1.0, 1.0)
    assert precision_recall(same + 1e-3, same)[0] == 0.0


def test_too_few_images_are_one_line() -> None:
    with pytest.raises(ValueError, match="^3 generated images: their manifold needs more than 3"):
        precision_recall(cloud(3, 0), cloud(9, 1))
