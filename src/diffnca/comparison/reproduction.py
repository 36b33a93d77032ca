"""A table from start to end: train and measure one row after the other; a stopped table goes on."""

import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from diffnca.comparison.report import Report, write
from diffnca.comparison.rows import RealSelections, Row, is_finished, measure, train
from diffnca.comparison.tables import Table, Terms, table_named
from diffnca.config.model import Config
from diffnca.config.networks import VNCAConfig
from diffnca.engine.machine import device_named, machine_of
from diffnca.errors import Interrupted, one_line
from diffnca.evaluation.judges import judges_named
from diffnca.evaluation.metrics.distances import Difference, kid_difference
from diffnca.evaluation.metrics.features import extract_cached
from diffnca.progress import Report as Seen
from diffnca.progress import unseen

LOGGER = logging.getLogger(__name__)


def reproduce(name: str, terms: Terms, report: Seen = unseen) -> Iterator[Report]:
    """Train and measure all rows of a table; write and yield the table after each row.

    Raises:
        ValueError: something does not fit; raised before the first training.
        Interrupted: a stop was asked for; the folder keeps all results so far.
    """
    terms.check()
    terms = replace(terms, device=device_named(terms.device))
    table = table_named(name, terms.reduce, terms.microns_per_px)
    rows = _chosen(table, terms)
    for row in rows:
        is_finished(row, terms)  # refuses a wrong run before the first training
    judges = judges_named(terms.features, terms.weights, terms.device)
    real = RealSelections.of(rows[0].config, terms, report)
    terms.out.mkdir(exist_ok=True)
    kept, left_out = others(table, rows, terms)
    best = real.evaluation(judges, terms, report)
    reference = extract_cached(judges[0], real.held_out.images, terms.cache)
    found = Report(table.name, _facts(terms, real), best, (), {}, left_out, {}, table.subject)
    features: dict[str, list[Tensor]] = {}
    for row in (*kept, *rows):
        LOGGER.info("%s: %s", row.title, row.folder)
        try:
            train(row, terms, report)
            result, vectors = measure(row, real, judges, terms, report)
        except KeyboardInterrupt:
            raise Interrupted("stopped", "goes on") from None
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            LOGGER.warning("%s: %s", row.title, one_line(error))
            found = replace(found, failed={**found.failed, row.title: one_line(error)})
        else:
            features.setdefault(row.config.name, []).append(vectors)
            differences = _compared(table.subject, features, reference, real.held_out.pictures)
            found = replace(found, results=(*found.results, result), differences=differences)
        write(found, terms.out)
        yield found


def _chosen(table: Table, terms: Terms) -> list[Row]:
    """Return the rows to train, once for each seed; refuse unknown rows and too many diffusion steps."""
    names = [row.name for row in table.rows]
    for name in terms.rows:
        if name not in names:
            raise ValueError(f"--rows {name}: must be among {', '.join(names)}")
    configs = [row for row in table.rows if not terms.rows or row.name in terms.rows]
    for config in configs:
        most = config.schedule.num_diffusion_steps
        if not isinstance(config.model, VNCAConfig) and not 1 <= terms.steps <= most:
            raise ValueError(f"--steps {terms.steps}: must be from 1 to {most}, the steps of {config.name}")
    return [_with_seed(config, seed, terms) for seed in range(terms.seeds) for config in configs]


def _with_seed(config: Config, seed: int, terms: Terms) -> Row:
    return Row(replace(config, training=replace(config.training, seed=seed)), terms.out)


def others(table: Table, rows: list[Row], terms: Terms) -> tuple[list[Row], dict[str, str]]:
    """Return the finished trainings in the folder that nobody asks for now, and why others are left out."""
    kept, left_out = [], {}
    for config in table.rows:
        for folder in sorted((terms.out / "rows").glob(f"{config.name}-*")):
            seed = folder.name.removeprefix(f"{config.name}-")
            if not seed.isdecimal() or (row := _with_seed(config, int(seed), terms)) in rows:
                continue
            try:
                if is_finished(row, terms):
                    kept.append(row)
                else:
                    left_out[row.title] = f"its training has not come to {terms.budget}"
            except ValueError as error:
                left_out[row.title] = str(error)
    return kept, left_out


def _facts(terms: Terms, real: RealSelections) -> dict[str, str]:
    names = ", ".join(path.name for path in terms.data)
    left_out = f", {real.left_out} files left out" if real.left_out else ""
    return {
        "data": f"{names}, {len(real.training)} images or crops to train on{left_out}, fingerprint "
        f"{real.fingerprint}",
        "budget": f"{terms.budget} of training for each row",
        "sampling": f"{terms.sampler}, {terms.steps} steps for all denoisers, also the published ones, "
        "whose papers take 300 of ddpm (VNCA takes none)",
        "machine": machine_of(torch.device(terms.device)),
    }


def _compared(
    subject: str, features: dict[str, list[Tensor]], reference: Tensor, pictures: Tensor
) -> dict[str, Difference]:
    return {
        name: kid_difference(torch.stack(features[subject]), torch.stack(vectors), reference, pictures)
        for name, vectors in features.items()
        if name != subject and subject in features
    }
