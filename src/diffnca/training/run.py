"""One run as a user asks for it: images in, a folder out, progress on the way."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.tracking import get_available_trackers
from filelock import FileLock, Timeout
from torch import Tensor

from diffnca.canvas.pixels import to_uint8
from diffnca.config.json import from_json
from diffnca.config.model import Config, TrainingConfig
from diffnca.data.crops import crops
from diffnca.data.images import ImageSet, open_images
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser
from diffnca.formats.png import contact_sheet, write_png
from diffnca.models.build import Generator, build_model
from diffnca.models.file import STATE_FILE, find_model, load_denoiser, read_header
from diffnca.sampling.generate import generate
from diffnca.sampling.guidance import Guided, guided
from diffnca.training.compatibility import check_same_network, check_same_run
from diffnca.training.distillation import Distillation, student_config
from diffnca.training.loop import (
    LOG_FILE,
    TRACKER_FOLDER,
    Objective,
    Progress,
    RunOptions,
    Trainer,
)
from diffnca.training.signals import StopRequestedError

if TYPE_CHECKING:
    from diffnca.cli.models import Distill, Run, Train

LOCK_FILE = ".lock"
SHEET_IMAGES = 9
SHEET_STEPS = 20
STUDENT_IMAGES = 50_000
"""Images that a student sees unless told otherwise."""


def train(command: Train) -> int:
    """Train as the command says; return the exit code."""
    config = replace(command.config, training=budgeted(command.config.training, command))
    if command.start is None:
        return carry_out(command, config, start=None, card={})
    if config.sampling.visited is not None:
        raise ValueError(
            f"--from {command.start}: must know all levels, but was distilled; train its teacher, or give "
            "--sampling.visited None --sampling.sampler dpmpp2m --sampling.steps 20"
        )
    card = {"fine_tuned_from": command.start}
    return carry_out(command, config, start=command.start, card=card, origin=f", from {command.start}")


def distill(command: Distill) -> int:
    """Train a student as the command says; return the exit code."""
    path = find_model(command.model)
    alone = load_denoiser(path)
    teacher, guidance = guided_teacher(command, alone)
    if command.steps == 0 and not guidance:
        raise ValueError("--steps 0: must have --guidance or a --guide, or there is nothing to learn")
    config = student_config(alone.config, command.steps or None)
    training = replace(
        config.training,
        images=STUDENT_IMAGES,
        minutes=None,
        batch=config.training.batch if command.batch is None else command.batch,
        learning_rate=command.learning_rate,
    )
    name = f"{config.name}_{command.steps}_steps" if command.steps else config.name
    config = replace(config, name=name, training=budgeted(training, command))
    told = f", guidance {guidance}" if guidance else ""
    walk = f", jumps {config.sampling.visited}" if command.steps else ", guidance"
    return carry_out(
        command,
        config,
        start=command.model,
        card={"distilled_from": command.model} | guidance,
        objective=partial(Distillation, teacher),
        origin=f"{walk}, teacher {sha256(path.read_bytes()).hexdigest()}{told}",
    )


def guided_teacher(command: Distill, alone: Denoiser) -> tuple[ImageDenoiser, dict[str, Any]]:
    """Return the teacher, guided if that is asked for, and what the card says of its guidance."""
    guide = None if command.guide is None else load_denoiser(command.guide)
    teacher = guided(alone, command.guidance, guide)
    strength = teacher.guidance if isinstance(teacher, Guided) else teacher.config.sampling.guidance
    if strength == 1.0:
        return teacher, {}
    told: dict[str, Any] = {"teacher_guidance": strength}
    if command.guide is not None:
        weights = sha256(find_model(command.guide).read_bytes()).hexdigest()
        told |= {"guide": command.guide, "guide_weights": weights}
    return teacher, told


def carry_out(
    command: Run,
    config: Config,
    start: str | None,
    card: dict[str, Any],
    objective: Objective | None = None,
    origin: str = "",
) -> int:
    """Train `config` in the folder of the run; return the exit code.

    Args:
        command: data, folder and care.
        config: the model and its training.
        start: the model whose weights a new run begins with.
        card: what the card says besides.
        objective: the loss, if it is not that of the denoiser.
        origin: tells runs that began with other weights, or have other teachers, apart.
    """
    out = command.out or Path(f"{config.name}-{command.data[0].resolve().stem}")
    check_folder(out)
    is_new = not (out / STATE_FILE).is_file()
    first = find_model(start) if start is not None and is_new else None
    if first is not None:
        check_same_network(first, config)
    if not is_new:
        check_same_run(out, from_json(read_header(out / STATE_FILE)["config"]), config)
    check_trackers(command.trackers)
    everything = opened(command, config)
    images, held_out = everything.split(config.data.validation, config.data.split_seed)
    for line in plan(config, images, len(everything.skipped), out):
        print(line)
    if command.dry_run:
        return 0
    out.mkdir(exist_ok=True)
    with alone_in(out), reporting() as report:
        options = RunOptions(
            checkpoint_seconds=command.checkpoint_seconds,
            sample_seconds=60.0 * command.sample_minutes,
            report=report,
            sample=sample_sheet,
            trackers=command.trackers,
            card=card_of(command, config, images, held_out) | card,
        )
        batches, fingerprint = batches_of(images, config), images.fingerprint + origin
        trainer = Trainer(config, out, batches, options, first, fingerprint, objective)
        already = trainer.progress.share(config.training) >= 1.0
        if already:
            trainer.save()  # it may have been killed before its model was there, or be sampled otherwise now
        progress = trainer.progress if already else trainer.run()
    return ended(out, config, progress, already)


def budgeted(training: TrainingConfig, command: Run) -> TrainingConfig:
    """Return `training` with the budget of the command line."""
    for name in ("minutes", "images"):
        value = getattr(command, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name} {value}: must be above 0")
    if command.minutes is not None and command.images is not None:
        raise ValueError("--minutes and --images: give one of them")
    if command.minutes is not None:
        return replace(training, minutes=command.minutes)
    if command.images is not None:
        return replace(training, images=command.images, minutes=None)
    return training


def check_folder(out: Path) -> None:
    """Refuse a folder in which no run can live.

    Raises:
        ValueError: its parent is missing, or it holds other files than those of a run, or a model alone.
    """
    if not out.resolve().parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    if out.is_dir() and not (out / STATE_FILE).exists():
        known = {LOG_FILE, LOCK_FILE, "samples", TRACKER_FOLDER}
        other = [path.name for path in out.iterdir() if path.name not in known and path.suffix != ".partial"]
        if other:
            raise ValueError(
                f"--out {out}: holds other files ({other[0]}); give a new folder or that of a run"
            )


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Within the block, no other command trains in this folder; the processes of one do.

    Raises:
        ValueError: one does already.
    """
    if not PartialState().is_main_process:
        yield
        return
    try:
        with FileLock(out / LOCK_FILE, timeout=0):
            yield
    except Timeout:
        raise ValueError(f"--out {out}: another command trains here; wait for it, or stop it") from None


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuse trackers that would be left out without a word.

    Raises:
        ValueError: accelerate does not know one, or its package is not installed.
    """
    available = sorted(str(tracker) for tracker in get_available_trackers())
    for name in names:
        if name not in available:
            here = ", ".join(available) or "none"
            raise ValueError(f"trackers={name}: not installed, {here} is; pip install 'diffnca[trackers]'")


def opened(command: Run, config: Config) -> ImageSet:
    """Open the images, and say which cannot be used."""
    data = config.data
    images = open_images(
        command.data,
        reduce=data.reduce,
        cache_bytes=data.cache_bytes,
        max_background=data.max_background,
        strict=command.strict,
        channels=config.model.image_channels,
        microns_per_px=data.microns_per_px,
        min_size=data.crop,
    )
    for name, reason in images.skipped:
        print(f"diffnca: left out {name}: {reason}", file=sys.stderr)
    return images


def batches_of(images: ImageSet, config: Config) -> Any:
    """Return the function that gives the clean images of each training step."""
    data, training = config.data, config.training

    def batch(step: int) -> Tensor:
        return crops(
            images,
            size=data.crop,
            batch=training.batch,
            seed=training.seed,
            step=step,
            flips=data.flips,
            quarter_turns=data.quarter_turns,
        )

    return batch


def plan(config: Config, images: ImageSet, num_skipped: int, out: Path) -> list[str]:
    """Return what will be done, for the user to read."""
    training = config.training
    parameters = sum(p.numel() for p in build_model(config).parameters())
    budget = (
        f"{training.minutes:g} minutes" if training.minutes is not None else f"{training.images:,} images"
    )
    skipped = f", {num_skipped} left out" if num_skipped else ""
    return [
        f"model    {config.name}, {parameters:,} parameters",
        f"data     {len(images)} images{skipped}; crops of {config.data.crop} px, {training.batch} per step",
        f"budget   {budget}",
        f"folder   {out}",
    ]


def card_of(command: Run, config: Config, images: ImageSet, held_out: ImageSet) -> dict[str, Any]:
    """Return what a card can say before training."""
    microns = config.data.microns_per_px
    return {
        "data": ", ".join(str(path) for path in command.data),
        "images": len(images),
        "held_out": list(held_out.names),
        "licence": "not stated",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    } | ({} if microns is None else {"microns_per_px": microns})


def sample_sheet(model: Generator, path: Path, stopped: Callable[[], bool]) -> None:
    """Write a sheet of samples, always of the same seeds; of a model of many steps, in fewer ones.

    Raises:
        StopRequestedError: a stop was asked for.
    """
    side, own = model.config.data.crop, model.config.sampling
    is_own = own.visited is not None or own.steps <= SHEET_STEPS  # a student knows its own levels alone
    sampler, steps = (own.sampler, own.steps) if is_own else ("dpmpp2m", SHEET_STEPS)
    has_steps = isinstance(model, Denoiser)

    def watch(done: int, total: int) -> None:
        if stopped():
            raise StopRequestedError

    images = generate(
        model,
        height=side,
        width=side,
        batch=SHEET_IMAGES,
        seed=0,
        sampler=sampler if has_steps else None,
        steps=steps if has_steps else None,
        progress=watch,
    )
    write_png(path, contact_sheet(to_uint8(images)), {"diffnca:seeds": f"0 to {SHEET_IMAGES - 1}"})


@contextmanager
def reporting() -> Iterator[Any]:
    """Within the block, a function that shows progress: a bar for people, a line a minute for logs."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
        return
    shown = [-math.inf]

    def report_line(progress: Progress, training: TrainingConfig) -> None:
        if progress.seconds - shown[0] >= 60.0 or progress.share(training) >= 1.0:
            shown[0] = progress.seconds
            print(f"diffnca: {_status(progress, training)}", file=sys.stderr)

    yield report_line


def _status(progress: Progress, training: TrainingConfig) -> str:
    """Return loss, speed and time left as text."""
    share = max(progress.share(training), 1e-9)
    left = progress.seconds * (1.0 - share) / share
    speed = progress.images / max(progress.seconds, 1e-9)
    return f"{share:4.0%}, loss {progress.loss:.4f}, {speed:.1f} images/s, {left / 60.0:.1f} min left"


@contextmanager
def _bar() -> Iterator[Any]:
    """Within the block, a function that moves a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda progress, training: bar.update(
            task, completed=progress.share(training), description=_status(progress, training)
        )


def ended(out: Path, config: Config, progress: Progress, already: bool) -> int:
    """Say how the run stands; return the exit code."""
    images = f"{progress.images:,} images in {progress.seconds / 60.0:.1f} minutes"
    if already:
        print(f"{out} is finished already ({images}); sample it: diffnca sample {out}")
        return 0
    if progress.share(config.training) < 1.0:
        from diffnca.cli.main import INTERRUPTED

        print(f"diffnca: stopped after {images}; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    print(f"finished: {images}; sample it: diffnca sample {out}")
    return 0
