"""Timing in turns: the load of a machine changes, so shares mean more than seconds."""

import contextlib
import ctypes
import dataclasses
import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffnca.engine.machine import status_bytes
from diffnca.progress import Report, unseen


@dataclass(frozen=True)
class Work:
    """Something to time: a call, its useful operations, and its matrix products alone (`None` if unknown)."""

    name: str
    call: Callable[[], object]
    operations: int
    floor: Callable[[], object] | None = None


@dataclass(frozen=True)
class Timing:
    """The result for a work: median seconds of a call (or training step) and of its matrix products alone.

    `memory_bytes` is what the first call needs beyond the memory before. `None` means unknown.
    """

    name: str
    seconds: float
    operations: int
    floor_seconds: float | None = None
    memory_bytes: int | None = None

    @property
    def gflops_per_second(self) -> float:
        """Useful operations per second, in 10**9."""
        return self.operations / self.seconds / 1e9

    @property
    def matrix_gflops_per_second(self) -> float | None:
        """Operations per second of the matrix products alone, in 10**9."""
        return None if self.floor_seconds is None else self.operations / self.floor_seconds / 1e9

    @property
    def share(self) -> float | None:
        """Share of the rate of the matrix products alone."""
        return None if self.floor_seconds is None else self.floor_seconds / self.seconds


@dataclass(frozen=True)
class Measured:
    """What a benchmark has found: facts, timings, and which rows are left out, and why."""

    facts: dict[str, Any]
    timings: list[Timing]
    left_out: dict[str, str]


def in_turns(
    works: dict[str, Callable[[], object]], rounds: int, device: torch.device, report: Report = unseen
) -> dict[str, float]:
    """Return the median seconds of each work over `rounds` turns, after one call each to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        report("time", turn, rounds + 1)
        for name, work in works.items():
            finish(device)
            started = time.perf_counter()
            work()
            finish(device)
            if turn > 0:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def timed(works: list[Work], rounds: int, device: torch.device, report: Report = unseen) -> list[Timing]:
    """Time all works and their floors over `rounds` turns, after one call each to measure its memory."""
    memory = {work.name: memory_of(work.call, device) for work in works}
    floors = {f"floor of {work.name}": work.floor for work in works if work.floor is not None}
    seconds = in_turns({work.name: work.call for work in works} | floors, rounds, device, report)
    return [
        Timing(name, seconds[name], operations, seconds.get(f"floor of {name}"), memory[name])
        for name, operations in ((work.name, work.operations) for work in works)
    ]


def finish(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Do some work; return its peak of memory in bytes beyond the memory before, `None` if unknown."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc keeps freed memory
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory in Linux
    except OSError:
        work()
        return None
    held = status_bytes("VmRSS")
    work()
    peak = status_bytes("VmHWM")
    return None if held is None or peak is None else max(peak - held, 0)


def as_json(measured: Measured) -> str:
    """Return all numbers for programs."""
    derived = ("gflops_per_second", "matrix_gflops_per_second", "share")
    rows = [
        dataclasses.asdict(each) | {name: getattr(each, name) for name in derived}
        for each in measured.timings
    ]
    return json.dumps({**measured.facts, "timings": rows, "left_out": measured.left_out}, indent=1)


def as_table(measured: Measured) -> str:
    """Return all numbers as a table for people; `x first` is the time in times that of the first row."""
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in measured.facts.items()]
    timings = measured.timings
    titles = f"{'seconds':>9}{'x first':>9}{'GFLOP/s':>9}{'products alone':>16}{'share':>7}{'MiB':>8}"
    lines.append(f"{'':44}{titles}")
    for each in timings:
        rate, share, memory = each.matrix_gflops_per_second, each.share, each.memory_bytes
        lines.append(
            f"{each.name:44}{each.seconds:9.4f}{each.seconds / timings[0].seconds:9.2f}"
            f"{each.gflops_per_second:9.1f}"
            f"{'' if rate is None else format(rate, '.1f'):>16}"
            f"{'' if share is None else format(share, '.0%'):>7}"
            f"{'' if memory is None else format(memory / 2**20, '.0f'):>8}"
        )
    lines += [f"{name:44}not here: {reason}" for name, reason in measured.left_out.items()]
    return "\n".join(lines)
