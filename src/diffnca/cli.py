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
from dataclasses import replace
from typing import Annotated, Any

import tyro

from diffnca.commands.edits import Edit, Extend, Inpaint, Upscale, Vary
from diffnca.commands.images import Interpolate, Sample
from diffnca.commands.inspections import Info, Verify, View
from diffnca.commands.measurements import Bench, Evaluate, Reproduce
from diffnca.commands.models import Convert, Distill, Train
from diffnca.config import Config
from diffnca.recipes import recipe_named

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

RECTANGLES = ("--box", "--region")
"""Flags whose value is TOP,LEFT,HEIGHT,WIDTH."""

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
