"""Whether the shapes of generated faces are those of real faces, by the 68 points of `faces.FaceLandmarks`.

The distance of a face from the real ones is that of Mahalanobis: in standard deviations of real faces, along
each direction in which points move together. A mouth that no real face has lies far out, although each of its
points may be at a usual place.

[1] Ledoit and Wolf (2004), A well-conditioned estimator for large-dimensional covariance matrices,
    J. Multivariate Analysis 88(2).
[2] DeLong, DeLong and Clarke-Pearson (1988), Comparing the areas under ROC curves, Biometrics 44(3).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from diffnca.evaluation.metrics.memorisation import TAIL, beta_binomial_tail

MIN_REAL_FACES = 2 * round(1 / TAIL)


@dataclass(frozen=True)
class FaceError:
    """How far generated faces are from the shapes of real faces.

    Attributes:
        farther: probability that a generated face is farther out than a real one; 0.5 if they are alike.
        error: standard error of `farther` over faces.
        beyond: share of generated faces farther out than all but the farthest 1% of real ones.
        beyond_error: standard error of `beyond` over generated faces.
        expected: this share if generated faces are like real ones.
        p_value: probability of `beyond` or a larger share, if generated faces are like real ones.
        num_real: number of real faces that the distances are compared with; as many others give the shapes.
    """

    farther: float
    error: float
    beyond: float
    beyond_error: float
    expected: float
    p_value: float
    num_real: int


def face_error(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> FaceError | None:
    """Compare the landmarks of generated and real faces; `None` for fewer than 200 real faces.

    Every other real face gives the mean and the covariance. The remaining real faces are measured just as the
    generated ones. So `farther` is 0.5 on average if both are alike, and `p_value` is exact (`memorisation`
    counts in this way, too), however few the faces are and however they are distributed. The errors hold for
    these mean and covariance.
    """
    if len(real) < MIN_REAL_FACES:
        return None
    distances, usual = (distances_from(real[::2], faces) for faces in (generated, real[1::2]))
    farther, error = probability_of_larger(distances, usual)
    rank = math.floor(TAIL * len(usual))
    num_beyond = int((distances > usual.sort(descending=True).values[rank - 1]).sum())
    beyond = num_beyond / len(distances)
    return FaceError(
        farther=farther,
        error=error,
        beyond=beyond,
        beyond_error=math.sqrt(beyond * (1 - beyond) / len(distances)),
        expected=rank / (len(usual) + 1),
        p_value=beta_binomial_tail(num_beyond, len(distances), rank, len(usual) + 1 - rank),
        num_real=len(usual),
    )


def distances_from(faces: Float[Tensor, "m d"], others: Float[Tensor, "n d"]) -> Float64[Tensor, " n"]:
    """Return the Mahalanobis distance of each of `others` under the mean and covariance of `faces`."""
    centre = faces.double().mean(0)
    factor = torch.linalg.cholesky(shrunk_covariance(faces))
    standard = torch.linalg.solve_triangular(factor, (others.double() - centre).T, upper=False)
    distances: Tensor = standard.square().sum(0).sqrt()
    return distances


def shrunk_covariance(x: Float[Tensor, "n d"]) -> Float64[Tensor, "d d"]:
    """Return the covariance, moved towards equal variances as far as [1] finds best for so few vectors."""
    n, dimensions = x.shape
    centred = x.double() - x.double().mean(0)
    covariance = centred.T @ centred / n
    equal = covariance.trace() / dimensions * torch.eye(dimensions, dtype=torch.float64)
    spread = (covariance - equal).square().sum()
    # The sum over vectors of |x x' - S|^2, because the sum of x' S x is n |S|^2; [1] Lemma 3.4
    noise = (centred.square().sum(1).square().sum() - n * covariance.square().sum()) / n**2
    share = (noise / spread).clamp(max=1.0)
    return share * equal + (1 - share) * covariance


def probability_of_larger(x: Float64[Tensor, " n"], y: Float64[Tensor, " m"]) -> tuple[float, float]:
    """Return the probability that a number of `x` is larger than one of `y`, and its standard error [2].

    Equal numbers count half.
    """
    above, below = share_below(x, y), share_below(y, x)
    variance = above.var() / len(x) + below.var() / len(y)
    return float(above.mean()), float(variance.sqrt())


def share_below(x: Float64[Tensor, " n"], y: Float64[Tensor, " m"]) -> Float64[Tensor, " n"]:
    """Return for each number of `x` the share of smaller numbers in `y`; equal numbers count half."""
    ordered = y.sort().values
    twice = torch.searchsorted(ordered, x) + torch.searchsorted(ordered, x, right=True)
    return twice.double() / (2 * len(y))
