"""One run of training from images to a folder; `Session.run` alone writes files."""

import platform
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from torch import Tensor

from diffnca.config.model import Config, TrainingConfig
from diffnca.data.crops import crops
from diffnca.data.held_out import split
from diffnca.data.images import ImageSet
from diffnca.data.styles import kept
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser
from diffnca.engine.machine import physical_memory
from diffnca.errors import one_line
from diffnca.files import lock
from diffnca.models.build import build_network
from diffnca.models.file import MODEL_FILE, bundled_models, find_model, load_denoiser, read_card
from diffnca.progress import Report, unseen
from diffnca.sampling.guidance import Guided, guided
from diffnca.training import state
from diffnca.training.adversary import AgainstFeatures
from diffnca.training.discriminator import LOOKS
from diffnca.training.features import FEATURES, check_colours, efficientnet_lite2, trained_with
from diffnca.training.loop import Care, Trainer, has_only_processors, own_rank
from diffnca.training.objectives import Distillation, ObjectiveOf, OwnLoss, student_config
from diffnca.training.options import AUTO, RANDOM, RunOptions, StudentOptions
from diffnca.training.perceptual import with_perceptual
from diffnca.training.sheets import SHEET_IMAGES, sample_sheet
from diffnca.training.signals import Stopped, never
from diffnca.training.start import (
    chosen,
    conditioned,
    continued,
    errors,
    from_random,
    images_of,
    suited,
    with_styles,
)

STUDENT_IMAGES = 50_000
RATE = 1e-3
"""Peak learning rate of a student without a discriminator."""

COPIES_IN_TRAINING = 5
"""Numbers in memory for each parameter: weight, gradient, average, two of the optimiser; not `ema_widths`."""


@dataclass(frozen=True)
class Result:
    """The folder and the progress of a run, and whether the run was finished before."""

    out: Path
    progress: state.Progress
    was_finished: bool


@dataclass(frozen=True)
class Session:
    """A run that is ready to begin or to go on in the folder `out`.

    Training sees the `images`, and not the `held_out` ones. A new run begins with the weights of the model
    `start`. Other images, first weights or teachers give another `fingerprint`. The `card` holds the facts
    that are known before training.
    """

    config: Config
    parameters: int
    options: RunOptions
    out: Path
    images: ImageSet
    held_out: ImageSet
    card: dict[str, Any]
    start: str | None
    fingerprint: str
    objective: ObjectiveOf
    errors: dict[str, float] = field(default_factory=dict)
    """Errors on the images of the bundled models among which `start` was chosen, the smallest first."""

    @property
    def first_weights(self) -> Path | None:
        """The file with which a new run begins; `None` for random weights, and for a run that goes on."""
        if self.start is None or state.stored_run(self.out) is not None:
            return None
        return bundled_models()[self.start] if self.errors else find_model(self.start)

    def run(self, report: Report = unseen, cancelled: Stopped = never) -> Result:
        """Train until the budget is spent; after each step, `cancelled` is asked whether to stop.

        Raises:
            Interrupted: the user asked for a stop; the run is saved.
            ValueError: the folder holds another run or is in use, or training diverged.
        """
        options, out = self.options, self.out
        out.mkdir(exist_ok=True)
        with own_rank():
            is_main = PartialState(cpu=has_only_processors()).is_main_process
        with lock(out) if is_main else nullcontext():  # one command with all its processes
            state.remove_leftovers(out)
            care = Care(
                checkpoint_seconds=options.checkpoint_seconds,
                sample_seconds=options.sample_seconds,
                report=report,
                held_out=partial(self._batch, images=self.held_out) if len(self.held_out) else None,
                sample=partial(sample_sheet, self._crops(self.images, SHEET_IMAGES, step=0)),
                trackers=options.trackers,
                cancelled=cancelled,
                card=self.card,
            )
            first, fingerprint = self.first_weights, self.fingerprint
            trainer = Trainer(self.config, out, self._batch, care, first, fingerprint, self.objective)
            if trainer.is_finished:
                trainer.finish()  # a killed run may have no model file, or its sampling has changed
                return Result(out, trainer.progress, was_finished=True)
            return Result(out, trainer.run(), was_finished=False)

    def _batch(self, step: int, images: ImageSet | None = None) -> Tensor:
        layout = self.config.layout
        dropped = 0.0 if layout.made else layout.dropped
        images = self.images if images is None else images
        return self._crops(images, self.config.training.batch, step, dropped, layout.dropped)

    def _crops(
        self, images: ImageSet, batch: int, step: int, dropped: float = 0.0, unlabelled: float = 0.0
    ) -> Tensor:
        data = self.config.data
        return crops(
            images,
            size=data.crop,
            batch=batch,
            seed=self.config.training.seed,
            step=step,
            flips=data.flips,
            quarter_turns=data.quarter_turns,
            dropped=dropped,
            unlabelled=unlabelled,
        )


