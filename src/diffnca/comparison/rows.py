"""A row of a table: trained, sampled and measured, and what it costs; finished parts are not done again.

All rows train on the first part of the real images; no row sees the held-out part.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas
from diffnca.comparison import child
from diffnca.comparison.tables import MIN_IMAGES, Terms
from diffnca.config.json import to_json
from diffnca.config.model import Config
from diffnca.config.networks import VNCAConfig
from diffnca.data.held_out import split
from diffnca.data.images import images_for
from diffnca.diffusion.denoiser import Query, estimate_alone
from diffnca.diffusion.velocity import velocity_error
from diffnca.evaluation.metrics.features import FeatureExtractor, extract_cached
from diffnca.evaluation.samples import Samples
from diffnca.evaluation.scores import Evaluation, Protocol, evaluate
from diffnca.evaluation.selections import Selection, count_crops, crops, whole
from diffnca.files import OWN
from diffnca.formats.png import contact_sheet, write_png
from diffnca.models.build import build_model
from diffnca.models.file import load_denoiser
from diffnca.progress import Report
from diffnca.sampling.guidance import prepare
from diffnca.sampling.task import walk_of
from diffnca.training.state import LOG_FILE, Progress, check_same_run, stored_run

ERROR_IMAGES = 64


@dataclass(frozen=True)
class RealSelections:
    """The real images of all rows, and the number of unusable files (`left_out`)."""

    training: Selection
    held_out: Selection
    fingerprint: str
    left_out: int

    @classmethod
    def of(cls, config: Config, terms: Terms, report: Report) -> "RealSelections":
        """Return the real images, split as in the trainings; refuse too few of them."""
        data, images = config.data, images_for(config, terms.data, report=report)
        training, held_out = split(images, data.validation, data.split_seed, data.crop)
        num_training, num_held_out = (count_crops(each, data.crop) for each in (training, held_out))
        if num_held_out < MIN_IMAGES:
            raise ValueError(
                f"--data: holds out {num_held_out} images or crops of {data.crop} px; at least {MIN_IMAGES} "
                "are needed to compare with; give more images"
            )
        if terms.n > num_training:
            raise ValueError(
                f"--n {terms.n}: must be at most {num_training}, as many images as there are to train on"
            )
        shown, unseen = crops(training, num_training, data.crop), min(terms.n, num_held_out)
        return cls(shown, crops(held_out, unseen, data.crop), images.fingerprint, len(images.skipped))

    def evaluation(self, judges: Sequence[FeatureExtractor], terms: Terms, report: Report) -> Evaluation:
        """Measure training images in the way of generated images."""
        index = torch.arange(terms.n) * len(self.training) // terms.n
        chosen = Selection(self.training.images[index], self.training.pictures[index])
        held_out, protocol = self.held_out, Protocol(split="held out")
        return evaluate(chosen, held_out, judges, cache=terms.cache, protocol=protocol, report=report)


@dataclass(frozen=True)
class Row:
    """A training of a row: `config` has its name and its seed; `table` is the folder of the table."""

    config: Config
    table: Path

    @property
    def title(self) -> str:
        """The name and the seed of this training."""
        return f"{self.config.name}, training {self.config.training.seed}"

    @property
    def folder(self) -> Path:
        """The folder of this training."""
        return self.table / "rows" / f"{self.config.name}-{self.config.training.seed}"

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.folder / "run"


@dataclass(frozen=True)
class Cost:
    """What a row costs.

    Attributes:
        parameters_to_generate: the parameters that make images; without the encoder of VNCA.
        multiply_adds: per generated image, in all diffusion steps.
        training_seconds: wall-clock, after the compilation.
        peak_memory_bytes: in training, of the process or the GPU; `None` if unknown.
    """

    parameters: int
    parameters_to_generate: int
    multiply_adds: int
    training_seconds: float
    training_images: int
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Result:
    """The result of a training of a row; VNCA has no error of the velocity on held-out images."""

    name: str
    seed: int
    cost: Cost
    evaluation: Evaluation
    held_out_error: float | None = None


def train(row: Row, terms: Terms, report: Report) -> None:
    """Train a row, or go on with a stopped run; a stop saves the run and raises `Interrupted`."""
    if is_finished(row, terms):
        return
    row.folder.mkdir(parents=True, exist_ok=True)
    job = {
        "config": to_json(row.config),
        "data": [str(path.resolve()) for path in terms.data],
        "out": str(row.run.resolve()),
        "minutes": terms.minutes,
        "images": terms.images,
    }
    path = row.folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    budget = _wanted(row, terms).training
    child.launch(path, lambda: report(f"training of {row.config.name}", _logged(row).share(budget), 1.0))


def _logged(row: Row) -> Progress:
    try:
        line = json.loads((row.run / LOG_FILE).read_text(encoding="utf-8").splitlines()[-1])
        return Progress(images=line["images"], seconds=line["seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        return Progress()


def _wanted(row: Row, terms: Terms) -> Config:
    images = row.config.training.images if terms.images is None else terms.images
    return replace(row.config, training=replace(row.config.training, minutes=terms.minutes, images=images))


def is_finished(row: Row, terms: Terms) -> bool:
    """Return whether the budget of a row is spent; refuse a run of another configuration or budget."""
    stored = stored_run(row.run)
    if stored is None:
        return False
    wanted, progress = _wanted(row, terms), stored.progress
    check_same_run(row.run, stored.config, wanted)
    if progress.share(wanted.training) < 1.0:
        return False
    budget = stored.config.training
    if (budget.minutes, budget.images) != (wanted.training.minutes, wanted.training.images):
        raise ValueError(
            f"{row.run}: has seen {progress}, not the {terms.budget} of this table; give the budget it was "
            "trained with, a larger one, or another --out"
        )
    return True


def measure(
    row: Row, real: RealSelections, judges: Sequence[FeatureExtractor], terms: Terms, report: Report
) -> tuple[Result, Float[Tensor, "n d"]]:
    """Return the numbers of a trained row, and the first features of its images in the order of the seeds."""
    is_denoiser = not isinstance(row.config.model, VNCAConfig)
    sampler, steps = (terms.sampler, terms.steps) if is_denoiser else (None, None)
    samples = Samples(str(row.run), sampler=sampler, steps=steps, device=terms.device)
    facts = {"model": row.config.name, "seed": str(samples.seed), **samples.facts}
    name = f"samples-{facts['weights'][:16]}-{facts.get('sampler', 'vnca')}-{facts.get('steps', 0)}"
    generated = whole(list(samples.pictures(terms.n, row.folder / name, report)))
    sheet = contact_sheet(generated.images[:36].movedim(1, -1).numpy())
    write_png(row.folder / "samples.png", sheet, {f"{OWN}{name}": text for name, text in facts.items()})
    evaluation = evaluate(
        generated,
        real.held_out,
        judges,
        training=real.training,
        cache=terms.cache,
        protocol=Protocol(split="held out"),
        made=facts,
        report=report,
    )
    error = _held_out_error(row, real, torch.device(terms.device)) if is_denoiser else None
    result = Result(row.config.name, row.config.training.seed, _cost(row, terms), evaluation, error)
    return result, extract_cached(judges[0], generated.images, terms.cache)


def _held_out_error(row: Row, real: RealSelections, device: torch.device) -> float:
    images, count = real.held_out.images, min(ERROR_IMAGES, len(real.held_out))
    chosen = torch.arange(count) * len(images) // count
    return velocity_error(prepare(load_denoiser(row.run), device), images[chosen].to(device))


def _cost(row: Row, terms: Terms) -> Cost:
    stored = stored_run(row.run)
    assert stored is not None, "the row is trained"
    memory = row.folder / child.MEMORY
    return Cost(
        *parameters(row.config),
        multiply_adds=multiply_adds(row.config, terms.sampler, terms.steps),
        training_seconds=stored.progress.seconds,
        training_images=stored.progress.images,
        peak_memory_bytes=json.loads(memory.read_text("utf-8"))["peak_bytes"] if memory.is_file() else None,
    )


def multiply_adds(config: Config, sampler: str | None, steps: int | None) -> int:
    """Return the multiply-adds of convolutions and matrix products for one image of the size of the crops."""
    model, side = build_model(config).eval(), config.data.crop
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        if isinstance(model, Autoencoder):
            model.draw(Noise((0,)))
            calls = 1
        else:
            region, x_t = Canvas(side, side).whole, torch.zeros(1, model.image_channels, side, side)
            _, levels = walk_of(model, sampler, steps)
            estimate_alone(model, Query(x_t, levels[0], region))
            calls = len(levels)
    return int(counter.get_total_flops()) // 2 * calls


def parameters(config: Config) -> tuple[int, int]:
    """Return how many numbers a model learns, and how many of them make images."""
    model = build_model(config)
    learnt = sum(p.numel() for p in model.parameters())
    if isinstance(model, Autoencoder):
        return learnt, sum(p.numel() for p in model.network.rule.parameters())
    return learnt, learnt
