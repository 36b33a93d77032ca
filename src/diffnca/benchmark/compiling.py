"""A compiled network to compare with, compiled within a limit of time."""

import copy
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from diffnca.engine.machine import has_compiler
from diffnca.errors import one_line


class _TooLong(BaseException):
    """The limit is over. `torch.compile` hides an `Exception`, but no `BaseException`."""


def compiled(network: nn.Module, device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    """Return a copy of `network` with compiled cell rules in mixed precision, as in training."""
    made = copy.deepcopy(network)
    for part in made.compiled_parts():  # type: ignore[operator]
        part.compile(dynamic=False)
    mixed = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    return cast(Callable[..., Tensor], mixed(made.__call__))


def compile_by(call: Callable[[], object], device: torch.device, seconds: float) -> None:
    """Make the first call of a compiled network.

    Raises:
        ValueError: nothing can be compiled here, or not in so many seconds.
    """
    if not has_compiler(device):
        raise ValueError("no C++ compiler or no Python headers here")
    try:
        with _within(seconds):
            call()
    except _TooLong:
        raise ValueError(f"compiling takes more than {seconds:g} s here") from None
    except Exception as error:
        raise ValueError(f"torch.compile fails here: {one_line(error)[:200]}") from error


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Stop the block after so many seconds, where signals can do it: in the main thread, not on Windows."""
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "setitimer")):
        yield
        return

    def stop(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