def training(
    options: RunOptions, config: Config, start: str | None = None, report: Report = unseen
) -> Session:
    """Return a run that trains `config`; a new run fine-tunes the model `start`, if given.

    For the network of the recipe `diff_nca`, `AUTO` takes the bundled model with the smallest error on the
    images, and `RANDOM` lets the budget decide what the network predicts.
    """
    options.check()
    config = replace(config, training=_budgeted(config.training, options), data=options.scaled(config.data))
    if start is not None and config.sampling.visited is not None:
        raise ValueError(
            f"--from {start}: must know all levels, but was distilled; train its teacher, or give "
            "--sampling.visited None --sampling.sampler dpmpp2m --sampling.steps 20"
        )
    config = conditioned(config, options)
    out, measured, is_open = _folder(options, config), dict[str, float](), start in (AUTO, RANDOM)
    stored = state.stored_run(out)
    config = with_styles(config, () if stored is None else stored.config.layout.styles)
    if is_open and stored is not None:
        start, config = stored.start, continued(config, stored)
    _check(options, config, out, None if start in (AUTO, RANDOM) else start)
    if config.loss.perceptual > 0.0:
        check_colours(config, "--loss.perceptual")
    if stored is None:
        config = suited(config, options, decides_colours=is_open)
    if start == RANDOM:
        start, config = None, from_random(config)
    images = images_of(options, config, report)
    if start == AUTO:
        seen, _ = split(images, config.data.validation, config.data.split_seed, config.data.crop)
        measured = errors(seen, config, report)
        start, config = chosen(config, measured)
    own, told = ({}, "") if start is None else ({"fine_tuned_from": start}, f"{state.FROM}{start}")
    looks = config.loss.perceptual > 0.0
    card = own | trained_with(_card_before(out, start), by=(FEATURES,) if looks else ())
    objective = partial(with_perceptual, efficientnet_lite2()) if looks else OwnLoss
    session = _session(options, config, out, images, start, card, told, objective)
    return replace(session, errors=measured)


def _card_before(out: Path, start: str | None) -> dict[str, Any]:
    """Return the card of a run that goes on, or of the model that a new run begins with."""
    if (out / MODEL_FILE).is_file():
        return read_card(out / MODEL_FILE)
    return {} if start is None else read_card(find_model(start))


def distillation(
    options: RunOptions,
    teacher: str,
    student: StudentOptions,
    start: str | None = None,
    report: Report = unseen,
) -> Session:
    """Return a run that trains a student of the model `teacher`; it begins with the model `start`, if given.

    Without one, the student begins with the weights of its teacher.
    """
    options.check()
    path = find_model(teacher)
    alone = load_denoiser(path)
    led, guidance = _guided_teacher(student, alone)
    if student.steps == 0 and not guidance and student.against is None:
        raise ValueError(
            "--steps 0: must have --guidance, a --guide or --against, or there is nothing to learn"
        )
    for kind, known in (("layouts", alone.config.layout.classes), ("labels", alone.config.layout.labels)):
        if getattr(options, kind) and not known:
            raise ValueError(f"--{kind}: must be left out, as the teacher {teacher} was trained without them")
        if known and not getattr(options, kind):
            raise ValueError(f"--{kind}: must be given, as the teacher {teacher} was trained with them")
    config = conditioned(student_config(alone.config, student.steps or None), options)
    objective, against = _objective_of(student, config, led)
    look = None if student.against is None else LOOKS[student.against]
    own_rate = RATE if look is None else look.learning_rate
    training = replace(
        config.training,
        images=STUDENT_IMAGES,
        minutes=None,
        batch=config.training.batch if student.batch is None else student.batch,
        late_batch=student.late_batch,
        learning_rate=own_rate if student.learning_rate is None else student.learning_rate,
    )
    name = f"{config.name}_{student.steps}_steps" if student.steps else config.name
    data = options.scaled(config.data)
    data = data if student.crop is None else replace(data, crop=student.crop)
    config = replace(config, name=name, training=_budgeted(training, options), data=data)
    walk = f", jumps {config.sampling.visited}" if student.steps else ", guidance"
    told = f"{walk}, teacher {_hash_of(path)}" + (f", guidance {guidance}" if guidance else "") + against
    own: dict[str, Any] = {"distilled_from": teacher} | guidance
    if start is not None:
        own, told = own | {"fine_tuned_from": start}, f"{told}{state.FROM}{start}"
    cards = [read_card(find_model(each)) for each in (teacher, student.guide, start) if each is not None]
    card, start = own | trained_with(*cards, by=() if look is None else look.networks), start or teacher
    out = _folder(options, config)
    _check(options, config, out, start, f"take a student of a model like {teacher}")
    images = images_of(options, config, report)
    return _session(options, config, out, images, start, card, told, objective)


