"""The command line, `diffnca` and a verb: `train`, `sample`, `evaluate` and the others below.

Every error that a user can cause is one line on stderr and exit code 2.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from diffnca.config import Config
from diffnca.recipes import recipe_named

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

RECTANGLES = ("--box", "--region")
"""Flags whose value is TOP,LEFT,HEIGHT,WIDTH."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all training has in common.

    Attributes:
        data: folders (searched recursively), zip files, images or whole slides.
        out: folder of the run; made if its parent exists. Without it: MODEL-DATA in the current folder.
        minutes: budget of training time.
        images: budget of images seen.
        dry_run: say what would be done, write nothing.
        strict: stop at the first image that cannot be used, instead of leaving it out.
        checkpoint_seconds: time between checkpoints.
        sample_minutes: time between sample grids in OUT/samples, and one at the end; 0 makes none.
        trackers: log to these as well (tensorboard, wandb and others known to accelerate).
    """

    data: tuple[Path, ...] = ()
    out: Path | None = None
    minutes: float | None = None
    images: int | None = None
    dry_run: bool = False
    strict: bool = False
    checkpoint_seconds: float = 60.0
    sample_minutes: float = 10.0
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Train(Run):
    """Train a model on your images; the same command takes a stopped run up again.

    Attributes:
        recipe: the recipe: one of those that `diffnca info` lists; with --from, by default the model's own.
        start: fine-tune this model: a bundled one, a file, a run's folder or a hub id.
        config: the recipe's fields.
    """

    recipe: str = "diff_nca"
    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True, kw_only=True)
class Distill(Run):
    """Make a student of a model that samples in a few steps; the same command takes a stopped run up again.

    Attributes:
        model: the teacher: a bundled model, a model file, a run's folder, or a hub id.
        steps: diffusion steps of the student.
        batch: crops per training step; without it, as the teacher was trained.
        learning_rate: peak learning rate.
    """

    model: tyro.conf.Positional[str]
    steps: int = 4
    batch: int | None = None
    learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Making:
    """What all making of images has in common.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name).
        seed: of the first image; image i has seed + i.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps from pure noise on; without it, the model's own choice.
        device: where to compute; auto takes a GPU where there is one.
        engine: auto runs the network as is fast and exact on the device, eager as it was trained, fused by
            kernels for NVIDIA GPUs that have not been run on one yet.
        tile: side of the tiles of a large image in pixels; changes speed and memory, not the image.
        workers: processes that make the tiles of a large image, sharing the cores.
        scheduler: address of a Dask cluster whose workers make the tiles instead (tcp://...).
        windows: side of overlapping windows, for models that must see a whole image: blends their estimates.
        compression: of an .ome.tif file: jpeg of quality 90 (without it), or deflate, which loses nothing.
        dry_run: say how a large image would be made and what it would take, write nothing.
        film: write a film (.gif, .webp, .png or .mp4) of a small image in the making: left the noisy image,
            right the estimate of the clean one as it grows from cell step to cell step.
    """

    model: tyro.conf.Positional[str]
    seed: int = 0
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    steps: int | None = None
    device: str = "auto"
    engine: Literal["auto", "eager", "fused"] = "auto"
    tile: int | None = None
    workers: int = 1
    scheduler: str | None = None
    windows: int | None = None
    compression: Literal["jpeg", "deflate"] | None = None
    dry_run: bool = False
    film: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sample(Making):
    """Make images with a trained model.

    Attributes:
        out: the file: .png, or of any size .ome.zarr (also an address of fsspec) or .ome.tif. With --count
            above 1, a number is added to its name. A stopped large image goes on with the same command.
        height: of the image in pixels; without it, the size of the training crops.
        width: of the image in pixels; without it, the size of the training crops.
        count: how many images.
        batch: how many at once; changes speed and memory, not the images.
        seamless: axes along which the image continues at the opposite edge.
        region: make only this part, TOP,LEFT,HEIGHT,WIDTH in pixels, equal to the crop of the whole.
    """

    out: str = "sample.png"
    height: int | None = None
    width: int | None = None
    count: int = 1
    batch: int = 1
    seamless: Literal["none", "x", "y", "both"] = "none"
    region: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Editing(Making):
    """What all editing of given images has in common.

    Attributes:
        image: the image, 8 bits, gray or colour; or a folder, all images of which are edited. It is kept.
        out: the file: .png, or of any size .ome.zarr or .ome.tif; for a folder, another folder. With --count
            above 1, a number is added to its name. A stopped folder or large image goes on with the same
            command.
        count: how many results of each image.
        seamless: axes along which the result continues at the opposite edge.
    """

    image: Path
    out: str
    count: int = 1
    seamless: Literal["none", "x", "y", "both"] = "none"


@dataclass(frozen=True, kw_only=True)
class Inpaint(Editing):
    """Fill holes of an image; all other pixels stay as they are.

    All that is not opaque is filled, with what --mask or --box says or without them.

    Attributes:
        mask: an image of the same size, white where to fill; for a folder, a folder with masks of the same
            names, or one mask for all.
        box: fill this box, TOP,LEFT,HEIGHT,WIDTH in pixels (or with spaces between them).
        method: repaint noises what is known as the image and walks each part of the way --rounds times; paste
            puts it in as it is, as published.
        jump: diffusion steps of a part of the way.
        rounds: how often repaint walks each part; it takes so many times as long.
    """

    mask: Path | None = None
    box: tuple[int, int, int, int] | None = None
    method: Literal["repaint", "paste"] = "repaint"
    jump: int = 5
    rounds: int = 4


@dataclass(frozen=True, kw_only=True)
class Extend(Editing):
    """Grow an image at its sides; its own pixels stay as they are. With --seamless it becomes a tile.

    Attributes:
        top: pixels to add above.
        bottom: pixels to add below.
        left: pixels to add on the left.
        right: pixels to add on the right.
        method: as for inpaint.
        jump: as for inpaint.
        rounds: as for inpaint.
    """

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    method: Literal["repaint", "paste"] = "repaint"
    jump: int = 5
    rounds: int = 4


@dataclass(frozen=True, kw_only=True)
class Upscale(Editing):
    """Make an image larger, with detail that the model knows.

    Attributes:
        factor: how many times as high and wide, above 1 and at most 8.
        method: consistent keeps the mean of every block as the image says; noise is the published method,
            which keeps nothing.
        strength: where the walk starts: 1 is pure noise, near 0 only fine detail is new. Without it, 0.7 for
            consistent and 0.1 for noise.
    """

    factor: float = 2.0
    method: Literal["consistent", "noise"] = "consistent"
    strength: float | None = None


@dataclass(frozen=True, kw_only=True)
class Vary(Editing):
    """Make images that are like a given one: noised in part and denoised.

    Attributes:
        strength: where the walk starts: near 0 little is changed, 1 is pure noise.
    """

    strength: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Interpolate:
    """Make a film, or frames, of the images between those of two seeds.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name).
        seeds: those of the first and the last image.
        out: the film (.gif, .webp, .png or .mp4), or a folder for frames, whose name has no ending.
        frames: images of the film, the first and the last included.
        height: of the images in pixels; without it, the size of the training crops.
        width: likewise.
        milliseconds: time of a frame.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps; without it, the model's own choice.
        seamless: axes along which the images continue at the opposite edge.
        batch: frames made at once; changes speed and memory, not the images.
        device: where to compute; auto takes a GPU where there is one.
    """

    model: tyro.conf.Positional[str]
    seeds: tuple[int, int]
    out: Path
    frames: int = 24
    height: int | None = None
    width: int | None = None
    milliseconds: int = 80
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    steps: int | None = None
    seamless: Literal["none", "x", "y", "both"] = "none"
    batch: int = 8
    device: str = "auto"


@dataclass(frozen=True)
class Verify:
    """Check a finished OME-Zarr image: shapes, checksums, no file missing.

    Attributes:
        image: its folder, or an address of fsspec.
    """

    image: tyro.conf.Positional[str]


@dataclass(frozen=True)
class View:
    """Look at an image of any size in the browser.

    Attributes:
        image: an OME-Zarr image, an OME-TIFF or a PNG file.
        port: of the local address; 0 takes a free one.
        no_open: print the address, do not open the browser.
    """

    image: tyro.conf.Positional[str]
    port: int = 0
    no_open: bool = False


@dataclass(frozen=True)
class Convert:
    """Turn a checkpoint of the published code (model0.pth) into a model file; no pickled code is run.

    Attributes:
        source: the checkpoint.
        out: the file to write, ending in .safetensors.
        image_channels: channels of the images it was trained on; the checkpoint does not tell.
    """

    source: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    image_channels: Literal[1, 3] = 3


@dataclass(frozen=True)
class Info:
    """Tell about a recipe or a model; without a name, about this installation.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        json: print JSON, for machines.
    """

    name: tyro.conf.Positional[str | None] = None
    json: bool = False


@dataclass(frozen=True)
class Bench:
    """Time a model here: a call and a training step, next to the matrix products they cannot do without.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        height: of the images in pixels.
        width: of the images in pixels.
        batch: images in a call of the denoiser, and crops in a training step; without it, 8 and the recipe's
            own number.
        rounds: how often each is timed; the medians are shown.
        training: time a training step too, on the recipe's own crops.
        compiled: time the compiled network too, as training runs it; compiling takes a minute.
        against: other models, timed in the same turns: unet_4m, unet_17m, or any model of cells.
        device: where to compute; auto takes a GPU where there is one.
        json: print JSON, for machines.
    """

    name: tyro.conf.Positional[str] = "diff_nca"
    height: int = 64
    width: int = 64
    batch: int | None = None
    rounds: int = 5
    training: bool = False
    compiled: bool = False
    against: tuple[str, ...] = ()
    device: str = "auto"
    json: bool = False


@dataclass(frozen=True)
class Evaluate:
    """Measure a model, or a folder of generated images, against real images.

    Attributes:
        model: a bundled model, a model file, a run's folder, a hub id, or a folder of images.
        reference: real images: a folder or a zip file.
        n: generated images (with --crop, crops) to compare.
        held_out: compare with those images of --reference alone that the model's training held out, by its
            card; the others are its training images.
        train: the training images, for the report on memorisation; it takes 100 unseen images or more.
        protocol: clean compares with all of --reference, or as many crops; published compares images stored
            as JPEG with the first --n images of --reference, which are to be those of training.
        features: the network that looks at the images; inception is that of the published numbers.
        weights: local file of the weights of inception; without it, they are downloaded once.
        crop: compare square crops of this side instead of whole images.
        reduce: make real images smaller by this whole factor; without it, as for the model's training.
        max_background: leave out real images with a larger share of near-white pixels; likewise.
        height: of the generated images in pixels; without it, the size of the training crops.
        width: likewise.
        seed: of the first image; image i has seed + i.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps; without it, the model's own choice.
        device: where to compute; auto takes a GPU where there is one.
        seam_px: measure the steps across lines so many pixels apart, where seams could be.
        samples: folder in which the generated images are kept; a stopped evaluation goes on from there.
        pairs: write a picture of the generated images nearest to training images, next to them.
        out: write all numbers to this file, as JSON.
        cache: folder in which the features of images, generated ones too, are kept.
        json: print JSON, for machines.
    """

    model: tyro.conf.Positional[str]
    reference: Path
    n: int = 2048
    held_out: bool = False
    train: Path | None = None
    protocol: Literal["clean", "published"] = "clean"
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0"
    weights: Path | None = None
    crop: int | None = None
    reduce: int | None = None
    max_background: float | None = None
    height: int | None = None
    width: int | None = None
    seed: int = 0
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    steps: int | None = None
    device: str = "auto"
    seam_px: int | None = None
    samples: Path | None = None
    pairs: Path | None = None
    out: Path | None = None
    cache: Path | None = None
    json: bool = False


@dataclass(frozen=True)
class Reproduce:
    """Train all models of a table on your images, on equal terms, and measure them; the same command goes on.

    A larger budget later trains the same models on.

    Attributes:
        table: faces64 and pathology compare networks, ablation takes single choices back.
        data: folders (searched recursively), zip files, images or whole slides.
        out: folder of the table: results.json, table.md, a picture of each row.
        minutes: training time of each row.
        images: training images of each row, instead of --minutes.
        rows: train only these; others that are finished stay in the table.
        reduce: make images smaller by this whole factor; faces64 becomes 32x32 with 2.
        n: generated images of each row to measure.
        sampler: of all denoisers.
        steps: diffusion steps of all denoisers.
        seeds: trainings of each row, with different seeds.
        features: the network that looks at the images.
        weights: local file of the weights of inception.
        device: where to sample; auto takes a GPU where there is one. Training takes all GPUs there are.
    """

    table: tyro.conf.Positional[Literal["faces64", "pathology", "ablation"]]
    out: Path
    data: tuple[Path, ...] = ()
    minutes: float | None = None
    images: int | None = None
    rows: tuple[str, ...] = ()
    reduce: int = 1
    n: int = 2048
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "dpmpp2m"
    steps: int = 20
    seeds: int = 1
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0"
    weights: Path | None = None
    device: str = "auto"


Edit = Inpaint | Extend | Upscale | Vary
Command = (
    Train
    | Distill
    | Sample
    | Edit
    | Interpolate
    | Evaluate
    | Reproduce
    | Verify
    | View
    | Convert
    | Info
    | Bench
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (0: done, 2: an error of the user's, 130: Ctrl-C)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = parse(arguments)
        return run(command)
    except KeyboardInterrupt:
        return _say("stopped", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return _say(str(error) or type(error).__name__, 2)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        return _say(f"{str(error).splitlines()[0]}; make a smaller image or a smaller --batch", 2)


def _say(message: str, code: int) -> int:
    """Print one line on stderr and return `code`."""
    print(f"diffnca: {' '.join(message.split())}", file=sys.stderr)
    return code


def parse(arguments: Sequence[str]) -> Command:
    """Return the command that the arguments mean.

    Raises:
        ValueError: they are wrong; one line says how.
    """
    recipe = _recipe_in(arguments)
    train = Train(recipe=recipe.name, config=recipe)
    verbs: Any = (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Distill, tyro.conf.subcommand("distill")]
        | Annotated[Sample, tyro.conf.subcommand("sample")]
        | Annotated[Inpaint, tyro.conf.subcommand("inpaint")]
        | Annotated[Extend, tyro.conf.subcommand("extend")]
        | Annotated[Upscale, tyro.conf.subcommand("upscale")]
        | Annotated[Vary, tyro.conf.subcommand("vary")]
        | Annotated[Interpolate, tyro.conf.subcommand("interpolate")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[View, tyro.conf.subcommand("view")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
    )
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            command: Command = tyro.cli(
                verbs,
                args=parted(arguments) or ["--help"],
                prog="diffnca",
                description="Denoising diffusion with neural cellular automata.",
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(condensed(errors.getvalue())) from None
    return command


def parted(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with rectangles as four numbers, which may be given with commas between them."""
    parts: list[str] = []
    for before, argument in itertools.pairwise(["", *arguments]):
        name, _, value = argument.partition("=")
        if name in RECTANGLES and value:
            parts += [name, *value.split(",")]
        else:
            parts += argument.split(",") if before in RECTANGLES else [argument]
    return parts


