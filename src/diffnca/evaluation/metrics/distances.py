"""Distances between two sets of feature vectors, in float64; whether one model is nearer than another.

[1] Binkowski et al. (2018), Demystifying MMD GANs, arXiv:1801.01401 (KID).
[2] Heusel et al. (2017), GANs trained by a two time-scale update rule, arXiv:1706.08500 (FID).
[3] Shao and Wu (1989), A general theory for jackknife variance estimation, Ann. Statist. 17(3).
[4] Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 8.
[5] Rao and Wu (1988), Resampling inference with complex survey data, J. Am. Stat. Assoc. 83(401).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

_ROWS_AT_A_TIME = 512
_MOST_GROUPS = 1024

PICTURES_FOR_AN_ERROR = 3


class Distance(NamedTuple):
    """A distance and its standard error; `None` if a set has too few pictures for an error."""

    value: float
    error: float | None

    def x1000(self, digits: int = 1) -> str:
        """Return 1000 times the distance and its error, as text."""
        return with_error(1000 * self.value, None if self.error is None else 1000 * self.error, digits)


def with_error(value: float, error: float | None, digits: int = 1) -> str:
    """Return a number and its standard error (`None` if unknown) as text."""
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def kid(
    features_a: Float[Tensor, "n d"],
    features_b: Float[Tensor, "m d"],
    pictures_a: Int[Tensor, " n"] | None = None,
    pictures_b: Int[Tensor, " m"] | None = None,
) -> Distance:
    """Return the kernel inception distance without pairs of crops of one picture, and its standard error.

    With the kernel k(x, y) = ((x . y) / d + 1)^3 the distance is

        mean of k over pairs of A from two different pictures
        + mean of k over pairs of B from two different pictures
        - 2 * mean of k over all pairs of a vector of A and a vector of B

    Crops of one picture are alike: their pairs would raise KID x 1000 of the model `pathology` from 66 to 75,
    and of real crops from -1 to 9. If each vector has its own picture, this is the unbiased estimate of [1]
    Eq. 4, which can be negative. For a set of one picture all pairs count: too large, and without an error.

    The error comes from a jackknife [3] that leaves out one picture at a time. It can be small by chance. So
    the error is never below the standard deviation of the distance between two draws from one distribution.

    `pictures_a` and `pictures_b` name the picture of each vector; `None` gives each vector its own picture.

    Raises:
        ValueError: a set has fewer than 2 vectors, or a feature is not finite.
    """
    a, b = _checked(features_a, "first"), _checked(features_b, "second")
    (of_a, count_a), (of_b, count_b) = _numbered(pictures_a, len(a)), _numbered(pictures_b, len(b))
    within_a, within_b, across = _pairs(a, a, of_a, of_a), _pairs(b, b, of_b, of_b), _pairs(a, b, of_a, of_b)
    value = within_a.mean() + within_b.mean() - 2 * across.mean()
    if min(count_a, count_b) < PICTURES_FOR_AN_ERROR:
        return Distance(value, None)
    # The two sets are drawn independently, so their variances add.
    turned = _Pairs(across.sums.T, across.counts.T)
    jackknife = _jackknife_variance(within_a, across) + _jackknife_variance(within_b, turned)
    return Distance(value, math.sqrt(max(jackknife, _equal_variance(within_a, within_b, across))))


def fid(features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m d"]) -> float:
    """Return the Fréchet distance of fitted Gaussians ([2] Eq. 6); it compares only at equal numbers."""
    a, b = _checked(features_a, "first"), _checked(features_b, "second")
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    # For covariances A'A and B'B, the trace of the root of their product is the sum of the singular values of
    # A B'. This is exact also for fewer vectors than features.
    root_trace = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + factor_a.square().sum() + factor_b.square().sum() - 2 * root_trace)


def polynomial_kernel(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    """Return ((x . y) / d + 1)^3 of each pair, the kernel of KID."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _checked(features: Float[Tensor, "n d"], which: str) -> Float64[Tensor, "n d"]:
    if len(features) < 2:
        raise ValueError(f"the {which} set has {len(features)} images: a distance needs at least 2")
    bad = int((~features.isfinite().all(1)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(features)} images of the {which} set have NaN or infinite features: remove them"
        )
    return features.double()


def _numbered(pictures: Int[Tensor, " n"] | None, n: int) -> tuple[Int64[Tensor, " n"], int]:
    """Number the pictures in a random order, or the vectors if they have one picture; count the pictures."""
    found, index = (torch.arange(n) if pictures is None else pictures.cpu()).unique(return_inverse=True)
    if len(found) == 1:
        index = torch.arange(n)
    order = torch.randperm(int(index.max()) + 1, generator=torch.Generator().manual_seed(0))
    return order[index], len(found)


