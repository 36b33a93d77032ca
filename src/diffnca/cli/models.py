"""Commands that make models: train, distil, average, convert a published checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from diffnca.cli import console
from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, DataConfig
from diffnca.config.recipes import diff_nca, unasked
from diffnca.files import check_not_given, check_target
from diffnca.training.options import AUTO, RunOptions, StudentOptions

if TYPE_CHECKING:
    from diffnca.data import ImageSet
    from diffnca.training.preview import Preview
    from diffnca.training.session import Session

FEWEST_SCORED = 1_000
"""Training images of the shortest run whose samples are scored at its end."""

MINUTES_AHEAD = (5, 20, 60)

EXPECTED = {
    0: "the colours, and grain",
    9_000: "the material is plain to see; tissue had KID x 1000 of 45 to 75",
    30_000: "smaller forms are clear; tissue had 47 to 51",
    90_000: "little more; tissue had 42",
}
"""What samples of four new materials showed from so many crops on (docs/tutorial.md, What to expect)."""

MOST_PAIRS = 3
"""Largest number of pairs of equal images that a look names."""


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
    start: Annotated[str | None, tyro.conf.arg(name="from")] = AUTO
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    run_options: Annotated[RunOptions, tyro.conf.arg(name=""), tyro.conf.FlagCreatePairsOff] = field(
        default_factory=RunOptions
    )
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def run(self) -> int:
        """Train; return the exit code."""
        from diffnca.training.session import training

        with console.progress() as report:
            session = training(self.run_options, self.config, self.start, report)
        return carry_out(session, self.dry_run)


@dataclass(frozen=True, kw_only=True)
class Look:
    """Look at your images before you train: what was found, scale, background, doubles, classes, speed.

    Attributes:
        data: folders (searched recursively), zip files, images or whole slides.
        layouts: folders or zip files of label images, as for train.
        labels: what each image shows as a whole, `folders` or a CSV file, as for train.
        classes: name and colour of each class of the layouts, as for train; without it, their numbers.
        scale: pixels (`2px`) or micrometres (`1um`) in a pixel of the model; without it, the detail decides.
        out: also write a PNG with crops as training would see them, and their layouts beside them.
        strict: stop at the first unusable image, instead of leaving it out.
    """

    verb: ClassVar = "look"

    data: tyro.conf.Positional[tuple[Path, ...]]
    layouts: tuple[Path, ...] = ()
    labels: str | None = None
    classes: Annotated[tuple[str, ...], tyro.conf.arg(name="layout.classes")] = ()
    scale: str | None = None
    out: Path | None = None
    strict: bool = False

    def run(self) -> int:
        """Print the facts; return the exit code."""
        from diffnca.formats.png import check_png
        from diffnca.training.preview import preview

        if self.out is not None:
            check_not_given([self.out], (*self.data, *self.layouts))
            check_png(self.out)
        with console.progress() as report:
            told = {name: getattr(self, name) for name in ("data", "layouts", "labels", "scale", "strict")}
            config = replace(unasked(diff_nca()), layout=LayoutConfig(self.classes))
            seen = preview(RunOptions(**told), config, report)
        note_remarks(seen.images)
        for line in preview_lines(seen):
            console.say(line)
        if self.out is not None:
            seen.write_sheet(self.out)
            console.say(f"sheet     {self.out}")
        return 0


def preview_lines(seen: Preview) -> Iterator[str]:
    """Yield what a look found, as lines for the user."""
    images, facts, data = seen.images, seen.facts, seen.config.data
    sides = [f"{width}x{height}" for height, width in sorted(images.sizes.tolist(), key=prod)]
    sizes = sides[0] if sides[0] == sides[-1] else f"{sides[0]} to {sides[-1]}"
    yield f"images    {len(images):,} of {sizes} px, {images.sizes.prod(axis=1).sum() / 1e6:,.1f} megapixels"
    yield f"colours   {'gray: the model is gray too' if facts.is_gray else 'RGB'}"
    yield f"white     {facts.background:.0%} of the pixels, background or highlights"
    pairs = "; ".join(f"{one} and {other}" for one, other in facts.duplicates[:MOST_PAIRS])
    yield f"alike     {len(facts.duplicates)} pairs{f': {pairs}' if pairs else ''}"
    if facts.classes:
        found = zip(seen.config.layout.names, facts.classes, strict=True)
        classes = ", ".join(f"{name} {share:.1%} in {count:,}" for name, (share, count) in found)
        unknown = max(1.0 - sum(share for share, _ in facts.classes), 0.0)
        yield f"classes   {classes} (of the pixels, in images); {unknown:.1%} unknown"
    if seen.config.layout.labels:
        yield f"labels    {labels_of(seen.config, images)} (images)"
    yield f"scale     {scale_of(data)}"
    ranking = ", ".join(f"{name} {error:.3f}" for name, error in seen.errors.items())
    first = next(iter(seen.errors), None)
    yield f"weights   {f'of {first}, by its error on the images ({ranking})' if first else 'random'}"
    speed = seen.crops_per_second
    yield f"speed     at least {speed:.1f} crops of {data.crop} px a second here"
    for minutes in MINUTES_AHEAD:
        yield f"expect    {expected(minutes, speed)}"


def expected(minutes: float, crops_per_second: float) -> str:
    """Say what samples are like after so many minutes of a training."""
    crops = 60.0 * minutes * crops_per_second
    quality = max((least, words) for least, words in EXPECTED.items() if crops >= least)[1]
    return f"{round(crops, -2):,.0f} crops in {minutes:g} minutes: {quality}"


def labels_of(config: Config, images: ImageSet) -> str:
    """Return the labels, each with the number of its images."""
    counts = zip(config.layout.labels, images.labels.sum(axis=0), strict=True)
    return ", ".join(f"{name} {count:,.0f}" for name, count in counts)


def scale_of(data: DataConfig) -> str:
    """Say how large a pixel of the model is."""
    if data.microns_per_px is not None:
        return f"{data.microns_per_px:g} micrometres per pixel"
    if data.reduce == 1:
        return "as the images are"
    return f"made {data.reduce} times smaller (--scale 1px keeps the size)"


@dataclass(frozen=True, kw_only=True)
class Distill:
    """Train a student of a model that samples in few steps; repeat the command to continue a stopped run.

    Attributes:
        model: the teacher: a bundled model, a model file, a run's folder, or a hub id.
        start: the model that a new student begins with, such as the student of a former teacher; without it,
            the teacher.
        dry_run: print the plan; write no file.
        run_options: images, folder, budget and care.
        student: steps, guidance and training of the student.
    """

    verb: ClassVar = "distill"

    model: tyro.conf.Positional[str]
    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    dry_run: bool = False
    run_options: Annotated[RunOptions, tyro.conf.arg(name="")] = field(default_factory=RunOptions)
    student: Annotated[StudentOptions, tyro.conf.arg(name="")] = field(default_factory=StudentOptions)

    def run(self) -> int:
        """Train the student; return the exit code."""
        from diffnca.training.session import distillation

        with console.progress() as report:
            session = distillation(self.run_options, self.model, self.student, self.start, report)
        return carry_out(session, self.dry_run)


def carry_out(session: Session, dry_run: bool) -> int:
    """Print the plan of a run; unless `dry_run`, run it and print its result; return the exit code."""
    note_remarks(session.images)
    for line in plan_lines(session):
        console.say(line)
    if dry_run:
        return 0
    with console.progress() as report:
        result = session.run(report)
    said = f"{result.out} is finished already ({{}})" if result.was_finished else "finished: {}"
    console.say(said.format(result.progress))
    if not result.was_finished and result.progress.images >= FEWEST_SCORED:
        say_closeness(session)
    larger = " --height 512 --width 512" if is_texture(session) else ""
    console.say(f"sample it: diffnca sample {result.out}{larger} --out sample.png")
    return 0


def is_texture(session: Session) -> bool:
    """Return whether the model is local, so that it draws its material at any size."""
    return session.config.model.family == "diff_nca"


def say_closeness(session: Session) -> None:
    """Print how close samples come to the held-out crops, for a model of texture."""
    from diffnca.evaluation.closeness import closeness
    from diffnca.evaluation.metrics.distances import with_error

    if not is_texture(session) or not len(session.held_out):
        return
    try:
        with console.progress() as report:
            found = closeness(session.out, session.images, session.held_out, report)
    except ValueError as error:  # the features are an extra
        console.note(str(error))
        return
    if found is not None:
        own, seen = (with_error(each.kid_x1000, each.error, 0) for each in (found.samples, found.seen))
        console.say(f"KID x 1000 of samples from held-out crops: {own}; of crops that training saw: {seen}")


def held_out_of(held_out: ImageSet) -> str:
    """Say what is held out."""
    if not len(held_out):
        return ""
    from diffnca.data.held_out import Part

    kind = "a strip of each" if isinstance(held_out.sources[0], Part) else str(len(held_out))
    return f", {kind} held out"


def note_remarks(images: ImageSet) -> None:
    """Say which images are left out, and what is special about others; images of one remark share a line."""
    from diffnca.data import summary

    for line in summary(images.skipped):
        console.note(f"left out {line}")
    for line in summary(images.notes):
        console.note(line)


def plan_lines(session: Session) -> Iterator[str]:
    """Yield the plan of a run as lines for the user."""
    config, options, skipped = session.config, session.options, session.images.skipped
    data, training = config.data, config.training
    left_out = f", {len(skipped)} left out" if skipped else ""
    images = f"{training.images:,} images"
    budget = f"{training.minutes:g} minutes" if training.minutes is not None else images
    yield f"model    {config.name}, {session.parameters:,} parameters"
    late = "" if training.late_batch is None else f", {training.late_batch} at the end"
    crops = f"crops of {data.crop} px, {training.batch} per step{late}"
    held_out = held_out_of(session.held_out)
    count = len(session.images)
    yield f"data     {count} image{'s' if count != 1 else ''}{left_out}{held_out}; {crops}"
    layout, free = config.layout, f"{config.layout.dropped:.0%} of the crops are shown without"
    if layout.classes:
        yield f"layouts  {', '.join(layout.names)}; {'made with the images' if layout.made else free}"
    if layout.labels:
        yield f"labels   {labels_of(config, session.images)} (images), seen equally often; {free}"
    if layout.style:
        yield f"style    {', '.join(layout.style_numbers(config.model.image_channels))}; {free}"
    if data.reduce > 1 or data.microns_per_px is not None:
        yield f"scale    {scale_of(data)}"
    is_default = options.minutes is None and options.images is None
    yield f"budget   {budget}{', for want of --minutes or --images' if is_default else ''}"
    yield f"weights  {weights_of(session)}"
    yield f"folder   {session.out}"


def weights_of(session: Session) -> str:
    """Say with which weights a run begins, why, and on what terms."""
    if session.start is None:
        return "random"
    from diffnca.models.file import read_card

    if session.first_weights is None:
        return f"its own; the run began with those of {session.start}"
    licence = read_card(session.first_weights).get("licence", "not stated")
    ranking = ", ".join(f"{name} {error:.3f}" for name, error in session.errors.items())
    reason = f" by its error on the images ({ranking}; --from none takes random ones)" if ranking else ""
    return f"of {session.start}{reason}; their licence: {licence}"


@dataclass(frozen=True, kw_only=True)
class Average:
    """Write the model of a run with the average of its weights over another width.

    The end of a training takes the width with the smallest error on held-out images. This command is for
    runs that go on, and to judge by other means, such as `diffnca evaluate`.

    Attributes:
        folder: the folder of the run.
        width: spread of the averaged weights over the training, as a share of the images seen.
        out: the model file; its name ends in .safetensors.
    """

    verb: ClassVar = "average"

    folder: tyro.conf.Positional[Path]
    width: float
    out: Path

    def run(self) -> int:
        """Write the model file; return the exit code."""
        from diffnca.models.file import MODEL_FILE, STATE_FILE, read_card, read_config, write_model
        from diffnca.training.averages import average_of_run

        check_target(self.out, (".safetensors",))
        check_not_given([self.out], [self.folder / name for name in (MODEL_FILE, STATE_FILE)])
        weights, model = average_of_run(self.folder, self.width), self.folder / MODEL_FILE
        write_model(self.out, weights, read_config(model), read_card(model) | {"average_width": self.width})
        console.say(str(self.out))
        return 0


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
