"""One row of a table: trained, sampled, measured; all that is finished is found again."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas
from diffnca.cli.main import INTERRUPTED
from diffnca.config.json import to_json
from diffnca.config.model import Config
from diffnca.config.networks import VNCAConfig
from diffnca.diffusion.denoiser import Query, estimate_alone
from diffnca.evaluation.metrics.cached import extract_cached
from diffnca.evaluation.metrics.features import FeatureExtractor
from diffnca.evaluation.metrics.velocity import velocity_error
from diffnca.evaluation.samples import Samples
from diffnca.evaluation.scores import Evaluation, Protocol, evaluate
from diffnca.evaluation.selections import Selection, whole
from diffnca.formats.png import contact_sheet, write_png
from diffnca.models.build import build_model
from diffnca.models.file import load
from diffnca.sampling.denoisers import walk_of
from diffnca.sampling.guidance import prepare
from diffnca.training.state import check_same_run, stored_run

if TYPE_CHECKING:
    from diffnca.cli.measurements import Reproduce

SHOWN = 36
"""Images in the picture of a row."""

ERROR_IMAGES = 64
"""Held-out images, at most, on which the error of a row is taken, evenly spread over all."""


@dataclass(frozen=True)
class Cost:
    """What a row takes.

    Attributes:
        parameters: numbers that are learnt.
        parameters_to_generate: those of them without which no image is made; not the encoder of VNCA.
        multiply_adds: per generated image, in all diffusion steps.
        training_seconds: wall-clock, once the code is compiled.
        training_images: seen in training.
        peak_memory_bytes: most memory held in training, by the process or on the GPU; `None` if not known.
    """

    parameters: int
    parameters_to_generate: int
    multiply_adds: int
    training_seconds: float
    training_images: int
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Result:
    """What came out of one training of a row.

    Attributes:
        name: of the row.
        seed: of its training.
        cost: what it took.
        evaluation: its numbers.
        held_out_error: of the velocity, on held-out images; `None` for VNCA, which estimates none.
    """

    name: str
    seed: int
    cost: Cost
    evaluation: Evaluation
    held_out_error: float | None = None


@dataclass(frozen=True)
class RealSelections:
    """The real images that all rows have in common.

    Attributes:
        training: seen by every row.
        held_out: seen by none.
        fingerprint: of all of them.
    """

    training: Selection
    held_out: Selection
    fingerprint: str


def train_row(config: Config, folder: Path, command: Reproduce) -> int:
    """Train a row until the budget is spent, from where it stands; return the exit code of its process.

    After Ctrl-C that is always `INTERRUPTED`, whatever the process was at.
    """
    if is_finished(config, folder, command):
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "config": to_json(config),
        "data": [str(path.resolve()) for path in command.data],
        "out": str((folder / "run").resolve()),
        "minutes": command.minutes,
        "images": command.images,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    python = [sys.executable, "-m"]
    if torch.cuda.device_count() > 1:
        python += ["accelerate.commands.launch", "--num_processes", str(torch.cuda.device_count()), "-m"]
    arguments = [*python, "diffnca.comparison.child", str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()  # where it was not told itself; it saves what it has
            process.wait()
            return INTERRUPTED


def is_finished(config: Config, folder: Path, command: Reproduce) -> bool:
    """Return whether the budget of a row is spent.

    Raises:
        ValueError: the run in its folder is of another configuration, or has gone further than the budget.
    """
    run = stored_run(folder / "run")
    if run is None:
        return False
    stored, progress = run.config, run.progress
    images = config.training.images if command.images is None else command.images
    wanted = replace(config, training=replace(config.training, minutes=command.minutes, images=images))
    check_same_run(folder / "run", stored, wanted)
    if progress.share(wanted.training) < 1.0:
        return False
    if (stored.training.minutes, stored.training.images) != (command.minutes, images):
        raise ValueError(
            f"{folder / 'run'}: has seen {progress.images:,} images in {progress.seconds / 60:.1f} minutes, "
            f"not the {budget_of(command)} of this table; give the budget it was trained with, a larger one, "
            "or another --out"
        )
    return True


def budget_of(command: Reproduce) -> str:
    """Return the budget of each row in words."""
    return f"{command.minutes:g} minutes" if command.minutes is not None else f"{command.images:,} images"


def measure_row(
    config: Config, folder: Path, real: RealSelections, extractor: FeatureExtractor, command: Reproduce
) -> tuple[Result, Float[Tensor, "n d"]]:
    """Return the numbers of a trained row, and the features of its images, seed by seed.

    Images and features are kept, and used again.
    """
    cache = cache_of(command)
    samples = samples_of(config, folder, command)
    model = load(samples.model)
    facts = {"model": config.name, "seed": str(samples.seed), **samples.facts(model)}
    kept = folder / f"samples-{facts['weights'][:16]}-{facts.get('sampler', 'vnca')}-{facts.get('steps', 0)}"
    generated = whole(list(samples.pictures(command.n, kept)))
    sheet = contact_sheet(generated.images[:SHOWN].movedim(1, -1).numpy())
    write_png(folder / "samples.png", sheet, {f"diffnca:{name}": value for name, value in facts.items()})
    evaluation = evaluate(
        generated,
        real.held_out,
        extractor,
        training=real.training,
        cache=cache,
        protocol=Protocol(split="held out"),
        made=facts,
    )
    cost = cost_of(model.config, folder, command)
    features = extract_cached(extractor, generated.images, cache)
    error = None
    if not isinstance(model, Autoencoder):
        device = torch.device(command.device)
        images, count = real.held_out.images, min(ERROR_IMAGES, len(real.held_out))
        chosen = torch.arange(count) * len(images) // count
        error = velocity_error(prepare(model, device), images[chosen].to(device))
    return Result(config.name, config.training.seed, cost, evaluation, error), features


def samples_of(config: Config, folder: Path, command: Reproduce) -> Samples:
    """Return what is sampled of a row."""
    is_denoiser = not isinstance(config.model, VNCAConfig)
    return Samples(
        str(folder / "run"),
        sampler=command.sampler if is_denoiser else None,
        steps=command.steps if is_denoiser else None,
        device=command.device,
    )


def cache_of(command: Reproduce) -> Path:
    """Return the folder in which features of images are kept."""
    return command.out / "features"


def cost_of(config: Config, folder: Path, command: Reproduce) -> Cost:
    """Return what a row takes to train and to sample."""
    run = folder / "run"
    stored = stored_run(run)
    assert stored is not None
    progress = stored.progress
    memory = folder / "memory.json"
    peak = json.loads(memory.read_text(encoding="utf-8"))["peak_bytes"] if memory.is_file() else None
    return Cost(
        *parameters(config),
        multiply_adds=multiply_adds(config, command.sampler, command.steps),
        training_seconds=progress.seconds,
        training_images=progress.images,
        peak_memory_bytes=peak,
    )


def multiply_adds(config: Config, sampler: str | None, steps: int | None) -> int:
    """Return how many multiply-adds it takes to make one image of the size of the training crops.

    Convolutions and matrix products are counted, as the network is trained; Fourier transforms and all that
    is done number by number are not.
    """
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
    """Return how many numbers a model learns, and how many of them it takes to make images."""
    model = build_model(config)
    learnt = sum(p.numel() for p in model.parameters())
    if isinstance(model, Autoencoder):
        return learnt, sum(p.numel() for p in model.network.rule.parameters())
    return learnt, learnt
