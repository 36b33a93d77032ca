"""Fidelity and variety: how the manifolds of two sets of feature vectors cover each other, in float64.

The manifold of a set is the union of balls around its vectors, up to the k-th nearest other vector.

[1] Kynkäänniemi et al. (2019), Improved precision and recall metric for assessing generative models,
    arXiv:1904.06991.
[2] Naeem et al. (2020), Reliable fidelity and diversity metrics for generative models, arXiv:2002.09797.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Float64
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
