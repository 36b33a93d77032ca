"""Under pytest, shapes and types of annotations are checked at every call, and drawn examples are fixed."""

import os
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache, wraps
from inspect import isclass, isfunction, isgeneratorfunction
from pathlib import Path
from types import CodeType
from typing import Any, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype
from hypothesis import HealthCheck, settings

UNCHECKED = {"__init__", "__main__", "__pycache__", "cli", "progress"}
# tyro fills the commands of `cli` with placeholders; what pytest gives for a stream is no TextIO for beartype

# the workers of a parallel run share the cores, and so do the commands that they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

check_types = beartype(conf=BeartypeConf(violation_type=TypeError))
follow_shapes = jaxtyping.jaxtyped
local_code: set[CodeType] = set()


def checked(*, typechecker: Any) -> Callable[[Any], Any]:
    """Check arguments and result in one pass; jaxtyping alone takes two, and binds the arguments too.

    A function within a function is checked when it is made for the first time. A wrong type is a `TypeError`.
    """

    def slow(made: Any) -> Any:
        return follow_shapes(made, typechecker=typechecker)

    def quick(made: Any) -> Any:
        shapes = str(list(get_type_hints(made).values()))
        if "jaxtyping." not in shapes:
            return check_types(made)
        has_values = "{" in shapes  # a length is the value of an argument
        return slow(made) if has_values else in_context(check_types(made))

    def decorate(made: Any) -> Any:
        if isclass(made):
            if is_dataclass(made) and "__init__" in vars(made):
                made.__init__ = decorate(made.__init__)
            return made
        if isfunction(made) and "<locals>" in made.__qualname__:
            if made.__code__ in local_code:
                return made
            local_code.add(made.__code__)
        if not isfunction(made) or isgeneratorfunction(made):
            return slow(made)
        try:
            return quick(made)
        except NameError:  # its class is not there yet, or a name is there for mypy alone
            return at_first_call(made, quick, slow)

    return decorate


def at_first_call(made: Any, quick: Callable[[Any], Any], slow: Callable[[Any], Any]) -> Any:
    """Decorate a function when it is called, as its annotations name what comes after it."""

    @cache
    def decorated() -> Any:
        try:
            return quick(made)
        except NameError:
            return slow(made)

    @wraps(made)
    def wrapped(*args: Any, **options: Any) -> Any:
        return decorated()(*args, **options)

    return wrapped


def in_context(function: Any) -> Any:
    """Let a length that has a name be the same in all arguments and the result."""

    @wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with follow_shapes("context"):
            return function(*args, **options)

    return wrapped


jaxtyping.jaxtyped = checked
source = Path(__file__).parent.parent / "src" / "diffnca"
parts = sorted({path.stem for path in source.iterdir()} - UNCHECKED)
jaxtyping.install_import_hook([f"diffnca.{part}" for part in parts], "beartype.beartype")

# a busy machine is slow, not wrong; every run sees the same examples
settings.register_profile(
    "suite", max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
