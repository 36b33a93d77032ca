"""`diffnca reproduce`: one row after the other is trained and measured; a stopped table goes on."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffnca.cli.main import INTERRUPTED
from diffnca.comparison.report import Report, write
from diffnca.comparison.rows import (
    RealSelections,
    Result,
    budget_of,
    cache_of,
    is_finished,
    measure_row,
    train_row,
)
from diffnca.comparison.tables import Table, table_named
from diffnca.config.model import Config
from diffnca.config.networks import VNCAConfig
from diffnca.data.images import open_images
from diffnca.engine.machine import device_named, machine_of
from diffnca.evaluation.metrics.bootstrap import Difference, kid_difference
from diffnca.evaluation.metrics.cached import extract_cached
from diffnca.evaluation.metrics.features import FeatureExtractor
from diffnca.evaluation.metrics.memorisation import MIN_UNSEEN
from diffnca.evaluation.protocol import extractor_named
from diffnca.evaluation.scores import Evaluation, Protocol, evaluate
from diffnca.evaluation.selections import Selection, count_crops, crops

if TYPE_CHECKING:
    from diffnca.cli.measurements import Reproduce


def run(command: Reproduce) -> int:
    """Train and measure all rows; return the exit code: 2 if a row could not be trained or measured."""
    check(command)
    command = replace(command, device=device_named(command.device))
    table = table_named(command.table, command.reduce, command.microns_per_px)
    rows = chosen(table, command)
    for config in rows:
        is_finished(config, folder_of(config, command.out), command)  # or it is refused before the first
    extractor = extractor_named(command.features, command.weights, command.device)
    real = real_selections(rows[0], command)
    command.out.mkdir(exist_ok=True)
    kept, left_out = others(table, rows, command)
    best = real_score(real, extractor, command)
    report = Report(table.name, facts_of(command, real), best, (), {}, left_out, {}, table.subject)
    features: dict[str, list[Tensor]] = {}
    for config in (*kept, *rows):
        training, folder = title(config), folder_of(config, command.out)
        print(f"{training}: {folder}", flush=True)
        try:
            code = train_row(config, folder, command)
            if code == INTERRUPTED:
                print("diffnca: stopped; the same command goes on", file=sys.stderr)
                return INTERRUPTED
            if code != 0:
                raise ValueError(f"its training ended with exit code {code}; see what it said")
            result, vectors = measure_row(config, folder, real, extractor, command)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            why = " ".join(str(error).split()) or type(error).__name__
            print(f"diffnca: {training}: {why}", file=sys.stderr)
            report = replace(report, failed={**report.failed, training: why})
        else:
            print(f"{training}: {brief(result)}", flush=True)
            features.setdefault(config.name, []).append(vectors)
            differences = compared(table.subject, features, real, extractor, command)
            report = replace(report, results=(*report.results, result), differences=differences)
        write(report, command.out)
    print(command.out / "table.md")
    return 2 if report.failed else 0


def brief(result: Result) -> str:
    """Return the distance of a row in words."""
    score = result.evaluation.score
    return f"KID x 1000 {score.kid.x1000()}, FID {score.fid:.1f}"


def check(command: Reproduce) -> None:
    """Refuse what would fail only after hours.

    Raises:
        ValueError: something is missing or does not fit.
    """
    if not command.data:
        raise ValueError("--data is missing: give folders, zip files, images or slides")
    if not command.out.resolve().parent.is_dir():
        raise ValueError(
            f"--out {command.out}: the folder {command.out.parent} does not exist; create it first"
        )
    if (command.minutes is None) == (command.images is None):
        raise ValueError("--minutes, --images: give one of them, the budget of each row")
    if command.out.exists() and not command.out.is_dir():
        raise ValueError(f"--out {command.out}: is a file; give a folder")
    for name in ("minutes", "images", "seeds"):
        value = getattr(command, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name} {value}: must be above 0")
    if command.n < MIN_UNSEEN:
        raise ValueError(f"--n {command.n}: must be {MIN_UNSEEN} or more images for each row")


def chosen(table: Table, command: Reproduce) -> list[Config]:
    """Return the rows to be trained, once for each seed.

    Raises:
        ValueError: a row is not in the table, or cannot be sampled in so many steps.
    """
    names = [row.name for row in table.rows]
    for name in command.rows:
        if name not in names:
            raise ValueError(f"--rows {name}: must be among {', '.join(names)}")
    rows = [row for row in table.rows if not command.rows or row.name in command.rows]
    for row in rows:
        most = row.schedule.num_diffusion_steps
        if not isinstance(row.model, VNCAConfig) and not 1 <= command.steps <= most:
            raise ValueError(f"--steps {command.steps}: must be from 1 to {most}, the steps of {row.name}")
    return [with_seed(row, seed) for seed in range(command.seeds) for row in rows]


def others(table: Table, rows: list[Config], command: Reproduce) -> tuple[list[Config], dict[str, str]]:
    """Return the trainings in the folder of the table that are not asked for now.

    Returns:
        Those that are finished, which stay in the table; and why the rest is left out of it.
    """
    kept, left_out = [], {}
    for row in table.rows:
        for folder in sorted((command.out / "rows").glob(f"{row.name}-*")):
            seed = folder.name.removeprefix(f"{row.name}-")
            config = with_seed(row, int(seed)) if seed.isdecimal() else None
            if config is None or config in rows:
                continue
            try:
                if is_finished(config, folder, command):
                    kept.append(config)
                else:
                    left_out[title(config)] = f"its training has not come to {budget_of(command)}"
            except ValueError as error:
                left_out[title(config)] = str(error)
    return kept, left_out


def with_seed(row: Config, seed: int) -> Config:
    """Return a row as it is trained with this seed."""
    return replace(row, training=replace(row.training, seed=seed))


def title(config: Config) -> str:
    """Return what a training of a row is called."""
    return f"{config.name}, training {config.training.seed}"


def folder_of(config: Config, out: Path) -> Path:
    """Return the folder of one training of a row."""
    return out / "rows" / f"{config.name}-{config.training.seed}"


def real_selections(config: Config, command: Reproduce) -> RealSelections:
    """Return the real images, split as the trainings split them.

    Raises:
        ValueError: there are too few.
    """
    data = config.data
    images = open_images(
        command.data,
        reduce=data.reduce,
        max_background=data.max_background,
        channels=config.model.image_channels,
        min_size=data.crop,
        microns_per_px=data.microns_per_px,
    )
    training, held_out = images.split(data.validation, data.split_seed)
    num_held_out = count_crops(held_out, data.crop)
    if num_held_out < MIN_UNSEEN:
        raise ValueError(
            f"--data: holds out {num_held_out} images or crops of {data.crop} px; at least {MIN_UNSEEN} are "
            "needed to compare with; give more images"
        )
    num_training = count_crops(training, data.crop)
    if command.n > num_training:
        raise ValueError(
            f"--n {command.n}: must be at most {num_training}, as many images as there are to train on"
        )
    return RealSelections(
        training=crops(training, num_training, data.crop),
        held_out=crops(held_out, min(command.n, num_held_out), data.crop),
        fingerprint=images.fingerprint,
    )


def real_score(real: RealSelections, extractor: FeatureExtractor, command: Reproduce) -> Evaluation:
    """Return the numbers of training images measured like generated ones."""
    index = torch.arange(command.n) * len(real.training) // command.n
    selection = Selection(real.training.images[index], real.training.pictures[index])
    return evaluate(
        selection, real.held_out, extractor, cache=cache_of(command), protocol=Protocol(split="held out")
    )


def facts_of(command: Reproduce, real: RealSelections) -> dict[str, str]:
    """Return what all rows have in common."""
    names = ", ".join(path.name for path in command.data)
    return {
        "data": f"{names}, {len(real.training)} images or crops to train on, fingerprint {real.fingerprint}",
        "budget": f"{budget_of(command)} of training for each row",
        "sampling": f"{command.sampler}, {command.steps} steps for all denoisers, also the published ones, "
        "whose papers take 300 of ddpm (VNCA takes none)",
        "machine": machine_of(torch.device(command.device)),
    }


def compared(
    subject: str,
    features: dict[str, list[Tensor]],
    real: RealSelections,
    extractor: FeatureExtractor,
    command: Reproduce,
) -> dict[str, Difference]:
    """Return the difference of the subject and each other row, of all their trainings so far."""
    if subject not in features:
        return {}
    reference = extract_cached(extractor, real.held_out.images, cache_of(command))
    own = torch.stack(features[subject])
    return {
        name: kid_difference(own, torch.stack(vectors), reference, real.held_out.pictures)
        for name, vectors in features.items()
        if name != subject
    }
