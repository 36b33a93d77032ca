"""An evaluation as a table for people."""

from __future__ import annotations

from diffnca.evaluation.metrics.distances import PICTURES_FOR_AN_ERROR
from diffnca.evaluation.metrics.memorisation import Memorisation
from diffnca.evaluation.scores import Evaluation


def as_table(evaluation: Evaluation) -> str:
    """Return an evaluation as text, one line for each fact."""
    score, protocol = evaluation.score, evaluation.protocol
    lines = [
        ("KID x 1000", score.kid.x1000(2) + _why_no_error(evaluation)),
        ("FID", f"{score.fid:.2f}"),
        ("precision, recall", f"{evaluation.precision:.3f}, {evaluation.recall:.3f}"),
        ("density, coverage", f"{evaluation.density:.3f}, {evaluation.coverage:.3f}"),
        ("spectrum", f"{evaluation.spectrum_error_db:.2f} dB off"),
        ("colours", f"{evaluation.colour_error:.2f} levels of 256 off"),
    ]
    if evaluation.seam_ratio is not None:
        lines.append(("steps at seams", f"{evaluation.seam_ratio:.3f} of those elsewhere"))
    if evaluation.memorisation is not None:
        lines.append(("memorisation", _memorised(evaluation.memorisation)))
    lines += [
        ("compared", f"{score.n} images of {protocol.height}x{protocol.width} px, {protocol.stored}"),
        ("with", f"{score.n_reference} real ones, {protocol.split}"),
        ("protocol", f"{protocol.name}, features {score.features} {score.checksum[:8]}"),
        ("made", ", ".join(f"{key} {_short(key, value)}" for key, value in evaluation.made.items())),
    ]
    lines += [("left out", f"{count} files of {place}") for place, count in evaluation.left_out.items()]
    return "\n".join(f"{name:18} {value}" for name, value in lines)


def _why_no_error(evaluation: Evaluation) -> str:
    """Return in words why KID has no error and what that means; an empty text if KID has an error."""
    score = evaluation.score
    fewest = min(score.pictures, score.pictures_reference)
    if fewest >= PICTURES_FOR_AN_ERROR:
        return ""
    raised = "; crops of one picture are alike, so KID is too high" if fewest == 1 else ""
    return f" (no error: it takes {PICTURES_FOR_AN_ERROR} pictures on either side{raised})"


def _short(name: str, value: str) -> str:
    return value[:16] if name == "weights" else value


def _memorised(found: Memorisation) -> str:
    return (
        f"{found.copied:.1%} nearer to a training image than all but {found.expected:.1%} of unseen images "
        f"are (p = {found.p_value:.2g}); median distance {found.distance_ratio:.2f} of theirs"
    )
