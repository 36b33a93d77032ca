"""Requests to stop that wait for the current step."""

import contextlib
import signal
from collections.abc import Callable, Iterator

Stopped = Callable[[], bool]


def never() -> bool:
    """Ask for no stop."""
    return False


class _Requests:
    came = False

    def __call__(self, number: int, frame: object) -> None:
        self.came = True


@contextlib.contextmanager
def stop_requests(cancelled: Stopped = never) -> Iterator[Stopped]:
    """Let Ctrl-C and SIGTERM wait for the current step to be saved; inner blocks share requests.

    What the block gets is also true when `cancelled` is.
    """
    outer = signal.getsignal(signal.SIGINT)
    if isinstance(outer, _Requests):
        yield lambda: outer.came or cancelled()
        return
    requests = _Requests()
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(number, requests) for number in signals]
    except ValueError:  # not in the main thread: the usual handlers stay
        yield cancelled
        return
    try:
        yield lambda: requests.came or cancelled()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
