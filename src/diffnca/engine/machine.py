"""The machine: its devices, its fast data type, its memory and that of a process."""

import contextlib
import math
import os
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

import torch


def device_named(name: str) -> str:
    """Return the device to compute on, if it is available; `auto` takes a GPU if there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if torch.device(name).type not in ("cpu", "cuda", "mps", "xpu"):
            raise NotImplementedError
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(f"--device {name}: not available here; use auto or cpu") from None
    return name


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where `device` multiplies matrices faster in it, else float32."""
    if device.type == "cuda":
        is_fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        is_fast = device.type == "cpu" and any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return torch.bfloat16 if is_fast else torch.float32


def has_compiler(device: torch.device) -> bool:
    """Return whether `torch.compile` can compile for `device` on this machine."""
    if device.type == "cpu":  # generated code includes Python's header
        has_header = (Path(sysconfig.get_path("include")) / "Python.h").is_file()
        return sys.platform != "win32" and shutil.which("g++") is not None and has_header
    return device.type == "cuda"


def machine_of(device: torch.device) -> str:
    """Return a description of `device`."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak memory of this process on `device`; `None` if it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    held = status_bytes("VmHWM")
    if held is not None:  # of this process alone; getrusage also counts the peak of its parent
        return held
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if platform.system() == "Darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def physical_memory() -> float:
    """Return the memory of this machine in bytes; infinity where it is unknown."""
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(getattr(os, "sysconf_names", ())):
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def status_bytes(name: str) -> int | None:
    """Return a memory size of this process from Linux (`VmRSS`, `VmHWM`); `None` on other systems."""
    for line in _lines(Path("/proc/self/status")):
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def instructions() -> str:
    """Return the name and the sets of instructions of the processor, as far as the system says so."""
    lines = {line for line in _lines(Path("/proc/cpuinfo")) if line.startswith(("flags", "Features"))}
    return "\n".join([platform.system(), platform.machine(), _processor(), *sorted(lines)])


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