def _objective_of(student: StudentOptions, config: Config, led: ImageDenoiser) -> tuple[ObjectiveOf, str]:
    """Return the objective of a student, and what the fingerprint says of its discriminator."""
    if student.against is None:
        return partial(Distillation, led), ""
    if config.sampling.visited is None:
        raise ValueError(
            f"--against {student.against}: must be for a student of few steps; give --steps, such as 4"
        )
    check_colours(config, f"--against {student.against}")
    look = LOOKS[student.against]
    weight = look.weight if student.against_weight is None else student.against_weight
    told = f", against {student.against} in {' and '.join(look.networks)} by {weight}"
    return partial(AgainstFeatures, led, look.loaded(), look, weight), told


def _guided_teacher(student: StudentOptions, alone: Denoiser) -> tuple[ImageDenoiser, dict[str, Any]]:
    guide = None if student.guide is None else load_denoiser(student.guide)
    teacher = guided(alone, student.guidance, guide)
    strength = teacher.guidance if isinstance(teacher, Guided) else teacher.config.sampling.guidance
    if strength == 1.0:
        return teacher, {}
    told: dict[str, Any] = {"teacher_guidance": strength}
    if student.guide is not None:
        told |= {"guide": student.guide, "guide_weights": _hash_of(find_model(student.guide))}
    return teacher, told


def _folder(options: RunOptions, config: Config) -> Path:
    """Return the folder of the run; refuse a folder with files of no run."""
    out = options.out or Path(f"{config.name}-{options.data[0].resolve().stem}")
    state.check_folder(out)
    return out


def _check(options: RunOptions, config: Config, out: Path, start: str | None, advice: str = "") -> None:
    """Refuse a run that cannot begin, or cannot go on as `config` and `start` say.

    `advice` says what to do about a start of another network.
    """
    stored = state.stored_run(out)
    if stored is not None:
        state.check_same_run(out, stored.config, config)
    elif start is not None:
        state.check_same_network(find_model(start), config, advice)
    _check_trackers(options.trackers)
    num_parameters(config)


def _session(
    options: RunOptions,
    config: Config,
    out: Path,
    found: ImageSet,
    start: str | None,
    card: dict[str, Any],
    told: str,
    objective: ObjectiveOf,
) -> Session:
    """Hold images out and join all facts; `told` is what the fingerprint says besides images."""
    data = config.data
    images, held_out = split(found, data.validation, data.split_seed, data.crop)
    if config.layout.style and not config.layout.styles:
        config = with_styles(config, kept(images.styles))
    _check_labels(config, images)
    known = _card_of(options, config, images, held_out) | card
    fingerprint, parameters = images.fingerprint + told, num_parameters(config)
    return Session(config, parameters, options, out, images, held_out, known, start, fingerprint, objective)


def _check_labels(config: Config, images: ImageSet) -> None:
    """Refuse labels of which training would see no image."""
    for name, count in zip(config.layout.labels, images.labels.sum(axis=0), strict=True):
        if count == 0:
            raise ValueError(
                f"--labels: leaves no image of {name} to train on; add some, or hold out fewer "
                "(--data.validation 0)"
            )


def _budgeted(training: TrainingConfig, options: RunOptions) -> TrainingConfig:
    if options.minutes is not None:
        return replace(training, minutes=options.minutes)
    if options.images is not None:
        return replace(training, images=options.images, minutes=None)
    return training


def num_parameters(config: Config) -> int:
    """Count the parameters of a model without memory for them; refuse a model too large to train here."""
    remedy = "give fewer --model.channels or --model.cell.hidden"
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build_network(config.model).parameters())
    except RuntimeError as error:
        raise ValueError(f"model {config.name}: cannot be built ({one_line(error)}); {remedy}") from None
    needed = (COPIES_IN_TRAINING + len(config.training.ema_widths)) * 4 * count / 2**30
    available = physical_memory() / 2**30
    if needed > available:
        raise ValueError(
            f"model {config.name}: its {count:,} parameters take {needed:,.0f} GiB in training, and this "
            f"machine has {available:,.0f}; {remedy}"
        )
    return count


def _check_trackers(names: tuple[str, ...]) -> None:
    """Raise `ValueError` for trackers that accelerate would ignore: unknown or not installed."""
    available = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"--trackers {name}: must be among {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}")
        if name not in available:
            package = name.replace("comet_ml", "comet-ml")
            raise ValueError(f"--trackers {name}: is not installed here; pip install {package}")


def _card_of(options: RunOptions, config: Config, images: ImageSet, held_out: ImageSet) -> dict[str, Any]:
    microns = config.data.microns_per_px
    layouts = ", ".join(str(path) for path in options.layouts)
    told = {"microns_per_px": microns, "layouts": layouts or None}
    return {
        "data": ", ".join(str(path) for path in options.data),
        "images": len(images),
        "held_out": list(held_out.names),
        "licence": "not stated",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    } | {name: fact for name, fact in told.items() if fact is not None}


def _hash_of(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
