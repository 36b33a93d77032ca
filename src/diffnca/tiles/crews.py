"""Crews that compute tiles: this process, processes of this machine, or a cluster of Dask.

A worker does one piece at a time, because the engine already uses all threads of the worker.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import torch

from diffnca.tiles.job import Job, Piece, do, learnt, work

PIECES_PER_WORKER = 2
"""Pieces in the hands of a worker: the current piece and the next piece. All other pieces wait here."""

POLL_SECONDS = 10.0
"""Time without a result before the workers are counted."""

log = logging.getLogger(__name__)


@runtime_checkable
class Crew(Protocol):
    """Workers that do pieces of work."""

    def hired(self, job: Job) -> Any:
        """Return a context that gives a function `(pieces) -> results` for this job."""


@dataclass(frozen=True)
class Alone:
    """This process, with all its threads."""

    @contextmanager
    def hired(self, job: Job) -> Iterator[Callable[[Iterable[Piece]], Iterator[Any]]]:
        """Do each piece when the caller asks for its result."""
        yield lambda pieces: ((piece, work(job, *piece)) for piece in pieces)


@dataclass(frozen=True)
class Processes:
    """`count` processes of this machine, which share its cores and end with this process, even if killed."""

    count: int

    @contextmanager
    def hired(self, job: Job) -> Iterator[Callable[[Iterable[Piece]], Iterator[Any]]]:
        """Start the processes, and end them at once when the work is interrupted."""
        threads, others = max(1, torch.get_num_threads() // self.count), multiprocessing.active_children()
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self.count, context, initializer=_begin, initargs=(job, threads))
        try:
            yield lambda pieces: given_out(pool, partial(do, ""), pieces, lambda: self.count)
        except BrokenProcessPool:
            need = "it needs less with a smaller --tile or fewer --workers"
            raise ChildProcessError(f"a worker died, perhaps for want of memory: {need}") from None
        finally:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class DaskCluster:
    """The workers of the Dask scheduler at `address`, on any machines that reach the store."""

    address: str

    def check(self) -> None:
        """Refuse an address without a scheduler, and a cluster without workers."""
        from diffnca.tiles.dask import client_of

        with client_of(self.address):
            pass

    @contextmanager
    def hired(self, job: Job) -> Iterator[Callable[[Iterable[Piece]], Iterator[Any]]]:
        """Send the job to each worker, including workers that join later."""
        from diffnca.tiles.dask import connected

        with connected(self.address, job) as (executor, key, count):
            yield lambda pieces: given_out(executor, partial(do, key), pieces, count)


def given_out(
    executor: Executor, function: Callable[..., Any], pieces: Iterable[Piece], count: Callable[[], int]
) -> Iterator[tuple[Piece, Any]]:
    """Yield each piece with its result; submit few pieces at a time for the current `count()` of workers."""
    waiting, running, is_told = iter(pieces), dict[Future[Any], Piece](), False
    while True:
        room = PIECES_PER_WORKER * max(1, count()) - len(running)
        for piece in islice(waiting, max(0, room)):
            running[executor.submit(function, *piece)] = piece
        if not running:
            return
        finished, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
        if not finished and not is_told and count() == 0:
            log.warning("no workers are left; waiting for one")
            is_told = True
        for future in finished:
            yield running.pop(future), future.result()


def _begin(job: Job, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets Ctrl-C and ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    learnt[""] = job


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
