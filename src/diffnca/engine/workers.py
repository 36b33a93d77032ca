"""Threads whose number changes no result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


class Workers:
    """As many threads as torch uses, each of which computes alone, without gradients."""

    def __init__(self) -> None:
        """Plan the threads."""
        self.count = torch.get_num_threads()

    def __enter__(self) -> Workers:
        """Start them."""
        self.pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them; threads that torch starts from now on follow its former setting again."""
        self.pool.shutdown()
        torch.set_num_threads(self.count)

    def once(self, task: Callable[[], Result]) -> Result:
        """Return what `task` returns in one of the threads."""

        def work() -> Result:
            with torch.no_grad():
                return task()

        return self.pool.submit(work).result()

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

        for running in [self.pool.submit(work) for _ in range(min(self.count, waiting.qsize()))]:
            running.result()
