"""The machine that numbers are measured on, and the memory that a process takes of it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")
"""What Linux knows of this process."""

CLEAR = Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
"""Written to `CLEAR`, lets Linux measure the peak anew (`man proc_pid_clear_refs`)."""


def machine(device: torch.device) -> str:
    """Return what the numbers were measured on, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def finish(device: torch.device) -> None:
    """Wait until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most memory that this process has held on the device; `None` if it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    held = _status_bytes("VmHWM")
    if held is not None:  # of this process alone; what getrusage tells begins with that of its parent
        return held
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def memory_of(work: Callable[[], object], device: torch.device) -> int | None:
    """Do some work; return how many bytes more than before it held at most, `None` if it is not known."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc keeps what was freed; give it back
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text(FORGET_PEAK)
    except OSError:
        work()
        return None
    held = _status_bytes("VmRSS")
    work()
    peak = _status_bytes("VmHWM")
    return None if held is None or peak is None else max(peak - held, 0)


def _status_bytes(name: str) -> int | None:
    """Return a size that Linux knows of this process."""
    for line in _lines(STATUS):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _processor() -> str:
    """Return the name of the processor."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, none if it is not there."""
    if path.is_file():
        yield from path.read_text(encoding="utf-8", errors="replace").splitlines()
