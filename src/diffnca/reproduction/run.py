"""`diffnca reproduce`: one row after the other is trained and measured; a stopped table goes on."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffnca.benchmark import machine
from diffnca.cli import INTERRUPTED
from diffnca.config import Config
from diffnca.data.images import open_images
from diffnca.engine.precision import device_named
from diffnca.evaluation.run import extractor_named
from diffnca.evaluation.scores import Evaluation, evaluate
from diffnca.evaluation.selections import Selection, count_crops, crops
from diffnca.metrics import Difference, FeatureExtractor, extract_cached, kid_difference
from diffnca.reproduction.report import Report, write
from diffnca.reproduction.rows import RealSelections, Result, cache_of, measure_row, train_row
from diffnca.reproduction.tables import Table, table_named

if TYPE_CHECKING:
    from diffnca.cli import Reproduce

MIN_IMAGES = 100
"""Fewest generated and fewest held-out images: the report on memorisation needs so many."""


def run(command: Reproduce) -> int:
    """Train and measure all rows; return the exit code."""
    check(command)
    command = replace(command, device=device_named(command.device))
    table = table_named(command.table, command.reduce)
    rows = chosen(table, command)
    extractor = extractor_named(command.features, command.weights, command.device)
    real = real_selections(rows[0], command)
    command.out.mkdir(exist_ok=True)
    results: list[Result] = []
    features: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    best = real_score(real, extractor, command)
    for config in rows:
        name, folder = config.name, folder_of(config, command.out)
        print(f"{name}, training {config.training.seed}: {folder}", flush=True)
        code = train_row(config, folder, command)
        if code == INTERRUPTED:
            print("diffnca: stopped; the same command goes on", file=sys.stderr)
            return INTERRUPTED
        if code != 0:
            failed[name] = f"its training ended with exit code {code}; see what it said above"
            continue
        result, vectors = measure_row(config, folder, real, extractor, command)
        features.setdefault(name, vectors)
        score = result.evaluation.score
        print(
            f"{name}: KID x 1000 {score.kid_x1000:.1f} ± {score.error:.1f}, FID {score.fid:.1f}", flush=True
        )
        results.append(result)
        differences = compared(table.subject, features, real, extractor, command)
        facts = facts_of(command, real)
        report = Report(table.name, facts, best, tuple(results), failed, differences, table.subject)
        write(report, command.out)
    print(command.out / "table.md")
    return 0 if results else 2


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
    for name in ("minutes", "images", "seeds"):
        value = getattr(command, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name} {value}: must be above 0")
    if command.n < MIN_IMAGES:
        raise ValueError(f"--n {command.n}: must be {MIN_IMAGES} or more images for each row")


def chosen(table: Table, command: Reproduce) -> list[Config]:
    """Return the rows to be trained, once for each seed.

    Raises:
        ValueError: a row is not in the table.
    """
    names = [row.name for row in table.rows]
    for name in command.rows:
        if name not in names:
            raise ValueError(f"--rows {name}: must be among {', '.join(names)}")
    rows = [row for row in table.rows if not command.rows or row.name in command.rows]
    return [
        replace(row, training=replace(row.training, seed=seed))
        for seed in range(command.seeds)
        for row in rows
    ]


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
    if num_held_out < MIN_IMAGES:
        raise ValueError(
            f"--data: holds out {num_held_out} images or crops of {data.crop} px; at least {MIN_IMAGES} are "
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
    return evaluate(selection, real.held_out, extractor, cache=cache_of(command), split="held out")


def facts_of(command: Reproduce, real: RealSelections) -> dict[str, str]:
    """Return what all rows have in common."""
    names = ", ".join(path.name for path in command.data)
    budget = f"{command.minutes:g} minutes" if command.minutes is not None else f"{command.images:,} images"
    return {
        "data": f"{names}, {len(real.training)} images or crops to train on, fingerprint {real.fingerprint}",
        "budget": f"{budget} of training for each row",
        "sampling": f"{command.sampler}, {command.steps} steps (but VNCA, which takes none)",
        "machine": machine(torch.device(command.device)),
    }


def compared(
    subject: str,
    features: dict[str, Tensor],
    real: RealSelections,
    extractor: FeatureExtractor,
    command: Reproduce,
) -> dict[str, Difference]:
    """Return the difference of the subject and each other row, both of the first training, if it is there."""
    if subject not in features:
        return {}
    reference = extract_cached(extractor, real.held_out.images, cache_of(command))
    return {
        name: kid_difference(features[subject], vectors, reference, real.held_out.pictures)
        for name, vectors in features.items()
        if name != subject
    }
