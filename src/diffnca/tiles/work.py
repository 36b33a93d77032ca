"""The jobs that a worker process knows, and how it does a piece of a job."""

from __future__ import annotations

import threading
from typing import Any

from diffnca.canvas.region import Region
from diffnca.tiles.job import Job, work

Piece = tuple[str, Region, range]
"""A piece of work: the action, the region and the steps of `work`."""

_jobs: dict[str, Job] = {}
_one_at_a_time = threading.Lock()


def do(key: str, action: str, region: Region, steps: range) -> Any:
    """Do a piece of a job that this process has learnt; pieces wait for each other."""
    with _one_at_a_time:
        return work(_jobs[key], action, region, steps)


def learn(key: str, job: Job) -> None:
    """Let this process know a job."""
    _jobs[key] = job


def forget(key: str) -> None:
    """Let this process forget a job."""
    _jobs.pop(key, None)
