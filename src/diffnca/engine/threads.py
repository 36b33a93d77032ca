"""Threads that do not change a result, however many they are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from queue import Empty, SimpleQueue
from threading import Barrier, local
from types import TracebackType
from typing import Any

import torch

_ALONE = local()
"""While a thread computes alone: how many threads torch used before."""


@contextmanager
def computing_alone() -> Iterator[int]:
    """Let the calling thread compute alone within the block; yield how many threads torch used before.

    Torch's threads keep their cores busy for milliseconds after an operator, and slow down all other threads.
    """
    if hasattr(_ALONE, "count"):
        yield _ALONE.count
        return
    _ALONE.count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield _ALONE.count
    finally:
        torch.set_num_threads(_ALONE.count)
        del _ALONE.count


class Workers:
    """As many threads as torch uses. Each thread computes alone, without gradients."""

    def __enter__(self) -> Workers:
        """Take the threads. Within the block the calling thread computes alone too."""
        self.alone = computing_alone()
        self.count = self.alone.__enter__()
        self.others = _threads(max(self.count - 1, 1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the threads back."""
        self.alone.__exit__(kind, error, trace)

    def each(self, task: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Run `task` for each of the `items`, in any order."""
        waiting: SimpleQueue[Any] = SimpleQueue()
        for item in items:
            waiting.put(item)

        def work() -> None:
            with torch.no_grad():
                while True:
                    try:
                        item = waiting.get_nowait()
                    except Empty:
                        return
                    task(item)

        helped = [self.others.submit(work) for _ in range(min(self.count, waiting.qsize()) - 1)]
        try:
            work()
        finally:
            for running in helped:
                running.result()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Return `count` threads that compute alone. They are kept, because ending threads takes milliseconds."""
    pool, started = ThreadPoolExecutor(count, "diffnca", torch.set_num_threads, (1,)), Barrier(count)
    for running in [pool.submit(started.wait) for _ in range(count)]:
        running.result()
    return pool


if hasattr(os, "register_at_fork"):  # a child process has no threads of its parent
    os.register_at_fork(after_in_child=_threads.cache_clear)