def _recipe_in(arguments: Sequence[str]) -> Config:
    """Return the defaults of `train`: those of its recipe, or of the model to start from."""
    names = [b for a, b in itertools.pairwise(arguments) if a == "--recipe"]
    names += [a.removeprefix("--recipe=") for a in arguments if a.startswith("--recipe=")]
    starts = [b for a, b in itertools.pairwise(arguments) if a == "--from"]
    starts += [a.removeprefix("--from=") for a in arguments if a.startswith("--from=")]
    if names or not starts:
        return recipe_named(names[-1] if names else "diff_nca")
    from diffnca.training.checkpoint import find_model, read_config

    config = read_config(find_model(starts[-1]))
    return replace(config, training=replace(config.training, minutes=None))


def condensed(box: str) -> str:
    """Return the message of one of tyro's boxes as one line."""
    blocks: list[list[str]] = [[]]
    for raw in box.splitlines():
        line = raw.strip("│| ")
        if re.match(r"[╭╰+]|[─-]+( |$)", line) or not line:
            blocks.append([])
        else:
            blocks[-1].append(line)
    blocks = [block for block in blocks if block]
    if "│" not in box:  # plain ASCII: the title is a block of its own
        blocks = blocks[1:]
    message = " ".join(blocks[0]) if blocks else "wrong arguments"
    hint = next(
        (b[1].split()[0] for b in blocks[1:] if b[0].startswith("Perhaps you meant") and len(b) > 1), None
    )
    return f"{message.rstrip(':')}{f'; perhaps {hint}?' if hint else ''}; see `diffnca --help`"


