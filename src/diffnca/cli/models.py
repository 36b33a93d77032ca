"""Commands that make models: train, distil, convert a published checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from diffnca.cli import console
from diffnca.config.model import Config
from diffnca.files import check_target
from diffnca.training.options import RunOptions, StudentOptions

if TYPE_CHECKING:
    from diffnca.training.session import Session


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a model on your images; repeat the command to continue a stopped run.

    Attributes:
        recipe: a recipe that `diffnca info` lists; with --from, by default the recipe of that model.
        start: begin with the weights of this model: a bundled model, a model file, a run's folder, or a hub
            id; `auto` takes the bundled model with the smallest error on your images; `none` takes random
            weights. With a --recipe, by default random weights.
        dry_run: print the plan; write no file.
        run_options: images, folder, budget and care.
        config: fields of the recipe.
    """

    verb: ClassVar = "train"

    recipe: str = "diff_nca"
    start: Annotated[str | None, tyro.conf.arg(name="from")] = "auto"
    dry_run: bool = False
    run_options: Annotated[RunOptions, tyro.conf.arg(name="")] = field(default_factory=RunOptions)
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def run(self) -> int:
        """Train; return the exit code."""
        from diffnca.training.session import training

        with console.progress() as report:
            session = training(self.run_options, self.config, self.start, report)
        return carry_out(session, self.dry_run)


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Train a student of a model that samples in few steps; repeat the command to continue a stopped run.

    Attributes:
        model: the teacher: a bundled model, a model file, a run's folder, or a hub id.
        dry_run: print the plan; write no file.
        run_options: images, folder, budget and care.
        student: steps, guidance and training of the student.
    """

    verb: ClassVar = "distill"

    model: tyro.conf.Positional[str]
    dry_run: bool = False
    run_options: Annotated[RunOptions, tyro.conf.arg(name="")] = field(default_factory=RunOptions)
    student: Annotated[StudentOptions, tyro.conf.arg(name="")] = field(default_factory=StudentOptions)

    def run(self) -> int:
        """Train the student; return the exit code."""
        from diffnca.training.session import distillation

        with console.progress() as report:
            session = distillation(self.run_options, self.model, self.student, report)
        return carry_out(session, self.dry_run)


def carry_out(session: Session, dry_run: bool) -> int:
    """Print the plan of a run; unless `dry_run`, run it and print its result; return the exit code."""
    for name, text in session.images.skipped:
        console.note(f"left out {name}: {text}")
    for name, text in session.images.notes:
        console.note(f"{name}: {text}")
    for line in plan_lines(session):
        console.say(line)
    if dry_run:
        return 0
    with console.progress() as report:
        result = session.run(report)
    said = f"{result.out} is finished already ({{}})" if result.was_finished else "finished: {}"
    console.say(f"{said.format(result.progress)}; sample it: diffnca sample {result.out}")
    return 0


def plan_lines(session: Session) -> Iterator[str]:
    """Yield the plan of a run as lines for the user."""
    config, options, skipped = session.config, session.options, session.images.skipped
    data, training = config.data, config.training
    left_out = f", {len(skipped)} left out" if skipped else ""
    reduced = f", made {data.reduce} times smaller" if data.reduce > 1 else ""
    images = f"{training.images:,} images"
    budget = f"{training.minutes:g} minutes" if training.minutes is not None else images
    yield f"model    {config.name}, {session.parameters:,} parameters"
    crops = f"crops of {data.crop} px, {training.batch} per step"
    yield f"data     {len(session.images)} images{left_out}{reduced}; {crops}"
    is_default = options.minutes is None and options.images is None
    yield f"budget   {budget}{', for want of --minutes or --images' if is_default else ''}"
    yield f"weights  {weights_of(session)}"
    yield f"folder   {session.out}"


def weights_of(session: Session) -> str:
    """Say with which weights a run begins, why, and on what terms."""
    if session.start is None:
        return "random"
    from diffnca.models.file import find_model, read_card

    licence = read_card(find_model(session.start)).get("licence", "not stated")
    ranking = ", ".join(f"{name} {error:.3f}" for name, error in session.errors.items())
    reason = f" by its error on the images ({ranking}; --from none takes random ones)" if ranking else ""
    return f"of {session.start}{reason}; their licence: {licence}"


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint of the published code (model0.pth) to a model file; runs no pickled code.

    Attributes:
        source: the checkpoint.
        out: the model file; its name ends in .safetensors.
        image_channels: channels of the training images; the checkpoint does not store their number.
    """

    verb: ClassVar = "convert"

    source: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    image_channels: Literal[1, 3] = 3

    def run(self) -> int:
        """Write the model file; return the exit code."""
        from diffnca.models.file import write_model
        from diffnca.models.published import read_published_checkpoint

        check_target(self.out, (".safetensors",))
        network, config = read_published_checkpoint(self.source, self.image_channels)
        card = {"converted_from": self.source.name, "licence": "that of the converted checkpoint"}
        write_model(self.out, network.state_dict(), config, card)
        console.say(str(self.out))
        return 0
