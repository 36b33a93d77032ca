"""Whether one model beats another: a paired bootstrap of the difference of their distances.

[1] Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 8.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from diffnca.metrics.distances import polynomial_kernel

_DRAWS_AT_A_TIME = 128


@dataclass(frozen=True)
class Difference:
    """The distance of A from real images minus that of B.

    Attributes:
        mean: the difference over all images; negative if A is nearer.
        error: its standard error.
        share_a_better: share of the draws in which A is nearer.
    """

    mean: float
    error: float
    share_a_better: float


def kid_difference(
    features_a: Float[Tensor, "n d"],
    features_b: Float[Tensor, "n_b d"],
    reference: Float[Tensor, "m d"],
    pictures: Int[Tensor, " m"] | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Difference:
    """Return KID(A, reference) - KID(B, reference) with its error ([1]).

    Seeds, and the pictures of the reference, are drawn with replacement; image i of A and image i of B are of
    the same seed and drawn together, so that what both share takes no part. In a draw an image is never
    paired with itself or its own copies, as in the unbiased estimate; what the reference is within itself
    cancels out of the difference.

    Args:
        features_a: of A, seed by seed.
        features_b: of B, of the same seeds.
        reference: of real images.
        pictures: which picture each real image is a crop of; `None` if each is its own.
        num_draws: of the bootstrap.
        seed: of the draws.

    Raises:
        ValueError: the sets of A and B are not pairs, or there are fewer than 2.
    """
    n = len(features_a)
    if len(features_b) != n or n < 2:
        raise ValueError(
            f"{n} images of A and {len(features_b)} of B: must be pairs, 2 or more, of the same seeds"
        )
    a, b, real = features_a.double(), features_b.double(), reference.double()
    within = polynomial_kernel(a, a) - polynomial_kernel(b, b)
    index = torch.arange(len(real)) if pictures is None else pictures.unique(return_inverse=True)[1]
    sizes = index.bincount().double()
    across = torch.zeros(n, len(sizes), dtype=torch.float64)
    across.index_add_(1, index, polynomial_kernel(a, real) - polynomial_kernel(b, real))
    all_of = _weighted(within, across, sizes, torch.ones(1, n).double(), torch.ones(1, len(sizes)).double())
    generator = torch.Generator().manual_seed(seed)
    draws = torch.cat(
        [
            _weighted(within, across, sizes, _counts(n, k, generator), _counts(len(sizes), k, generator))
            for k in _portions(num_draws)
        ]
    )
    return Difference(float(all_of), float(draws.std()), float((draws < 0).double().mean()))


def _weighted(
    within: Float64[Tensor, "n n"],
    across: Float64[Tensor, "n p"],
    sizes: Float64[Tensor, " p"],
    weights: Float64[Tensor, "k n"],
    weights_reference: Float64[Tensor, "k p"],
) -> Float64[Tensor, " k"]:
    """Return the difference with each seed and each picture counted so many times."""
    squares = weights.square()
    pairs = weights.sum(1).square() - squares.sum(1)
    own = ((weights @ within) * weights).sum(1) - squares @ within.diagonal()
    other = ((weights @ across) * weights_reference).sum(1)
    return own / pairs - 2 * other / (weights.sum(1) * (weights_reference @ sizes))


def _counts(n: int, draws: int, generator: torch.Generator) -> Float64[Tensor, "{draws} {n}"]:
    """Return how often each of `n` is drawn in `n` draws with replacement, so many times over."""
    chosen = torch.randint(n, (draws, n), generator=generator)
    return torch.zeros(draws, n, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(draws, n).double())


def _portions(total: int) -> list[int]:
    """Return `total` as a sum of numbers that bound the memory."""
    full, rest = divmod(total, _DRAWS_AT_A_TIME)
    return [_DRAWS_AT_A_TIME] * full + [rest] * (rest > 0)