def run(command: Command) -> int:
    """Do what the command says."""
    match command:
        case Train() | Distill():
            if not command.data:
                raise ValueError("--data is missing: give folders, zip files, images or slides")
            from diffnca.training.run import distill, train

            return train(command) if isinstance(command, Train) else distill(command)
        case Sample():
            from diffnca.sampling import sample

            return sample(command)
        case Inpaint() | Extend() | Upscale() | Vary():
            from diffnca.editing.run import edit

            return edit(command)
        case Interpolate():
            from diffnca.films import interpolate

            return interpolate(command)
        case Evaluate():
            from diffnca.evaluation.run import run as run_evaluation

            return run_evaluation(command)
        case Reproduce():
            from diffnca.reproduction.run import run as run_reproduction

            return run_reproduction(command)
        case Verify():
            from diffnca.gigapixel import verify

            return verify(command)
        case View():
            from diffnca.web.view import serve

            return serve(command.image, command.port, not command.no_open)
        case Convert():
            return _convert(command)
        case Info():
            from diffnca.about import info

            return info(command)
        case Bench():
            from diffnca.benchmark.run import bench

            return bench(command)


def _convert(command: Convert) -> int:
    """Read a published checkpoint and write a model file."""
    from diffnca.interop import read_published_checkpoint
    from diffnca.training.checkpoint import write_model

    if command.out.suffix != ".safetensors":
        raise ValueError(f"{command.out}: the name of the model file must end in .safetensors")
    if not command.out.parent.is_dir():
        raise ValueError(f"{command.out}: the folder {command.out.parent} does not exist; create it first")
    network, config = read_published_checkpoint(command.source, command.image_channels)
    card = {"converted_from": command.source.name, "licence": "that of the converted checkpoint"}
    write_model(command.out, network.state_dict(), config, card)
    print(command.out)
    return 0
