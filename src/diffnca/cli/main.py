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
from typing import Annotated, Any, ClassVar, Protocol, Union, runtime_checkable

import tyro

from diffnca.cli.console import Console
from diffnca.cli.edits import Extend, Inpaint, Upscale, Vary
from diffnca.cli.images import Interpolate, Sample
from diffnca.cli.inspections import Info, Verify, View
from diffnca.cli.measurements import Bench, Evaluate, Reproduce
from diffnca.cli.models import Convert, Distill, Train
from diffnca.config.model import Config
from diffnca.config.recipes import recipe_named

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@runtime_checkable
class Verb(Protocol):
    """What can be asked for: its fields are the flags, its text is the help."""

    verb: ClassVar[str]

    def run(self, console: Console) -> int:
        """Do it; return the exit code."""
        ...


RECTANGLES = ("--box", "--region")
"""Flags whose value is TOP,LEFT,HEIGHT,WIDTH."""

REPEATED = ("--data",)
"""Flags of several values that may also be given several times."""

VERBS: tuple[type[Verb], ...] = (
    Train,
    Distill,
    Sample,
    Inpaint,
    Extend,
    Upscale,
    Vary,
    Interpolate,
    Evaluate,
    Reproduce,
    Verify,
    View,
    Convert,
    Info,
    Bench,
)
"""All that can be asked for. A new verb is one class here: a frozen dataclass with a `verb` and a `run`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (0: done, 2: an error of the user's, 130: Ctrl-C)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = parse(arguments)
        return command.run(Console())
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


def parse(arguments: Sequence[str]) -> Verb:
    """Return the command that the arguments mean.

    Raises:
        ValueError: they are wrong; one line says how.
    """
    recipe = _recipe_in(arguments)
    train = Train(recipe=recipe.name, config=recipe)
    named: list[Any] = [Annotated[Train, tyro.conf.subcommand("train", default=train)]]
    named += [Annotated[kind, tyro.conf.subcommand(kind.verb)] for kind in VERBS if kind is not Train]
    verbs: Any = Union[tuple(named)]  # noqa: UP007  made of a tuple
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            command: Verb = tyro.cli(
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
    for before, argument in itertools.pairwise(["", *gathered(arguments)]):
        name, _, value = argument.partition("=")
        if name in RECTANGLES and value:
            parts += [name, *value.split(",")]
        else:
            parts += argument.split(",") if before in RECTANGLES else [argument]
    return parts


def gathered(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with all values of a repeated flag behind its first: tyro keeps only the last."""
    groups: list[list[str]] = [[]]
    current = groups[0]
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in REPEATED:
            current = next((group for group in groups if group[:1] == [name]), [])
            if not current:
                current.append(name)
                groups.append(current)
            current += [value] if equals else []
        elif argument.startswith("--"):
            current = [argument]
            groups.append(current)
        else:
            current.append(argument)
    return list(itertools.chain(*groups))


def _recipe_in(arguments: Sequence[str]) -> Config:
    """Return the defaults of `train`: those of its recipe, or of the model to start from."""
    names = [b for a, b in itertools.pairwise(arguments) if a == "--recipe"]
    names += [a.removeprefix("--recipe=") for a in arguments if a.startswith("--recipe=")]
    starts = [b for a, b in itertools.pairwise(arguments) if a == "--from"]
    starts += [a.removeprefix("--from=") for a in arguments if a.startswith("--from=")]
    if names or not starts:
        return recipe_named(names[-1] if names else "diff_nca")
    from diffnca.models.file import find_model, read_config

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
