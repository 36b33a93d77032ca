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


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Evaluation(Judgement):
    """All measured numbers of one set of generated images; those of `Judgement` are of the first network.

    Attributes:
        protocol: what was compared with what.
        spectrum_error_db: RMS difference of the radial power spectra in decibels.
        colour_error: distance of means and covariances of the colours, in levels of 8 bits.
        seam_ratio: step across the seams over the step elsewhere; `None` if no seams were named.
        memorisation: distance from the training images in the first features; `None` if nobody knows them.
        made: how the generated images were made: model, weights, seed, sampler, steps.
        left_out: number of unusable files, for each place with such files.
        others: what further networks say.
    """

    protocol: Protocol
    spectrum_error_db: float
    colour_error: float
    seam_ratio: float | None
    memorisation: Memorisation | None
    made: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)
    others: tuple[Judgement, ...] = ()

    @property
    def judgements(self) -> tuple[Judgement, ...]:
        """What each network says, the first one first."""
        return (self, *self.others)

    @property
    def terms(self) -> tuple[Any, ...]:
        """All that two evaluations must share, so that their numbers compare."""
        score, networks = self.score, [each.score for each in self.judgements]
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
    extractor: FeatureExtractor,
    *,
    others: Sequence[FeatureExtractor] = (),
    training: Selection | None = None,
    cache: Path | None = None,
    protocol: Protocol = Protocol(),
    seams: float | None = None,
    made: dict[str, str] | None = None,
    report: Report = unseen,
) -> Evaluation:
    """Measure all numbers of `generated` against real images of equal size (`reference`).

    `others` are further feature networks; only `extractor` answers for memorisation, whose images are many.
    `training` are images that the model has seen, none of them in `reference`, for the report on
    memorisation; `None` leaves it out. `cache` is a folder that keeps features; `None` keeps none. `seams` is
    the step across the seams of the generated images over the step elsewhere, `made` how they were made;
    `None` if unknown.

    Raises:
        ValueError: sizes differ, or there are too few images.
    """
    height, width = generated.images.shape[2:]
    check_size((height, width), reference)

    def features_of(judge: FeatureExtractor, selection: Selection, kind: str) -> Tensor:
        title = f"features of {kind} images" + (f", {judge.name}" if others else "")
        return extract_cached(judge, selection.images, cache, report, title)

    judges = (extractor, *others)
    features = [
        (features_of(each, generated, "generated"), features_of(each, reference, "real")) for each in judges
    ]
    first, *further = (
        _judged(generated, reference, *both, judge) for both, judge in zip(features, judges, strict=True)
    )
    return Evaluation(
        protocol=replace(protocol, reference=digest_of(reference.images).hex(), height=height, width=width),
        score=first.score,
        precision=first.precision,
        recall=first.recall,
        density=first.density,
        coverage=first.coverage,
        faces=first.faces,
        spectrum_error_db=spectrum_error_db(generated.images, reference.images),
        colour_error=colour_error(generated.images, reference.images),
        seam_ratio=seams,
        memorisation=None
        if training is None
        else memorisation(features[0][0], features_of(extractor, training, "training"), features[0][1]),
        made=made or {},
        others=tuple(further),
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
    of_faces = isinstance(extractor, FaceLandmarks)
    return Judgement(
        score=_score(generated, reference, features, features_reference, extractor),
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        faces=face_error(features, features_reference) if of_faces else None,
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
    """Return an evaluation as text, one line for each fact; several networks have a column each."""
    score, protocol = evaluation.score, evaluation.protocol
    made = {name: value[:16] if name == "weights" else value for name, value in evaluation.made.items()}
    lines = [
        *_judgements(evaluation),
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
    networks = ", ".join(f"{each.score.features} {each.score.checksum[:8]}" for each in evaluation.judgements)
    lines += [
        ("compared", f"{score.n} images of {protocol.height}x{protocol.width} px, {protocol.stored}"),
        ("with", f"{score.n_reference} real ones, {protocol.split}"),
        ("protocol", f"{protocol.name}, features {networks}"),
        ("made", ", ".join(f"{name} {value}" for name, value in made.items())),
    ]
    lines += [("left out", f"{count} files of {place}") for place, count in evaluation.left_out.items()]
    return "\n".join(f"{name:18} {value}".rstrip() for name, value in lines)


def _judgements(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the lines of what the networks say, in columns, and of the faces."""
    columns = [_column(each) for each in evaluation.judgements]
    rows = {name: [column[name] for column in columns] for name in columns[0]}
    if len(columns) > 1:
        rows = {"": [each.score.features for each in evaluation.judgements], **rows}
    lines = [(name, "  ".join(f"{value:18}" for value in values).rstrip()) for name, values in rows.items()]
    if why := _why_no_error(evaluation):
        at = [name for name, _ in lines].index("KID x 1000")
        lines[at] = ("KID x 1000", lines[at][1] + why)
    landmarks = [each for each in evaluation.judgements if each.score.features == FaceLandmarks.name]
    return lines + [("shapes of faces", _faces(each.faces)) for each in landmarks]


def _column(judgement: Judgement) -> dict[str, str]:
    score = judgement.score
    return {
        "KID x 1000": with_error(score.kid_x1000, score.error, 2),
        "FID": f"{score.fid:.2f}",
        "precision, recall": f"{judgement.precision:.3f}, {judgement.recall:.3f}",
        "density, coverage": f"{judgement.density:.3f}, {judgement.coverage:.3f}",
    }


def _faces(error: FaceError | None) -> str:
    if error is None:
        return f"unknown: it takes {MIN_REAL_FACES} real faces"
    return (
        f"farther out than real ones with probability {with_error(error.farther, error.error, 3)}; "
        f"{error.beyond:.1%} ± {error.beyond_error:.1%} beyond all but {error.expected:.1%} of them "
        f"(p = {error.p_value:.2g})"
    )


def _why_no_error(evaluation: Evaluation) -> str:
    score = evaluation.score
    fewest = min(score.pictures, score.pictures_reference)
    if fewest >= PICTURES_FOR_AN_ERROR:
        return ""
    raised = "; crops of one picture are alike, so KID is too high" if fewest == 1 else ""
    return f" (no error: it takes {PICTURES_FOR_AN_ERROR} pictures on either side{raised})"
