"""The command line: `diffnca` and a verb of `VERBS`.

Each error that a user can cause gives one line on stderr and exit code 2.
"""

import contextlib
import io
import itertools
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Protocol, Union

import tyro

from diffnca.cli import console
from diffnca.cli.app import App
from diffnca.cli.edits import Extend, Inpaint, Upscale, Vary
from diffnca.cli.exports import Export
from diffnca.cli.images import Interpolate, Sample
from diffnca.cli.inspections import Bench, Evaluate, Info, Reproduce, Verify, View
from diffnca.cli.models import Average, Convert, Distill, Look, Train
from diffnca.cli.synthesize import Synthesize
from diffnca.config.model import Config
from diffnca.config.recipes import diff_nca, recipe_named, unasked
from diffnca.errors import explained, fault
from diffnca.training.options import AUTO, RANDOM

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in shells."""

DEBUG = "--debug"
"""Shows the traceback of an error; may stand anywhere on the line."""

DESCRIPTION = f"Denoising diffusion with neural cellular automata. {DEBUG} shows where an error arose."


class Verb(Protocol):
    """A command: its fields are the flags, its docstring is the help."""

    verb: ClassVar[str]

    def run(self) -> int:
        """Run the command; return the exit code."""
        ...


RECTANGLES = ("--box", "--region")
"""Flags whose value is TOP,LEFT,HEIGHT,WIDTH."""

REPEATED = ("--data", "--layouts")
"""Flags with several values; users may also repeat such a flag."""

VERBS: tuple[type[Verb], ...] = (
    Train,
    Look,
    Distill,
    Average,
    Sample,
    Inpaint,
    Extend,
    Upscale,
    Vary,
    Interpolate,
    Synthesize,
    Evaluate,
    Reproduce,
    Verify,
    View,
    App,
    Convert,
    Export,
    Info,
    Bench,
)
"""All commands. Add a new verb here: a frozen dataclass with `verb` and `run`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code.

    0: done; 1: an error of diffnca; 2: an error of the user; 130: stopped on request.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:  # otherwise the next file gets its number, and the output of libraries
            os.open(os.devnull, os.O_RDWR)
    command = None
    try:
        with _noted():
            command = parse([word for word in words if word != DEBUG])
            return command.run()
    except KeyboardInterrupt as stop:
        console.note(str(stop) or "stopped")
        return INTERRUPTED
    except Exception as error:
        if DEBUG in words:
            console.trace(error)
        text = explained(error)
        code = 1 if text is None else 2
        text = text or f"{fault(error)}, with what {DEBUG} shows"
        typed = {word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
        values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
        console.note(as_typed(text, typed | set(() if command is None else flags_of(command)), values))
        return code
    finally:
        console.flush()


@contextlib.contextmanager
def _noted() -> Iterator[None]:
    """Show log records of the package within the block."""
    try:
        os.getcwd()
    except OSError:
        raise ValueError("the current folder has been deleted; change to another one (cd)") from None
    handler, logger = console.Notes(), logging.getLogger("diffnca")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def as_typed(text: str, flags: Set[str], values: Iterable[str] = ()) -> str:
    """Return a message with flags as a user types them: `even_px=0` becomes `--even-px 0`.

    The end of one flag's name is enough: `hidden=0` becomes `--model.cell.hidden 0`. A flag may also begin
    the message: `label: must` becomes `--label: must`. What the user has typed stays as it is.
    """

    def typed(match: re.Match[str]) -> str:
        first, name = match["first"], match["first"] or match["name"]
        if name is None:
            return match[0]
        flag = name.replace("_", "-")
        found = [flag] if flag in flags else [each for each in flags if each.endswith(f".{flag}")]
        return f"--{found[0]}{': ' if first else ' '}" if len(found) == 1 else match[0]

    kept = "|".join(re.escape(value) for value in sorted(values, key=len, reverse=True) if "=" in value)
    names = r"^(?P<first>[a-z]\w*): |(?<![\w./-])(?P<name>[a-z][\w.]*)=(?=\S)"
    return re.sub(f"{kept}|{names}" if kept else names, typed, text)


def flags_of(record: Any, prefix: str = "") -> Iterator[str]:
    """Yield the names of all flags of a command, with the prefixes of tyro for nested groups."""
    for each in fields(record):
        value = getattr(record, each.name)
        if is_dataclass(value):
            is_group = hasattr(record, "verb")  # flags of its groups have no prefix
            yield from flags_of(value, "" if is_group else f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}".replace("_", "-")


def parse(arguments: Sequence[str]) -> Verb:
    """Return the command of the arguments; raise `ValueError` if they are wrong."""
    recipe = _recipe_in(arguments)
    flags = {word.partition("=")[0] for word in arguments}
    start = None if "--recipe" in flags else AUTO
    train = Train(recipe=recipe.name, start=start, config=recipe)
    named: list[Any] = [Annotated[Train, tyro.conf.subcommand("train", default=train)]]
    named += [
        Annotated[kind, tyro.conf.subcommand(kind.verb), tyro.conf.FlagCreatePairsOff]
        for kind in VERBS
        if kind is not Train
    ]
    verbs: Any = Union[tuple(named)]  # noqa: UP007  made of a tuple
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _wide_enough():
            command: Verb = tyro.cli(
                verbs,
                args=parted(arguments) or ["--help"],
                prog="diffnca",
                description=DESCRIPTION,
                config=(tyro.conf.AvoidSubcommands,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(condensed(errors.getvalue())) from None
    return command


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """Let tyro write lines of 80 columns or more; it breaks words to fit narrower terminals."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(max(shutil.get_terminal_size().columns, 80))
    try:
        yield
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


def parted(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with rectangles as four numbers, and with the home folder for `~`."""
    parts: list[str] = []
    for before, argument in itertools.pairwise(["", *gathered([_expanded(word) for word in arguments])]):
        name, _, value = argument.partition("=")
        if name in RECTANGLES and value:
            parts += [name, *value.split(",")]
        else:
            parts += argument.split(",") if before in RECTANGLES else [argument]
    return parts


def gathered(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with repeated flags joined: tyro keeps only the values of the last."""
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


def _expanded(argument: str) -> str:
    """Replace `~` at the start of an argument, or of the value of a flag, by the home folder."""
    flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{flag}{equals}{os.path.expanduser(value)}"


def _recipe_in(arguments: Sequence[str]) -> Config:
    """Return the defaults of `train`: its recipe, or the configuration of the model in `--from`.

    Without both, the images decide their reduction and what is held out.
    """

    def values_of(flag: str) -> list[str]:
        values = [b for a, b in itertools.pairwise(arguments) if a == flag]
        return values + [a.removeprefix(f"{flag}=") for a in arguments if a.startswith(f"{flag}=")]

    names, starts = values_of("--recipe"), values_of("--from")
    if names:
        return recipe_named(names[-1])
    if not starts or starts[-1] in (AUTO, RANDOM):
        return unasked(diff_nca())
    from diffnca.models.file import find_model, read_config

    config = read_config(find_model(starts[-1]))
    return replace(config, training=replace(config.training, minutes=None))


def condensed(box: str) -> str:
    """Return the message in a box of tyro as one line."""
    blocks: list[list[str]] = [[]]
    for raw in box.splitlines():
        line = raw.strip("│| ")
        if re.match(r"[╭╰+]|[─-]+( |$)", line) or not line:
            blocks.append([])
        else:
            blocks[-1].append(line)
    blocks = [block for block in blocks if block]
    if "│" not in box:  # plain ASCII: the title is a separate block
        blocks = blocks[1:]
    message = " ".join(blocks[0]) if blocks else "wrong arguments"
    message = re.sub(r"^Error parsing __tyro\S*: ", "", message)  # tyro made this name; no user typed it
    hint = next(
        (b[1].split()[0] for b in blocks[1:] if b[0].startswith("Perhaps you meant") and len(b) > 1), None
    )
    return f"{message.rstrip(':')}{f'; perhaps {hint}?' if hint else ''}; see `diffnca --help`"
