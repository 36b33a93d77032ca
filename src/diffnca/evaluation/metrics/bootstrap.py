"""Whether one model beats another: a paired bootstrap of the difference of their distances.

[1] Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 8.
[2] Rao and Wu (1988), Resampling inference with complex survey data, J. Am. Stat. Assoc. 83(401).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from diffnca.evaluation.metrics.distances import polynomial_kernel


@dataclass(frozen=True)
class Difference:
    """The distance of A from real images minus the distance of B.

    Attributes:
        mean: the difference over all images; negative if A is nearer.
        error: standard error of the difference.
        share_a_better: share of the draws in which A is nearer.
    """

    mean: float
    error: float
    share_a_better: float


def kid_difference(
    features_a: Float[Tensor, "k n d"],
    features_b: Float[Tensor, "k_b n_b d"],
    reference: Float[Tensor, "m d"],
    pictures: Int[Tensor, " m"] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """Return KID(A, reference) - KID(B, reference), a mean over trainings, with its error ([1]).

    `features_a` and `features_b` are of images in the order of their seeds, which are equal. `pictures` names
    the picture that each real image is a crop of; `None` if each image is its own picture.

    A draw takes image seeds and pictures of the reference with replacement. It takes image i of A and image i
    of B together, so what A and B share cancels. It never pairs an image with itself or its copies, as in the
    unbiased estimate. Of k trainings it takes k - 1, separately for A and B: k would make the variance too
    small ([2]). A single training adds no variance.

    Raises:
        ValueError: the sets of A and B are not pairs, or there are fewer than 2 pairs.
    """
    n = features_a.shape[1]
    if features_b.shape[1] != n or n < 2:
        raise ValueError(
            f"{n} images of A and {features_b.shape[1]} of B: must be pairs, 2 or more, of the same seeds"
        )
    real = reference.double()
    index = torch.arange(len(real)) if pictures is None else pictures.unique(return_inverse=True)[1]
    num_pictures = len(index.unique())
    generator = torch.Generator().manual_seed(seed)
    weights, weights_reference = (
        torch.cat([torch.ones(1, k).double(), _counts(k, k, num_draws, generator)]) for k in (n, num_pictures)
    )
    of_a, of_b = (
        torch.stack([_distances(one.double(), real, index, weights, weights_reference) for one in trainings])
        for trainings in (features_a, features_b)
    )
    draws = _of_drawn(of_a[:, 1:], generator) - _of_drawn(of_b[:, 1:], generator)
    mean = of_a[:, 0].mean() - of_b[:, 0].mean()
    return Difference(float(mean), float(draws.std()), float((draws < 0).double().mean()))


def _distances(
    x: Float64[Tensor, "n d"],
    real: Float64[Tensor, "m d"],
    index: Int64[Tensor, " m"],
    weights: Float64[Tensor, "draws n"],
    weights_reference: Float64[Tensor, "draws p"],
) -> Float64[Tensor, " draws"]:
    """Return the part of each draw's distance that depends on `x`; weights count seeds and pictures."""
    within = polynomial_kernel(x, x)
    across = torch.zeros(len(x), weights_reference.shape[1], dtype=torch.float64)
    across.index_add_(1, index, polynomial_kernel(x, real))
    squares, count = weights.square(), weights.sum(1)
    own = ((weights @ within) * weights).sum(1) - squares @ within.diagonal()
    other = ((weights @ across) * weights_reference).sum(1)
    pairs = count.square() - squares.sum(1)
    return own / pairs - 2 * other / (count * (weights_reference @ index.bincount().double()))


def _of_drawn(distances: Float64[Tensor, "k draws"], generator: torch.Generator) -> Float64[Tensor, " draws"]:
    k, draws = distances.shape
    counts = _counts(k, max(k - 1, 1), draws, generator).T
    return (distances * counts).sum(0) / counts.sum(0)


def _counts(n: int, chosen: int, draws: int, generator: torch.Generator) -> Float64[Tensor, "{draws} {n}"]:
    """Draw `chosen` of `n` with replacement, `draws` times; return how often each number is drawn."""
    index = torch.randint(n, (draws, chosen), generator=generator)
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, index, torch.ones_like(index).double())
