"""Distances between two sets of feature vectors, in float64.

[1] Binkowski et al. (2018), Demystifying MMD GANs, arXiv:1801.01401 (KID).
[2] Heusel et al. (2017), GANs trained by a two time-scale update rule, arXiv:1706.08500 (FID).
[3] Shao and Wu (1989), A general theory for jackknife variance estimation, Ann. Statist. 17(3).
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

_ROWS_AT_A_TIME = 512
_MOST_GROUPS = 1024


def kid(
    features_a: Float[Tensor, "n d"],
    features_b: Float[Tensor, "m d"],
    subset_size: int = 100,
    num_subsets: int = 100,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the kernel inception distance [1] averaged over random subsets, and its standard error.

    Subsets overlap, so their spread over sqrt(num_subsets) would vanish by drawing more of them. The error is
    that of the delete-d jackknife [3], which does not: it belongs to the distance between all the vectors.

    Args:
        features_a: the first set.
        features_b: the second set.
        subset_size: vectors taken from each set at a time, less than either set has.
        num_subsets: how many times; at least 2.
        seed: of the draw of the subsets.

    Raises:
        ValueError: if `subset_size` or `num_subsets` does not fit, or a feature is not finite.
    """
    a, b = _checked(features_a, "first"), _checked(features_b, "second")
    smaller = min(len(a), len(b))
    if not 2 <= subset_size < smaller:
        raise ValueError(
            f"subset_size is {subset_size}, but the smaller set has {smaller} images: "
            f"choose 2 to {smaller - 1}, or give more images"
        )
    if num_subsets < 2:
        raise ValueError(f"num_subsets is {num_subsets}, but an error needs at least 2: choose 2 or more")
    generator = torch.Generator().manual_seed(seed)
    distances = torch.empty(num_subsets, dtype=torch.float64)
    for k in range(num_subsets):
        rows_a = torch.randperm(len(a), generator=generator)[:subset_size]
        rows_b = torch.randperm(len(b), generator=generator)[:subset_size]
        distances[k] = kid_full(a[rows_a], b[rows_b])
    # [3]: a subset of m out of n varies (n - m) / m times as much as the estimate from all n does.
    correction = subset_size / (smaller - subset_size)
    return distances.mean().item(), (distances.var() * correction).sqrt().item()


def kid_full(features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m d"]) -> float:
    """Return the unbiased squared maximum mean discrepancy between all vectors ([1] Eq. 4).

    The kernel is the polynomial ((x . y) / d + 1)^3. The mean over all subsets is this number; it can be
    negative.
    """
    a, b = _checked(features_a, "first"), _checked(features_b, "second")
    n, m = len(a), len(b)
    within = _sum_within(a) / (n * (n - 1)) + _sum_within(b) / (m * (m - 1))
    return float(within - 2 * _row_sums(a, b).sum() / (n * m))


def kid_error(
    features_a: Float[Tensor, "n d"],
    features_b: Float[Tensor, "m d"],
    pictures_a: Int[Tensor, " n"] | None = None,
    pictures_b: Int[Tensor, " m"] | None = None,
) -> float:
    """Return the standard error of `kid_full`: a jackknife that leaves out one picture at a time.

    Crops of one picture are alike, so they are no independent draws: say which pictures they come from.
    Where the distributions are nearly equal, the jackknife is small when the distance is negative by chance:
    the error is never less than the deviation of the distance between equal distributions.

    Args:
        features_a: the first set.
        features_b: the second set.
        pictures_a: which picture each vector comes from; `None` if each has its own.
        pictures_b: likewise for the second set.

    Raises:
        ValueError: if a set has fewer than 2 pictures, or a feature is not finite.
    """
    a, b = _checked(features_a, "first"), _checked(features_b, "second")
    index_a, index_b = _group_index(pictures_a, len(a), "first"), _group_index(pictures_b, len(b), "second")
    sizes_a, sizes_b = index_a.bincount(), index_b.bincount()
    within_a, within_b = _group_sums(a, a, index_a, index_a), _group_sums(b, b, index_b, index_b)
    across = _group_sums(a, b, index_a, index_b)
    # The two sets are drawn independently, so their variances add.
    jackknife = _jackknife_variance(within_a, _self_sums(a, index_a), across, sizes_a, len(b))
    jackknife += _jackknife_variance(within_b, _self_sums(b, index_b), across.T, sizes_b, len(a))
    return math.sqrt(max(jackknife, _equal_variance(within_a, within_b, across, sizes_a, sizes_b)))


def fid(features_a: Float[Tensor, "n d"], features_b: Float[Tensor, "m d"]) -> float:
    """Return the Frechet distance between the Gaussians fitted to the two sets ([2] Eq. 6).

    It is biased: it falls with the number of vectors, and compares only at equal numbers.
    """
    a, b = _checked(features_a, "first"), _checked(features_b, "second")
    factor_a, factor_b = _covariance_factor(a), _covariance_factor(b)
    # For covariances A'A and B'B, the trace of the root of their product is the sum of the singular values of
    # A B' (the roots of the eigenvalues of the product): exact also for fewer vectors than features.
    root_trace = torch.linalg.svdvals(factor_a @ factor_b.T).sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + factor_a.square().sum() + factor_b.square().sum() - 2 * root_trace)


def _checked(features: Float[Tensor, "n d"], which: str) -> Float64[Tensor, "n d"]:
    """Return the features in float64, after the errors a user can cause."""
    if len(features) < 2:
        raise ValueError(f"the {which} set has {len(features)} images: a distance needs at least 2")
    bad = int((~features.isfinite().all(1)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(features)} images of the {which} set have NaN or infinite features: remove them"
        )
    return features.double()


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS_AT_A_TIME) for start in range(0, n, _ROWS_AT_A_TIME))


