"""Nearest neighbours of feature vectors, in float64: fidelity, variety, whether a model repeats images.

The manifold of a set is the union of balls around its vectors, up to the k-th nearest other vector.

[1] Kynkäänniemi et al. (2019), Improved precision and recall metric for assessing generative models,
    arXiv:1904.06991.
[2] Naeem et al. (2020), Reliable fidelity and diversity metrics for generative models, arXiv:2002.09797.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_ROWS_AT_A_TIME = 256

NEIGHBOURS_OF_COVERAGE = 5


def precision_recall(
    generated: Float[Tensor, "n d"], reference: Float[Tensor, "m d"], neighbours: int = 3
) -> tuple[float, float]:
    """Return precision and recall ([1] Eq. 2); each set needs more than k = `neighbours` vectors.

    Precision is the share of generated vectors in the manifold of the reference; recall is the reverse.
    """
    _require_more(neighbours, generated, reference)
    both = ((generated, reference), (reference, generated))
    precision, recall = (float((_times_inside(*pair, neighbours) > 0).double().mean()) for pair in both)
    return precision, recall


def density_coverage(
    generated: Float[Tensor, "n d"], reference: Float[Tensor, "m d"], neighbours: int = NEIGHBOURS_OF_COVERAGE
) -> tuple[float, float]:
    """Return density ([2] Eq. 5) and coverage ([2] Eq. 6); each set needs more than k = `neighbours` vectors.

    Density is the mean number of reference balls that hold a generated vector, divided by k; it may exceed 1.
    Coverage is the share of reference balls that hold a generated vector.
    """
    _require_more(neighbours, generated, reference)
    density = float(_times_inside(generated, reference, neighbours).mean()) / neighbours
    nearest = torch.cat([distances.amin(1) for distances in distance_blocks(reference, generated)])
    return density, float((nearest <= _radii(reference, neighbours)).double().mean())


def distance_blocks(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Iterator[Float64[Tensor, "_k m"]]:
    """Yield the Euclidean distances of rows of `x` to all of `y`; equal vectors have exactly 0."""
    y = y.double()
    for rows in x.double().split(_ROWS_AT_A_TIME):
        yield torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist")


def _times_inside(
    x: Float[Tensor, "n d"], centres: Float[Tensor, "m d"], neighbours: int
) -> Float64[Tensor, " n"]:
    radii = _radii(centres, neighbours)
    return torch.cat([(distances <= radii).double().sum(1) for distances in distance_blocks(x, centres)])


def _radii(x: Float[Tensor, "n d"], neighbours: int) -> Float64[Tensor, " n"]:
    """Return the distance of each vector to its k-th nearest other vector; the nearest of all is itself."""
    return torch.cat([distances.kthvalue(neighbours + 1, 1).values for distances in distance_blocks(x, x)])


def _require_more(neighbours: int, generated: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]) -> None:
    for which, features in (("generated", generated), ("real", reference)):
        if len(features) <= neighbours:
            raise ValueError(
                f"{len(features)} {which} images: their manifold needs more than {neighbours}; give more "
                "images"
            )


TAIL = 0.01
"""Share of unseen images that are nearer to training images than the threshold."""

MIN_UNSEEN = round(1 / TAIL)


@dataclass(frozen=True)
class Memorisation:
    """Distances of generated images from training images, compared with distances of unseen real images.

    Attributes:
        distance_ratio: median distance of generated images over the median of unseen images.
        copied: share of generated images nearer than all but the nearest 1% of unseen images.
        expected: this share if generated images are like unseen images.
        p_value: probability of `copied` or a larger share, if generated images are like unseen images.
        pairs: the nearest pairs, (generated, training, distance), nearest first.
    """

    distance_ratio: float
    copied: float
    expected: float
    p_value: float
    num_held_out: int
    pairs: tuple[tuple[int, int, float], ...]


def memorisation(
    generated: Float[Tensor, "n d"],
    training: Float[Tensor, "m d"],
    held_out: Float[Tensor, "k d"],
    num_pairs: int = 9,
) -> Memorisation:
    """Compare the distances to the nearest training image, in feature space.

    The threshold is the r-th smallest of the k distances of unseen images (`held_out`, 100 or more); r is 1%
    of k, rounded down. If generated images are like unseen images, each lies below it with probability r / (k
    + 1). Their number is then beta-binomial, so `p_value` is exact, also for few unseen images.
    """
    if len(held_out) < MIN_UNSEEN:
        raise ValueError(
            f"{len(held_out)} unseen images: the report on memorisation needs {MIN_UNSEEN} or more; give "
            "more, or leave out the training images"
        )
    distances, indices = nearest(generated, training)
    unseen = nearest(held_out, training)[0].sort().values
    rank = math.floor(TAIL * len(unseen))
    check_unseen(int((unseen == 0.0).sum()), len(unseen))
    num_copied = int((distances < unseen[rank - 1]).sum())
    order = distances.argsort(stable=True)[:num_pairs].tolist()
    return Memorisation(
        distance_ratio=float(distances.median() / unseen.median()),
        copied=num_copied / len(distances),
        expected=rank / (len(unseen) + 1),
        p_value=_beta_binomial_tail(num_copied, len(distances), rank, len(unseen) + 1 - rank),
        num_held_out=len(unseen),
        pairs=tuple((k, int(indices[k]), float(distances[k])) for k in order),
    )


def check_unseen(num_seen: int, num_unseen: int) -> None:
    """Refuse unseen images if 1% or more are training images: the threshold would then be 0."""
    if num_seen >= math.floor(TAIL * num_unseen):
        raise ValueError(
            f"{num_seen} of {num_unseen} unseen images equal a training image, and less than {TAIL:.0%} may: "
            "no copy could be told from them; leave them out, or do without the training images"
        )


def nearest(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "m d"]
) -> tuple[Float64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Return the distance of each query to its nearest candidate, and the candidate's number."""
    found = [distances.min(1) for distances in distance_blocks(queries, candidates)]
    return torch.cat([each.values for each in found]), torch.cat([each.indices for each in found])


def _beta_binomial_tail(least: int, n: int, alpha: int, beta: int) -> float:
    """Return the probability of `least` or more of `n`, if their chance is Beta(alpha, beta)."""

    def log_beta(a: int, b: int) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def log_choose(k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    terms = (
        math.exp(log_choose(k) + log_beta(k + alpha, n - k + beta) - log_beta(alpha, beta))
        for k in range(least, n + 1)
    )
    return min(1.0, math.fsum(terms))
