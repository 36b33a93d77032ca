"""Under pytest, shapes and types of annotations are checked at every call, and drawn examples are fixed."""

import contextlib
import os
from collections.abc import Callable
from inspect import isfunction
from pathlib import Path
from typing import Any, get_type_hints

import jaxtyping
from hypothesis import HealthCheck, settings

UNCHECKED = {"__init__", "__main__", "__pycache__", "cli", "progress"}
# tyro fills the commands of `cli` with placeholders; what pytest gives for a stream is no TextIO for beartype

# the workers of a parallel run share the cores, and so do the commands that they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

follow_shapes = jaxtyping.jaxtyped


def checked(*, typechecker: Any) -> Callable[[Any], Any]:
    """Follow shapes through functions that name them; of the others check types alone, which is faster."""

    def decorate(made: Any) -> Any:
        with contextlib.suppress(NameError):  # a name that is there for mypy alone, or later
            if isfunction(made) and "jaxtyping." not in str(get_type_hints(made)):
                return typechecker(made)
        return follow_shapes(made, typechecker=typechecker)

    return decorate


jaxtyping.jaxtyped = checked
source = Path(__file__).parent.parent / "src" / "diffnca"
parts = sorted({path.stem for path in source.iterdir()} - UNCHECKED)
jaxtyping.install_import_hook([f"diffnca.{part}" for part in parts], "beartype.beartype")

# a busy machine is slow, not wrong; every run sees the same examples
settings.register_profile(
    "suite", max_examples=50, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