class _Pairs(NamedTuple):
    """Sums and counts of the kernel for each pair of groups of pictures; groups bound the memory."""

    sums: Float64[Tensor, "g k"]
    counts: Float64[Tensor, "g k"]

    def mean(self) -> float:
        return float(self.sums.sum() / self.counts.sum())

    def centred(self) -> Float64[Tensor, "g k"]:
        of_rows = self.sums.sum(1, keepdim=True) / self.counts.sum(1, keepdim=True)
        of_columns = self.sums.sum(0, keepdim=True) / self.counts.sum(0, keepdim=True)
        return self.sums - self.counts * (of_rows + of_columns - self.mean())


def _pairs(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, "m d"],
    pictures_x: Int64[Tensor, " n"],
    pictures_y: Int64[Tensor, " m"],
) -> _Pairs:
    """Sum the kernel over the pairs of two sets; for one set (`x is y`) without pairs within a picture."""
    groups_x, groups_y = pictures_x % _MOST_GROUPS, pictures_y % _MOST_GROUPS
    sizes_x, sizes_y = groups_x.bincount().double(), groups_y.bincount().double()
    sums, counts = torch.zeros(len(sizes_x), len(sizes_y)).double(), torch.outer(sizes_x, sizes_y)
    for start in range(0, len(x), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        kernel = polynomial_kernel(x[rows], y)
        if x is y:
            kernel[pictures_x[rows, None] == pictures_x] = 0.0
        by_group = torch.zeros(len(kernel), len(sizes_y)).double().index_add_(1, groups_y, kernel)
        sums.index_add_(0, groups_x[rows], by_group)
    if x is y:
        squares = pictures_x.bincount().double().square()
        within = torch.arange(len(squares)) % _MOST_GROUPS
        counts.diagonal().sub_(within.bincount(squares))
    return _Pairs(sums, counts)


def _jackknife_variance(within: _Pairs, across: _Pairs) -> float:
    # The row and the column of a group are subtracted; both hold the diagonal, so it is added again.
    sums, counts = (each.sum() - 2 * each.sum(1) + each.diagonal() for each in within)
    sums_across, counts_across = (each.sum() - each.sum(1) for each in across)
    # The term within the other set is equal for all groups, so it adds no variance.
    distances = sums / counts - 2 * sums_across / counts_across
    groups = len(distances)
    return float((distances - distances.mean()).square().sum() * (groups - 1) / groups)


def _equal_variance(within_a: _Pairs, within_b: _Pairs, across: _Pairs) -> float:
    squares_a, squares_b = (
        each.centred().fill_diagonal_(0).square().sum() / each.counts.sum().square()
        for each in (within_a, within_b)
    )
    squares_across = across.centred().square().sum() / across.counts.sum().square()
    return float(2 * squares_a + 2 * squares_b + 4 * squares_across)


def _covariance_factor(x: Float64[Tensor, "n d"]) -> Float64[Tensor, "k d"]:
    factor: Tensor = torch.linalg.qr(x - x.mean(0), mode="r").R
    return factor / math.sqrt(len(x) - 1)


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
    """Return KID(A, reference) - KID(B, reference), a mean over trainings, with its error ([4]).

    `features_a` and `features_b` are of images in the order of their seeds, which are equal. `pictures` names
    the picture that each real image is a crop of; `None` if each image is its own picture.

    A draw takes image seeds and pictures of the reference with replacement. It takes image i of A and image i
    of B together, so what A and B share cancels. It never pairs an image with itself or its copies, as in the
    unbiased estimate. Of k trainings it takes k - 1, separately for A and B: k would make the variance too
    small ([5]). A single training adds no variance.

    A draw has at least two different seeds, since an image has no pair of its own. So the error of few images
    is too small: of two images, each draw takes both.

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
    of_seeds = _counts_of_two(n, num_draws, generator)
    of_pictures = _counts(num_pictures, num_pictures, num_draws, generator)
    weights, weights_reference = (
        torch.cat([torch.ones(1, each.shape[1]).double(), each]) for each in (of_seeds, of_pictures)
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


def _counts_of_two(n: int, draws: int, generator: torch.Generator) -> Float64[Tensor, "{draws} {n}"]:
    """Draw `n` of `n` like `_counts`; repeat each draw that takes one number only."""
    counts = _counts(n, n, draws, generator)
    while (is_alone := counts.amax(1) == n).any():
        counts[is_alone] = _counts(n, n, int(is_alone.sum()), generator)
    return counts
