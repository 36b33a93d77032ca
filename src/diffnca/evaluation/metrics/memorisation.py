"""Whether a model repeats its training images: whether its images are nearer to these than unseen ones."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from diffnca.evaluation.metrics.manifolds import distance_blocks

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
        p_value=beta_binomial_tail(num_copied, len(distances), rank, len(unseen) + 1 - rank),
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


def beta_binomial_tail(least: int, n: int, alpha: int, beta: int) -> float:
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
