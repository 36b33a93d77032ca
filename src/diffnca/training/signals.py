"""Requests to stop that wait for the step at hand."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

Stopped = Callable[[], bool]
"""Says whether a stop was asked for."""


class _Requests:
    """A handler of signals that remembers whether one came."""

    def __init__(self) -> None:
        """Begin without any."""
        self.came = False

    def __call__(self, number: int, frame: object) -> None:
        """Remember."""
        self.came = True

    def are_there(self) -> bool:
        """Return whether a stop was asked for."""
        return self.came


@contextlib.contextmanager
def stop_requests() -> Iterator[Stopped]:
    """Within the block, Ctrl-C and SIGTERM are remembered, so that the step at hand is finished and saved.

    A block within a block shares what is remembered, so that no request is lost between them.
    """
    outer = signal.getsignal(signal.SIGINT)
    if isinstance(outer, _Requests):
        yield outer.are_there
        return
    requests = _Requests()
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, requests) for number in signals]
    except ValueError:  # not in the main thread: signals go their usual way
        yield lambda: False
        return
    try:
        yield requests.are_there
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
