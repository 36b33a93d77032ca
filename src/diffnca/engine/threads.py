"""Threads that do not change a result, however many they are."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from threading import Barrier, local
from typing import Any

import torch

_ALONE = local()


@contextmanager
def computing_alone() -> Iterator[int]:
    """Let the calling thread compute alone within the block; yield how many threads torch used before.

    Torch's threads keep cores busy for milliseconds after an operator, and slow down all others.
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


def work_off(task: Callable[[Any], None], items: Iterable[Any], num_threads: int) -> None:
    """Run `task` for all items, in any order, without gradients, in `num_threads` threads, each alone."""
    items = list(items)
    if num_threads == 1 or len(items) == 1:  # the calling thread has no gradients, and computes alone
        for item in items:
            task(item)
        return
    waiting: SimpleQueue[Any] = SimpleQueue()
    for item in items:
        waiting.put(item)
    num_helpers = min(num_threads, waiting.qsize()) - 1
    for _ in range(num_threads):
        waiting.put(None)  # the end, for each thread

    def work() -> None:
        with torch.no_grad():
            for item in iter(waiting.get, None):
                task(item)

    helped = [_threads(num_threads - 1).submit(work) for _ in range(num_helpers)]
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
