"""Requests to stop that wait for the step at hand."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


class StopRequestedError(Exception):
    """Long work was left because a stop was asked for."""


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the block, Ctrl-C and SIGTERM are remembered, so that the step at hand is finished and saved."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, lambda number, frame: received.append(number)) for number in signals]
    except ValueError:  # not in the main thread: signals go their usual way
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
