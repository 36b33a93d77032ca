"""The report of a table: `results.json` for machines, `table.md` for people."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffnca.comparison.rows import Result
from diffnca.evaluation.metrics.bootstrap import Difference
from diffnca.evaluation.metrics.distances import Distance
from diffnca.evaluation.scores import Evaluation, require_one_protocol
from diffnca.files import replace_atomically

HEAD = ("row", "KID x 1000", "FID", "precision", "recall", "density", "coverage", "spectrum dB", "copied")
HEAD_ERROR = "held-out error"
HEAD_COST = ("parameters", "multiply-adds per image", "images seen", "minutes", "peak memory")


@dataclasses.dataclass(frozen=True)
class Report:
    """All that is known of a table.

    Attributes:
        table: its name.
        facts: what all rows share: data, budget, sampler, machine.
        real: numbers of training images, measured in the way of generated images: the best possible row.
        results: of the trained rows.
        failed: trainings that did not finish or could not be measured, and why.
        left_out: trainings in the folder of the table that are not comparable yet, and why.
        differences: of `subject` and each other row, by its name; negative if `subject` is better.
        subject: the row that is compared with all others.
    """

    table: str
    facts: dict[str, str]
    real: Evaluation
    results: tuple[Result, ...]
    failed: dict[str, str]
    left_out: dict[str, str]
    differences: dict[str, Difference]
    subject: str


def write(report: Report, out: Path) -> None:
    """Write `results.json` and `table.md` atomically; refuse rows of different protocols."""
    require_one_protocol([report.real, *(result.evaluation for result in report.results)])
    _replace(out / "results.json", json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    _replace(out / "table.md", as_markdown(report))


def as_markdown(report: Report) -> str:
    """Return the table as Markdown, the best row first, with all that its numbers depend on."""
    by_name: dict[str, list[Result]] = {}
    for result in report.results:
        by_name.setdefault(result.name, []).append(result)
    rows = sorted(by_name.values(), key=_mean_kid)
    head = (*HEAD, HEAD_ERROR, *HEAD_COST)
    lines = [_line(head), "|---" * len(head) + "|"]
    for same in rows:
        measured = _numbers(_name(same[0].name), [result.evaluation for result in same])
        lines.append(_line((*measured, _held_out_error(same), *_costs(same))))
    lines.append(_line((*_numbers("real", [report.real]), *[""] * (1 + len(HEAD_COST)))))
    lines += ["", *_terms(report), ""]
    if report.differences:
        lines += [
            f"KID x 1000 of `{report.subject}` minus that of another row, both against the same real images:"
        ]
        lines += ["", *_compared(report), ""]
    lines += [f"- failed: {training}: {why}" for training, why in report.failed.items()]
    lines += [f"- left out: {training}: {why}" for training, why in report.left_out.items()]
    return "\n".join(lines).rstrip() + "\n"


def brief(result: Result) -> str:
    """Return the result of a training as one line."""
    score = result.evaluation.score
    return f"{result.name}, training {result.seed}: KID x 1000 {score.kid.x1000()}, FID {score.fid:.1f}"


def _mean_kid(results: Sequence[Result]) -> float:
    return statistics.mean(result.evaluation.score.kid_x1000 for result in results)


def _name(row: str) -> str:
    return f"`{row}`"


def _numbers(name: str, evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Return the cells of the metrics: means over all trainings of a row."""
    scores = [each.score for each in evaluations]
    kids = [score.kid_x1000 for score in scores]
    error = scores[0].kid.error
    if len(kids) > 1:
        error = _over_trainings(kids) / 1000
    copied = [each.memorisation.copied for each in evaluations if each.memorisation is not None]

    def mean(numbers: Sequence[float], digits: int) -> str:
        return f"{statistics.mean(numbers):.{digits}f}"

    return (
        name,
        Distance(statistics.mean(kids) / 1000, error).x1000(),
        mean([score.fid for score in scores], 1),
        *(mean([getattr(each, key) for each in evaluations], 2) for key in HEAD[3:7]),
        mean([each.spectrum_error_db for each in evaluations], 1),
        f"{statistics.mean(copied):.1%}" if copied else "",
    )


def _over_trainings(numbers: Sequence[float]) -> float:
    """Return the standard error of the mean over trainings, which differ more than images do."""
    return statistics.stdev(numbers) / math.sqrt(len(numbers))


def _held_out_error(results: Sequence[Result]) -> str:
    """Return the cell of the error on held-out images: the mean over all trainings of a row."""
    errors = [each.held_out_error for each in results if each.held_out_error is not None]
    if not errors:
        return ""
    spread = f" ± {_over_trainings(errors):.4f}" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.4f}{spread}"


def _costs(results: Sequence[Result]) -> tuple[str, ...]:
    """Return the cells of the costs: means over all trainings of a row."""
    cost = results[0].cost
    few = cost.parameters_to_generate
    peaks = [each.cost.peak_memory_bytes for each in results]
    return (
        f"{cost.parameters:,}" + (f" ({few:,} to generate)" if few != cost.parameters else ""),
        f"{cost.multiply_adds / 1e9:.2f} G",
        f"{statistics.mean(each.cost.training_images for each in results):,.0f}",
        f"{statistics.mean(each.cost.training_seconds for each in results) / 60:.1f}",
        "" if None in peaks else f"{max(peak or 0 for peak in peaks) / 2**30:.2f} GiB",
    )


def _terms(report: Report) -> list[str]:
    """Return the lines that say what the numbers depend on."""
    score, protocol = report.real.score, report.real.protocol
    return [
        f"{score.n} generated images of {protocol.height}x{protocol.width} px per row ({protocol.stored}) "
        f"against {score.n_reference} real ones ({protocol.split}); features {score.features} "
        f"{score.checksum[:8]}; KID leaves out pairs of crops within a picture; ± is "
        f"the standard error {_error_of(report)}; FID compares within this table "
        "only. *real*: as many training images measured in the same way. *copied*: share nearer to a "
        "training image than 99% of unseen images are (1% is expected). *held-out error*: mean squared error "
        "of the velocity on held-out images, the same images and noise for all.",
        "",
        *(f"- {name}: {value}" for name, value in report.facts.items()),
    ]


def _error_of(report: Report) -> str:
    """Say in words what the errors of the rows include."""
    trainings = Counter(result.name for result in report.results).values()
    if max(trainings, default=1) == 1:
        return "over images of one training: another training of the same row may differ by more"
    single = "" if min(trainings) > 1 else ", where there is one alone over its images"
    return f"over trainings{single}"


def _compared(report: Report) -> list[str]:
    """Return a small table of the differences."""
    trainings = Counter(result.name for result in report.results)
    own = trainings[report.subject]
    lines = [_line(("than", "trainings", "difference", "subject better in")), "|---|---|---|---|"]
    lines += [
        _line(
            (
                _name(name),
                f"{own} and {trainings[name]}",
                f"{1000 * each.mean:+.1f} ± {1000 * each.error:.1f}",
                f"{each.share_a_better:.1%}",
            )
        )
        for name, each in report.differences.items()
    ]
    return [
        *lines,
        "",
        "A paired bootstrap: image seeds and real images are drawn again, and trainings where a row has "
        "several; *better in* so many of the draws. Of a row with one training it says nothing about how "
        "much another training would differ: that one model beats another, not that one recipe does.",
    ]


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _replace(path: Path, text: str) -> None:
    with replace_atomically(path) as partial:
        partial.write_text(text, encoding="utf-8")
