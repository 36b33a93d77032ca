"""The report of a table: `results.json` for machines, `table.md` for people."""

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from diffnca.comparison.rows import Result
from diffnca.evaluation.metrics.distances import Difference, with_error
from diffnca.evaluation.scores import Evaluation, Judgement, require_one_protocol
from diffnca.files import replace_atomically

JUDGED = ("KID x 1000", "FID", "precision", "recall", "density", "coverage")
HEAD = (
    *("row", *JUDGED, "spectrum dB", "copied"),
    *("held-out error", "parameters", "multiply-adds per image", "images seen", "minutes", "peak memory"),
)


@dataclasses.dataclass(frozen=True)
class Report:
    """All that is known of a table.

    Attributes:
        facts: what all rows share: data, budget, sampler, machine.
        real: numbers of training images, measured in the way of generated images: the best possible row.
        failed: trainings that did not finish or could not be measured, and why.
        left_out: trainings in the folder of the table that are not comparable yet, and why.
        differences: of `subject` and each other row, by its name; negative if `subject` is better.
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
    numbers = json.dumps(dataclasses.asdict(report), indent=1) + "\n"
    for name, text in (("results.json", numbers), ("table.md", as_markdown(report))):
        with replace_atomically(out / name) as partial:
            partial.write_text(text, encoding="utf-8")


def as_markdown(report: Report) -> str:
    """Return the table as Markdown, the best row first, with all that its numbers depend on."""
    rows = [
        (*_numbers(f"`{name}`", [each.evaluation for each in same]), _held_out_error(same), *_costs(same))
        for name, same in _in_order(report)
    ]
    real = _numbers("real", [report.real])
    lines = _table(HEAD, [*rows, (*real, *[""] * (len(HEAD) - len(real)))])
    lines += ["", *_terms(report), ""]
    if report.differences:
        lines += [
            f"KID x 1000 of `{report.subject}` minus that of another row, both against the same real images:"
        ]
        lines += ["", *_compared(report), ""]
    for place, judgement in enumerate(report.real.judgements[1:], 1):
        lines += [f"These images in the features {_network(judgement)}:", ""]
        lines += [*_table(("row", *JUDGED), _by_network(report, place)), ""]
    lines += [f"- failed: {training}: {why}" for training, why in report.failed.items()]
    lines += [f"- left out: {training}: {why}" for training, why in report.left_out.items()]
    return "\n".join(lines).rstrip() + "\n"


def brief(result: Result) -> str:
    """Return the result of a training as one line."""
    score = result.evaluation.first.score
    kid = with_error(score.kid_x1000, score.error)
    return f"{result.name}, training {result.seed}: KID x 1000 {kid}, FID {score.fid:.1f}"


def _in_order(report: Report) -> list[tuple[str, list[Result]]]:
    """Return the trainings of each row, the row with the smallest KID in the first features first."""
    by_name: dict[str, list[Result]] = {}
    for result in report.results:
        by_name.setdefault(result.name, []).append(result)
    return sorted(
        by_name.items(),
        key=lambda row: statistics.mean(each.evaluation.first.score.kid_x1000 for each in row[1]),
    )


def _numbers(name: str, evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    copied = [each.memorisation.copied for each in evaluations if each.memorisation is not None]
    return (
        name,
        *_judged([each.first for each in evaluations]),
        f"{statistics.mean(each.spectrum_error_db for each in evaluations):.1f}",
        f"{statistics.mean(copied):.1%}" if copied else "",
    )


def _judged(judgements: Sequence[Judgement]) -> tuple[str, ...]:
    """Return what one network says of the trainings of a row."""
    kids = [each.score.kid_x1000 for each in judgements]
    spread = _over_trainings(kids)
    return (
        with_error(statistics.mean(kids), judgements[0].score.error if spread is None else spread, 2),
        f"{statistics.mean(each.score.fid for each in judgements):.2f}",
        *(f"{statistics.mean(getattr(each, key) for each in judgements):.2f}" for key in JUDGED[2:]),
    )


def _by_network(report: Report, place: int) -> list[tuple[str, ...]]:
    """Return the rows as the network at `place` sees them."""
    rows = [
        (f"`{name}`", *_judged([each.evaluation.judgements[place] for each in same]))
        for name, same in _in_order(report)
    ]
    return [*rows, ("real", *_judged([report.real.judgements[place]]))]


def _network(judgement: Judgement) -> str:
    return f"{judgement.score.features} {judgement.score.checksum[:8]}"


def _over_trainings(numbers: Sequence[float]) -> float | None:
    """Return the standard error of the mean over trainings, which differ more than images do."""
    return statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else None


def _held_out_error(results: Sequence[Result]) -> str:
    errors = [each.held_out_error for each in results if each.held_out_error is not None]
    return with_error(statistics.mean(errors), _over_trainings(errors), 4) if errors else ""


def _costs(results: Sequence[Result]) -> tuple[str, ...]:
    costs = [each.cost for each in results]
    all_parameters, few = costs[0].parameters, costs[0].parameters_to_generate
    peaks = [cost.peak_memory_bytes for cost in costs]
    return (
        f"{all_parameters:,}" + (f" ({few:,} to generate)" if few != all_parameters else ""),
        f"{costs[0].multiply_adds / 1e9:.2f} G",
        f"{statistics.mean(cost.training_images for cost in costs):,.0f}",
        f"{statistics.mean(cost.training_seconds for cost in costs) / 60:.1f}",
        "" if None in peaks else f"{max(peak or 0 for peak in peaks) / 2**30:.2f} GiB",
    )


def _terms(report: Report) -> list[str]:
    score, protocol = report.real.first.score, report.real.protocol
    return [
        f"{score.n} generated images of {protocol.height}x{protocol.width} px per row ({protocol.stored}) "
        f"against {score.n_reference} real ones ({protocol.split}); features {_network(report.real.first)}; "
        f"KID leaves out pairs of crops within a picture; ± is "
        f"the standard error {_error_of(report)}; FID compares within this table "
        "only. *real*: as many training images measured in the same way. *copied*: share nearer to a "
        "training image than 99% of unseen images are (1% is expected). *held-out error*: mean squared error "
        "of the velocity on held-out images, the same images and noise for all.",
        "",
        *(f"- {name}: {value}" for name, value in report.facts.items()),
    ]


def _error_of(report: Report) -> str:
    trainings = Counter(result.name for result in report.results).values()
    if max(trainings, default=1) == 1:
        return "over images of one training: another training of the same row may differ by more"
    single = "" if min(trainings) > 1 else ", where there is one alone over its images"
    return f"over trainings{single}"


def _compared(report: Report) -> list[str]:
    trainings = Counter(result.name for result in report.results)
    rows = [
        (
            f"`{name}`",
            f"{trainings[report.subject]} and {trainings[name]}",
            f"{1000 * each.mean:+.1f} ± {1000 * each.error:.1f}",
            f"{each.share_a_better:.1%}",
        )
        for name, each in report.differences.items()
    ]
    return [
        *_table(("than", "trainings", "difference", "subject better in"), rows),
        "",
        "A paired bootstrap: image seeds and real images are drawn again, and trainings where a row has "
        "several; *better in* so many of the draws. Of a row with one training it says nothing about how "
        "much another training would differ: that one model beats another, not that one recipe does.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    first, *others = ("| " + " | ".join(cells) + " |" for cells in (head, *rows))
    return [first, "|---" * len(head) + "|", *others]
