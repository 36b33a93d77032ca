"""A cluster of Dask as a crew."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from diffnca.giga.crews import forget, learn
from diffnca.giga.tiles import Job

try:
    import distributed
    from distributed import KilledWorker, WorkerPlugin
except ImportError:
    raise ImportError("a Dask cluster needs dask and distributed: pip install 'diffnca[giga]'") from None

PATIENCE_SECONDS = 60
"""How long to wait for the scheduler, and then for its first worker."""


class Learn(WorkerPlugin):
    """Tells each worker the job, also one that replaces another."""

    def __init__(self, job: Job) -> None:
        """Take the job, which gets a name of its own: a cluster may have several."""
        self.job, self.name = job, f"diffnca-{uuid.uuid4().hex}"

    def setup(self, worker: Any) -> None:
        """Tell it."""
        learn(self.name, self.job)

    def teardown(self, worker: Any) -> None:
        """Forget it."""
        forget(self.name)


@contextmanager
def connected(address: str, job: Job) -> Iterator[tuple[Executor, str, Callable[[], int]]]:
    """Within the block, an executor whose workers know the job, the name they know it by, and their number.

    Raises:
        ValueError: there is no such scheduler, or it has no workers.
        ChildProcessError: a piece of work killed several workers, one after the other.
    """
    try:
        client: Any = distributed.Client(address, timeout=PATIENCE_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as error:
        raise ValueError(
            f"--scheduler {address}: no answer ({error}); start it with `dask scheduler`"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_SECONDS)
        except TimeoutError:
            raise ValueError(
                f"--scheduler {address}: it has no workers; start some with `dask worker`"
            ) from None
        learning = Learn(job)
        client.register_plugin(learning)
        try:
            executor = client.get_executor(pure=False, retries=2)
            yield executor, learning.name, lambda: len(client.nthreads())
        except KilledWorker as error:
            raise ChildProcessError(
                f"a tile killed several workers, perhaps for want of memory ({error}): it needs less with a "
                "smaller --tile"
            ) from None
        finally:
            client.unregister_worker_plugin(learning.name)
