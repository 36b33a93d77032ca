"""KID and FID are the numbers that torchmetrics finds on the same features.

Its metrics take any module for the features, and then need no download. All is in float64. Its estimate of
KID is ours, for sets of equal size whose images are no crops. Its FID takes the roots of the eigenvalues of
a product of covariances: those that should be 0 (fewer images than features) are about 1e-16.
"""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnca.evaluation.metrics.distances import fid, kid


@pytest.fixture(scope="module")
def metrics() -> Any:
    """Return the metrics of images of torchmetrics, which takes seconds to import."""
    for name in ("fid", "kid"):
        pytest.importorskip(f"torchmetrics.image.{name}", reason="needs the extra test")
    return sys.modules["torchmetrics.image"]


class Projection(nn.Module):
    """Random mixtures of the pixels as features."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.register_buffer("mixing", torch.randn(48, 24, generator=generator, dtype=torch.float64) / 7)

    def forward(self, images: Tensor) -> Tensor:
        return (images.double().flatten(1) / 127.5 - 1) @ self.mixing + 0.3


def images(n: int, seed: int, largest: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, largest, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
@pytest.mark.parametrize("largest", [256, 200])
def test_kid_over_all_is_that_of_torchmetrics_with_one_subset_of_all(largest: int, metrics: Any) -> None:
    projection, a, b = Projection(), images(80, seed=0), images(80, seed=1, largest=largest)
    metric = metrics.kid.KernelInceptionDistance(feature=projection, subsets=1, subset_size=80)
    metric.update(a, real=True)
    metric.update(b, real=False)
    theirs, _ = metric.compute()
    assert kid(projection(a), projection(b)).value == pytest.approx(theirs.item(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("largest", [256, 200])
@pytest.mark.parametrize(
    ("n", "tolerance"), [(300, 1e-10), (20, 1e-6)]
)  # more and fewer images than features
def test_fid_is_that_of_torchmetrics(largest: int, n: int, tolerance: float, metrics: Any) -> None:
    projection, a, b = Projection(), images(n, seed=0), images(n + 7, seed=1, largest=largest)
    metric = metrics.fid.FrechetInceptionDistance(feature=projection).set_dtype(torch.float64)
    for batch in a.split(64):
        metric.update(batch, real=True)
    for batch in b.split(64):
        metric.update(batch, real=False)
    ours = fid(projection(a), projection(b))
    assert ours == pytest.approx(metric.compute().item(), rel=tolerance)
