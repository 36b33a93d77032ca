"""A cluster of Dask as a crew."""

import logging
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager, suppress
from typing import Any

from diffnca.errors import one_line
from diffnca.tiles.job import Job, learnt

try:
    import distributed
    from distributed import KilledWorker, WorkerPlugin
except ImportError:
    raise ImportError("a Dask cluster needs dask and distributed: pip install 'diffnca[giga]'") from None

CONNECT_SECONDS = 10

PATIENCE_SECONDS = 60

SCHEDULER_ENDED = "the scheduler of the cluster has ended; start another"


class Learn(WorkerPlugin):
    """Sends the job to each worker, including workers that replace dead workers."""

    def __init__(self, job: Job) -> None:
        """Give the job a unique name, because a cluster may have several jobs."""
        self.job, self.name = job, f"diffnca-{uuid.uuid4().hex}"

    def setup(self, worker: Any) -> None:
        """Let the worker learn the job."""
        learnt[self.name] = self.job

    def teardown(self, worker: Any) -> None:
        """Let the worker forget the job."""
        learnt.pop(self.name, None)


@contextmanager
def connected(address: str, job: Job) -> Iterator[tuple[Executor, str, Callable[[], int]]]:
    """Give an executor whose workers know the job, the name of the job there, and a count of the workers."""
    with client_of(address) as client:
        learning = Learn(job)
        client.register_plugin(learning)
        try:
            executor = client.get_executor(pure=False, retries=2)
            yield executor, learning.name, lambda: _count(client)
        except KilledWorker as error:
            cause = f"perhaps for want of memory ({one_line(error)}): it needs less with a smaller --tile"
            raise ChildProcessError(f"a tile killed several workers, {cause}") from None
        except CancelledError:
            raise ChildProcessError(SCHEDULER_ENDED) from None
        finally:
            with suppress(OSError, CancelledError):  # a scheduler that has ended knows no plugins
                client.unregister_worker_plugin(learning.name)


def _count(client: Any) -> int:
    try:
        return len(client.nthreads())
    except OSError:
        raise ChildProcessError(SCHEDULER_ENDED) from None


@contextmanager
def client_of(address: str) -> Iterator[Any]:
    """Give a client of a scheduler that has workers, without log messages; refuse others."""
    with _silent():
        try:
            client: Any = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, ValueError) as error:
            remedy = "start it with `dask scheduler`, and give its address, tcp://HOST:PORT"
            raise ValueError(f"--scheduler {address}: no answer ({one_line(error)}); {remedy}") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
            except TimeoutError:
                remedy = "start some with `dask worker`"
                raise ValueError(f"--scheduler {address}: it has no workers; {remedy}") from None
            yield client


@contextmanager
def _silent() -> Iterator[None]:
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
