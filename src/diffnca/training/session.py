"""One run of training from images to a folder.

`training` and `distillation` check their input and raise `ValueError` if a run is impossible. They open the
images and return a `Session` with its plan. Only `Session.run` writes files.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import Config, TrainingConfig
from diffnca.data.crops import crops
from diffnca.data.images import ImageSet, open_images
from diffnca.data.sources import Remark
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser
from diffnca.errors import Interrupted, one_line
from diffnca.files import lock
from diffnca.formats.png import contact_sheet, write_png
from diffnca.models.build import Generator, build_network
from diffnca.models.file import find_model, load_denoiser
from diffnca.progress import Report, unseen
from diffnca.sampling.generate import generate
from diffnca.sampling.guidance import Guided, guided
from diffnca.training.loop import Batches, Care, Trainer, own_rank
from diffnca.training.objectives import Distillation, ObjectiveOf, OwnLoss, student_config
from diffnca.training.options import RunOptions, StudentOptions
from diffnca.training.signals import Stopped
from diffnca.training.state import (
    Progress,
    check_folder,
    check_same_network,
    check_same_run,
    remove_leftovers,
    stored_run,
)

SHEET_IMAGES = 9
SHEET_STEPS = 20
STUDENT_IMAGES = 50_000
"""Budget of a student, unless the user gives another budget."""

COPIES_IN_TRAINING = 5
"""Numbers in memory for each parameter: weight, gradient, average, and two of the optimiser."""


@dataclass(frozen=True)
class Plan:
    """The plan of a run, with the numbers of parameters and of training images.

    `left_out` names unused files, and why; `notes` are remarks on used images. Unless the user has given a
    budget (`has_budget`), the budget of the recipe holds.
    """

    config: Config
    parameters: int
    images: int
    left_out: tuple[Remark, ...]
    notes: tuple[Remark, ...]
    out: Path
    has_budget: bool


@dataclass(frozen=True)
class Result:
    """The folder and the progress of a run, and whether the run was finished before."""

    out: Path
    progress: Progress
    was_finished: bool


@dataclass(frozen=True)
class Session:
    """A run that is ready to begin or to go on.

    A new run begins with the weights of the model `start`. Runs with other images, first weights or teachers
    have other fingerprints. The `card` holds the facts that are known before training.
    """

    plan: Plan
    options: RunOptions
    images: ImageSet
    card: dict[str, Any]
    start: str | None
    fingerprint: str
    objective: ObjectiveOf

    def run(self, report: Report = unseen) -> Result:
        """Train until the budget is spent.

        Raises:
            Interrupted: the user asked for a stop; the run is saved.
            ValueError: the folder holds another run or is in use by another command, or training diverged.
        """
        options, out, config = self.options, self.plan.out, self.plan.config
        out.mkdir(exist_ok=True)
        with alone_in(out):
            remove_leftovers(out)
            start = None if self.start is None or stored_run(out) else find_model(self.start)
            care = Care(
                checkpoint_seconds=options.checkpoint_seconds,
                sample_seconds=60.0 * options.sample_minutes,
                report=report,
                sample=sample_sheet,
                trackers=options.trackers,
                card=self.card,
            )
            batches = batches_of(self.images, config)
            trainer = Trainer(config, out, batches, care, start, self.fingerprint, self.objective)
            if trainer.is_finished:
                trainer.save()  # a killed run may have no model file, or its sampling has changed
                return Result(out, trainer.progress, was_finished=True)
            return Result(out, trainer.run(), was_finished=False)


def training(
    options: RunOptions, config: Config, start: str | None = None, report: Report = unseen
) -> Session:
    """Return a run that trains `config`; a new run fine-tunes the model `start`, if given."""
    options.check()
    config = replace(config, training=budgeted(config.training, options))
    if start is None:
        return _session(options, config, report)
    if config.sampling.visited is not None:
        raise ValueError(
            f"--from {start}: must know all levels, but was distilled; train its teacher, or give "
            "--sampling.visited None --sampling.sampler dpmpp2m --sampling.steps 20"
        )
    return _session(options, config, report, start, {"fine_tuned_from": start}, f", from {start}")


def distillation(
    options: RunOptions, teacher: str, student: StudentOptions, report: Report = unseen
) -> Session:
    """Return a run that trains a student of the model `teacher`."""
    options.check()
    path = find_model(teacher)
    alone = load_denoiser(path)
    led, guidance = guided_teacher(student, alone)
    if student.steps == 0 and not guidance:
        raise ValueError("--steps 0: must have --guidance or a --guide, or there is nothing to learn")
    config = student_config(alone.config, student.steps or None)
    training = replace(
        config.training,
        images=STUDENT_IMAGES,
        minutes=None,
        batch=config.training.batch if student.batch is None else student.batch,
        learning_rate=student.learning_rate,
    )
    name = f"{config.name}_{student.steps}_steps" if student.steps else config.name
    config = replace(config, name=name, training=budgeted(training, options))
    walk = f", jumps {config.sampling.visited}" if student.steps else ", guidance"
    told = f"{walk}, teacher {_hash_of(path)}" + (f", guidance {guidance}" if guidance else "")
    card = {"distilled_from": teacher} | guidance
    return _session(options, config, report, teacher, card, told, partial(Distillation, led))


def guided_teacher(student: StudentOptions, alone: Denoiser) -> tuple[ImageDenoiser, dict[str, Any]]:
    """Return the teacher, with guidance if `student` asks for it, and facts on guidance for the card."""
    guide = None if student.guide is None else load_denoiser(student.guide)
    teacher = guided(alone, student.guidance, guide)
    strength = teacher.guidance if isinstance(teacher, Guided) else teacher.config.sampling.guidance
    if strength == 1.0:
        return teacher, {}
    told: dict[str, Any] = {"teacher_guidance": strength}
    if student.guide is not None:
        told |= {"guide": student.guide, "guide_weights": _hash_of(find_model(student.guide))}
    return teacher, told


def _session(
    options: RunOptions,
    config: Config,
    report: Report,
    start: str | None = None,
    card: Mapping[str, Any] = MappingProxyType({}),
    told: str = "",
    objective: ObjectiveOf = OwnLoss,
) -> Session:
    """Check the folder and the options, and open the images.

    `told` is the part of the fingerprint for first weights, teacher and guidance.
    """
    out = options.out or Path(f"{config.name}-{options.data[0].resolve().stem}")
    check_folder(out)
    stored = stored_run(out)
    if stored is not None:
        check_same_run(out, stored.config, config)
    elif start is not None:
        check_same_network(find_model(start), config)
    check_trackers(options.trackers)
    parameters = num_parameters(config)
    everything = opened(options, config, report)
    images, held_out = everything.split(config.data.validation, config.data.split_seed)
    has_budget = options.minutes is not None or options.images is not None
    plan = Plan(config, parameters, len(images), everything.skipped, everything.notes, out, has_budget)
    known = card_of(options, config, images, held_out) | dict(card)
    return Session(plan, options, images, known, start, images.fingerprint + told, objective)


def budgeted(training: TrainingConfig, options: RunOptions) -> TrainingConfig:
    """Return `training` with the budget of the user, if given."""
    if options.minutes is not None:
        return replace(training, minutes=options.minutes)
    if options.images is not None:
        return replace(training, images=options.images, minutes=None)
    return training


def num_parameters(config: Config) -> int:
    """Count the parameters of a model without memory for them.

    Raise `ValueError` if training needs more memory than this machine has.
    """
    remedy = "give fewer --model.channels or --model.cell.hidden"
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build_network(config.model).parameters())
    except RuntimeError as error:
        raise ValueError(f"model {config.name}: cannot be built ({one_line(error)}); {remedy}") from None
    needed = COPIES_IN_TRAINING * 4 * count / 2**30
    available = physical_memory() / 2**30
    if needed > available:
        raise ValueError(
            f"model {config.name}: its {count:,} parameters take {needed:,.0f} GiB in training, and this "
            f"machine has {available:,.0f}; {remedy}"
        )
    return count


def physical_memory() -> float:
    """Return the memory of this machine in bytes; infinity where it is unknown."""
    if not hasattr(os, "sysconf"):
        return math.inf
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Lock a folder for one command with all its processes; raise `ValueError` if another has locked it."""
    with own_rank():
        is_main = PartialState().is_main_process
    if not is_main:
        yield
        return
    with lock(out):
        yield


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise `ValueError` for trackers that accelerate would ignore: unknown or not installed."""
    available = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"--trackers {name}: must be among {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
        if name not in available:
            package = name.replace("comet_ml", "comet-ml")
            raise ValueError(f"--trackers {name}: is not installed here; pip install {package}")


def opened(options: RunOptions, config: Config, report: Report) -> ImageSet:
    """Open the images."""
    data = config.data
    return open_images(
        options.data,
        reduce=data.reduce,
        cache_bytes=data.cache_bytes,
        max_background=data.max_background,
        strict=options.strict,
        channels=config.model.image_channels,
        microns_per_px=data.microns_per_px,
        min_size=data.crop,
        report=report,
    )


def batches_of(images: ImageSet, config: Config) -> Batches:
    """Return the function that makes the clean images of a training step."""
    data, training = config.data, config.training

    return lambda step: crops(
        images,
        size=data.crop,
        batch=training.batch,
        seed=training.seed,
        step=step,
        flips=data.flips,
        quarter_turns=data.quarter_turns,
    )


def card_of(options: RunOptions, config: Config, images: ImageSet, held_out: ImageSet) -> dict[str, Any]:
    """Return the facts of a card that are known before training."""
    microns = config.data.microns_per_px
    return {
        "data": ", ".join(str(path) for path in options.data),
        "images": len(images),
        "held_out": list(held_out.names),
        "licence": "not stated",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    } | ({} if microns is None else {"microns_per_px": microns})


def sample_sheet(model: Generator, path: Path, stopped: Stopped) -> None:
    """Write a sheet of samples with equal seeds each time; a model of many steps takes fewer steps here.

    Raise `Interrupted` after a request to stop.
    """
    side, own = model.config.data.crop, model.config.sampling
    is_own = own.visited is not None or own.steps <= SHEET_STEPS  # a student knows only its own levels
    sampler, steps = (own.sampler, own.steps) if is_own else ("dpmpp2m", SHEET_STEPS)
    has_steps = isinstance(model, Denoiser)

    def watch(done: int, total: int) -> None:
        if stopped():
            raise Interrupted

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


def _hash_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
