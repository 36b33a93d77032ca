"""Score generated images against real images, and store each number with all that it depends on."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from diffnca.evaluation.metrics.distances import PICTURES_FOR_AN_ERROR, fid, kid, with_error
from diffnca.evaluation.metrics.face_shapes import MIN_REAL_FACES, FaceError, face_error
from diffnca.evaluation.metrics.faces import FaceLandmarks
from diffnca.evaluation.metrics.features import FeatureExtractor, digest_of, extract_cached
from diffnca.evaluation.metrics.manifolds import density_coverage, precision_recall
from diffnca.evaluation.metrics.memorisation import Memorisation, memorisation
from diffnca.evaluation.metrics.textures import colour_error, spectrum_error_db
from diffnca.evaluation.selections import Selection
from diffnca.progress import Report, unseen


@dataclass(frozen=True)
class Score:
    """The distance of generated images from real images, and how it was measured.

    Attributes:
        kid_x1000: over all images, without pairs of crops of one picture (`metrics.distances.kid`).
        error: standard error of `kid_x1000` over pictures, not crops; `None` below 3 pictures.
        fid: biased; compares only at equal `n` and `n_reference`.
        n: number of generated images or crops; they come from `pictures` pictures.
        n_reference: number of real images or crops; they come from `pictures_reference` pictures.
        checksum: SHA-256 of the weights of the feature network.
        preprocessing: what happens to the pixels before the network sees them.
    """

    kid_x1000: float
    error: float | None
    fid: float
    n: int
    n_reference: int
    pictures: int
    pictures_reference: int
    features: str
    checksum: str
    preprocessing: str


@dataclass(frozen=True)
class Protocol:
    """How the compared images were chosen, and how the generated images were `stored` before.

    `split` says which real images the reference is; `reference` is the SHA-256 of their pixels.
    """

    name: str = "clean"
    split: str = "all"
    reference: str = ""
    height: int = 0
    width: int = 0
    stored: str = "as they are"


@dataclass(frozen=True)
class Judgement:
    """What one network says of generated images; numbers of two networks do not compare.

    Attributes:
        score: KID and FID, with the numbers of images and the features.
        precision: share of generated images within the manifold of the real images.
        recall: share of real images within the manifold of the generated images.
        density: mean number of real balls that hold a generated image, divided by k; may exceed 1.
        coverage: share of real images with a generated image near them.
        faces: distance from the shapes of real faces; `None` for other features and for too few faces.
    """

    score: Score
    precision: float
    recall: float
    density: float
    coverage: float
    faces: FaceError | None = None


@dataclass(frozen=True)
class Evaluation:
    """All measured numbers of one set of generated images.

    Attributes:
        protocol: what was compared with what.
        judgements: what each network says.
        spectrum_error_db: RMS difference of the radial power spectra in decibels.
        colour_error: distance of means and covariances of the colours, in levels of 8 bits.
        seam_ratio: step across the seams over the step elsewhere; `None` if no seams were named.
        memorisation: distance from the training images in the features of the first network; `None` if nobody
            knows these images.
        made: how the generated images were made: model, weights, seed, sampler, steps.
        left_out: number of unusable files, for each place with such files.
    """

    protocol: Protocol
    judgements: tuple[Judgement, ...]
    spectrum_error_db: float
    colour_error: float
    seam_ratio: float | None
    memorisation: Memorisation | None
    made: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def first(self) -> Judgement:
        """What the first network says."""
        return self.judgements[0]

    @property
    def terms(self) -> tuple[Any, ...]:
        """All that two evaluations must share, so that their numbers compare."""
        score = self.first.score
        networks = [each.score for each in self.judgements]
        return (
            self.protocol,
            score.n,
            score.n_reference,
            score.pictures_reference,
            score.pictures > 1,  # pairs within a picture count only in a set of one picture
            [(each.features, each.checksum, each.preprocessing) for each in networks],
        )


def score(
    generated: Selection, reference: Selection, extractor: FeatureExtractor, cache: Path | None = None
) -> Score:
    """Return the distance of `generated` from `reference`; `cache` keeps features, `None` keeps none."""
    check_size(tuple(generated.images.shape[2:]), reference)
    features, known = (extract_cached(extractor, each.images, cache) for each in (generated, reference))
    return _score(generated, reference, features, known, extractor)


def evaluate(
    generated: Selection,
    reference: Selection,
    judges: Sequence[FeatureExtractor],
    *,
    training: Selection | None = None,
    cache: Path | None = None,
    protocol: Protocol = Protocol(),
    seams: float | None = None,
    made: dict[str, str] | None = None,
    report: Report = unseen,
) -> Evaluation:
    """Measure all numbers of `generated` against real images of equal size (`reference`).

    Each network of `judges` gives a judgement. `training` are images that the model has seen, none of them in
    `reference`, for the report on memorisation; `None` leaves it out. This report takes the first network
    alone, because training images are many. `cache` is a folder that keeps features; `None` keeps none.
    `seams` is the step across the seams of the generated images over the step elsewhere, `made` how they were
    made; `None` if unknown.

    Raises:
        ValueError: sizes differ, or there are too few images.
    """
    height, width = generated.images.shape[2:]
    check_size((height, width), reference)

    def features_of(judge: FeatureExtractor, selection: Selection, kind: str) -> Tensor:
        return extract_cached(
            judge, selection.images, cache, report, f"features of {kind} images by {judge.name}"
        )

    features = [
        (features_of(judge, generated, "generated"), features_of(judge, reference, "real"))
        for judge in judges
    ]
    return Evaluation(
        protocol=replace(protocol, reference=digest_of(reference.images).hex(), height=height, width=width),
        judgements=tuple(
            _judged(generated, reference, *both, judge) for judge, both in zip(judges, features, strict=True)
        ),
        spectrum_error_db=spectrum_error_db(generated.images, reference.images),
        colour_error=colour_error(generated.images, reference.images),
        seam_ratio=seams,
        memorisation=None
        if training is None
        else memorisation(features[0][0], features_of(judges[0], training, "training"), features[0][1]),
        made=made or {},
    )


def require_one_protocol(evaluations: Iterable[Evaluation]) -> None:
    """Refuse evaluations of different protocols, and name the first difference."""
    for first, second in itertools.pairwise(evaluations):
        for one, other in zip(first.terms, second.terms, strict=True):
            if one != other:
                raise ValueError(
                    f"{one} and {other} are of different protocols: their numbers do not compare; "
                    "measure both in one way"
                )


def check_size(size: tuple[int, ...], reference: Selection) -> None:
    """Refuse generated images of another height and width than the reference."""
    height, width = reference.images.shape[2:]
    if size != (height, width):
        raise ValueError(
            f"the generated images are {size[0]}x{size[1]} px and the reference {height}x{width} px (height "
            "x width): bring them to one size, or take crops"
        )


def _judged(
    generated: Selection,
    reference: Selection,
    features: Float[Tensor, "n d"],
    features_reference: Float[Tensor, "m d"],
    extractor: FeatureExtractor,
) -> Judgement:
    precision, recall = precision_recall(features, features_reference)
    density, coverage = density_coverage(features, features_reference)
    return Judgement(
        score=_score(generated, reference, features, features_reference, extractor),
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        faces=face_error(features, features_reference) if isinstance(extractor, FaceLandmarks) else None,
    )


def _score(
    generated: Selection,
    reference: Selection,
    features: Float[Tensor, "n d"],
    features_reference: Float[Tensor, "m d"],
    extractor: FeatureExtractor,
) -> Score:
    distance = kid(features, features_reference, generated.pictures, reference.pictures)
    return Score(
        kid_x1000=1000 * distance.value,
        error=None if distance.error is None else 1000 * distance.error,
        fid=fid(features, features_reference),
        n=len(generated),
        n_reference=len(reference),
        pictures=len(generated.pictures.unique()),
        pictures_reference=len(reference.pictures.unique()),
        features=extractor.name,
        checksum=extractor.checksum,
        preprocessing=extractor.preprocessing,
    )


def as_table(evaluation: Evaluation) -> str:
    """Return an evaluation as text, one line for each fact and a column for each network."""
    score, protocol = evaluation.first.score, evaluation.protocol
    made = {name: value[:16] if name == "weights" else value for name, value in evaluation.made.items()}
    lines = [
        *_columns(evaluation.judgements),
        *_remarks(evaluation.judgements),
        ("spectrum", f"{evaluation.spectrum_error_db:.2f} dB off"),
        ("colours", f"{evaluation.colour_error:.2f} levels of 256 off"),
    ]
    if evaluation.seam_ratio is not None:
        lines.append(("steps at seams", f"{evaluation.seam_ratio:.3f} of those elsewhere"))
    if (found := evaluation.memorisation) is not None:
        told = (
            f"{found.copied:.1%} nearer to a training image than all but {found.expected:.1%} of unseen "
            f"images are (p = {found.p_value:.2g}); median distance {found.distance_ratio:.2f} of theirs"
        )
        lines.append(("memorisation", told))
    lines += [
        ("compared", f"{score.n} images of {protocol.height}x{protocol.width} px, {protocol.stored}"),
        ("with", f"{score.n_reference} real ones, {protocol.split}"),
        ("protocol", protocol.name),
        ("made", ", ".join(f"{name} {value}" for name, value in made.items())),
    ]
    lines += [("left out", f"{count} files of {place}") for place, count in evaluation.left_out.items()]
    return "\n".join(f"{name:18} {value}".rstrip() for name, value in lines)


def _columns(judgements: Sequence[Judgement]) -> list[tuple[str, str]]:
    """Return the numbers that all networks give, a line for each and a column for each network."""
    columns = [
        {
            "features": each.score.features,
            "their checksum": each.score.checksum[:8],
            "KID x 1000": with_error(each.score.kid_x1000, each.score.error, 2),
            "FID": f"{each.score.fid:.2f}",
            "precision, recall": f"{each.precision:.3f}, {each.recall:.3f}",
            "density, coverage": f"{each.density:.3f}, {each.coverage:.3f}",
        }
        for each in judgements
    ]
    return [(name, "  ".join(f"{column[name]:18}" for column in columns)) for name in columns[0]]


def _remarks(judgements: Sequence[Judgement]) -> list[tuple[str, str]]:
    """Return what landmarks say of faces, and why an error is unknown."""
    lines = [
        ("shapes of faces", _faces(each.faces))
        for each in judgements
        if each.score.features == FaceLandmarks.name
    ]
    fewest = min(judgements[0].score.pictures, judgements[0].score.pictures_reference)
    if fewest < PICTURES_FOR_AN_ERROR:
        raised = "; crops of one picture are alike, so KID is too high" if fewest == 1 else ""
        lines.append(
            ("error of KID", f"unknown: it takes {PICTURES_FOR_AN_ERROR} pictures on either side{raised}")
        )
    return lines


def _faces(error: FaceError | None) -> str:
    if error is None:
        return f"unknown: it takes {MIN_REAL_FACES} real faces"
    return (
        f"farther out than real ones with probability {with_error(error.farther, error.error, 3)}; "
        f"{error.beyond:.1%} ± {error.beyond_error:.1%} beyond all but {error.expected:.1%} of them "
        f"(p = {error.p_value:.2g})"
    )