def polynomial_kernel(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    """Return ((x . y) / d + 1)^3 of each pair, the kernel of KID."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _row_sums(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, " n"]:
    """Sum the kernel of each vector of `x` with all of `y`."""
    return torch.cat([polynomial_kernel(x[rows], y).sum(1) for rows in _blocks(len(x))])


def _self_kernel(x: Float64[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _sum_within(x: Float64[Tensor, "n d"]) -> Float64[Tensor, ""]:
    """Sum the kernel over all ordered pairs of different vectors."""
    return (_row_sums(x, x) - _self_kernel(x)).sum()


def check_pictures(pictures: Int[Tensor, " n"], which: str) -> None:
    """Refuse images of too few pictures for a standard error.

    Raises:
        ValueError: fewer than 2 pictures, or than 2 images without one of them.
    """
    left = len(pictures) - pictures.unique(return_counts=True)[1]
    if len(left) < 2 or left.min() < 2:
        raise ValueError(
            f"the {which} set has {len(pictures)} images out of {len(left)} pictures: "
            "an error needs 2 or more pictures, and 2 or more images without any one of them"
        )


def _group_index(pictures: Int[Tensor, " n"] | None, n: int, which: str) -> Int64[Tensor, " n"]:
    """Number the pictures from 0; very many are put together into groups, which bounds the memory."""
    numbers = torch.arange(n) if pictures is None else pictures.cpu()
    check_pictures(numbers, which)
    index = torch.from_numpy(np.unique(numbers.numpy(), return_inverse=True)[1])
    num_pictures = int(index.max()) + 1
    order = torch.randperm(num_pictures, generator=torch.Generator().manual_seed(0))
    return order[index] % _MOST_GROUPS


def _group_sums(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, "m d"],
    index_x: Int64[Tensor, " n"],
    index_y: Int64[Tensor, " m"],
) -> Float64[Tensor, "g k"]:
    """Sum the kernel over all pairs of a vector of one group of `x` and one of `y`."""
    sums = torch.zeros(int(index_x.max()) + 1, int(index_y.max()) + 1, dtype=torch.float64)
    for rows in _blocks(len(x)):
        by_group = torch.zeros(len(x[rows]), sums.shape[1], dtype=torch.float64)
        by_group.index_add_(1, index_y, polynomial_kernel(x[rows], y))
        sums.index_add_(0, index_x[rows], by_group)
    return sums


def _self_sums(x: Float64[Tensor, "n d"], index: Int64[Tensor, " n"]) -> Float64[Tensor, " g"]:
    """Sum, in each group, the kernel of each vector with itself."""
    return index.bincount(_self_kernel(x))


def _jackknife_variance(
    within: Float64[Tensor, "g g"],
    self_sums: Float64[Tensor, " g"],
    across: Float64[Tensor, "g k"],
    sizes: Int64[Tensor, " g"],
    num_others: int,
) -> float:
    """Return the variance of the distance that the draw of the groups of one set causes."""
    rows, own = within.sum(1) - self_sums, within.diagonal() - self_sums
    # Pairs with one vector in the group leave by row and by column; those with both were counted twice.
    within_left = rows.sum() - 2 * rows + own
    across_left = across.sum() - across.sum(1)
    n_left = sizes.sum() - sizes
    # The part that depends on the other set alone is the same whichever group is left out.
    distances = within_left / (n_left * (n_left - 1)) - 2 * across_left / (n_left * num_others)
    return float((distances - distances.mean()).square().sum() * (len(sizes) - 1) / len(sizes))


def _equal_variance(
    within_a: Float64[Tensor, "g g"],
    within_b: Float64[Tensor, "k k"],
    across: Float64[Tensor, "g k"],
    sizes_a: Int64[Tensor, " g"],
    sizes_b: Int64[Tensor, " k"],
) -> float:
    """Return the variance that the distance has if both sets are drawn from one distribution.

    The statistic is then degenerate: only products over pairs of different groups are left.
    """
    n, m = sizes_a.sum(), sizes_b.sum()
    squares_a = _centred(within_a, sizes_a, sizes_a).fill_diagonal_(0).square().sum() / (n * (n - 1)) ** 2
    squares_b = _centred(within_b, sizes_b, sizes_b).fill_diagonal_(0).square().sum() / (m * (m - 1)) ** 2
    squares_across = _centred(across, sizes_a, sizes_b).square().sum() / (n * m) ** 2
    return float(2 * squares_a + 2 * squares_b + 4 * squares_across)


def _centred(
    sums: Float64[Tensor, "g k"], sizes_x: Int64[Tensor, " g"], sizes_y: Int64[Tensor, " k"]
) -> Float64[Tensor, "g k"]:
    """Return the group sums of the kernel from which its means over either side are subtracted."""
    counts = sizes_x[:, None] * sizes_y
    mean_x = sums.sum(1, keepdim=True) / (sizes_x[:, None] * sizes_y.sum())
    mean_y = sums.sum(0, keepdim=True) / (sizes_x.sum() * sizes_y)
    return sums - counts * (mean_x + mean_y - sums.sum() / counts.sum())


def _covariance_factor(x: Float64[Tensor, "n d"]) -> Float64[Tensor, "k d"]:
    """Return R with few rows such that R'R is the unbiased covariance of `x`."""
    factor: Tensor = torch.linalg.qr(x - x.mean(0), mode="r").R
    return factor / math.sqrt(len(x) - 1)
