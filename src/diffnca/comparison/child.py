"""A training of a table in a process with its own memory: `python -m diffnca.comparison.child JOB.json`."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch

from diffnca.config.json import from_json
from diffnca.engine.machine import peak_memory_bytes
from diffnca.errors import Interrupted, one_line
from diffnca.files import replace_atomically
from diffnca.training.options import RunOptions
from diffnca.training.session import training

OUTCOME = "outcome.json"
"""File beside a job: `{}`, or the reason why the training ended before its budget."""

MEMORY = "memory.json"
"""File beside a job: the peak memory of the training in bytes, before and after stops."""


def launch(job: Path, watch: Callable[[], object]) -> None:
    """Train as a job says, in another process; call `watch` every second until the budget is spent.

    A stop raises `Interrupted`, after saving; a failed training raises `ValueError` with the reason.
    """
    outcome = job.with_name(OUTCOME)
    outcome.unlink(missing_ok=True)
    python = [sys.executable, "-m"]
    if torch.cuda.device_count() > 1:
        python += ["accelerate.commands.launch", "--num_processes", str(torch.cuda.device_count()), "-m"]
    arguments = [*python, "diffnca.comparison.child", str(job)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
                watch()
        except KeyboardInterrupt:
            process.terminate()  # if no signal reached the process; it saves its run
            process.wait()
            raise Interrupted from None
    told = json.loads(outcome.read_text(encoding="utf-8")) if outcome.is_file() else {}
    if "interrupted" in told:
        raise Interrupted
    if process.returncode != 0 or "error" in told:
        raise ValueError(told.get("error", f"its process ended with {process.returncode}; see what it said"))


def work(job: Path) -> None:
    """Train as a job says, and write the memory that the training took."""
    wanted = json.loads(job.read_text(encoding="utf-8"))
    data, out = tuple(map(Path, wanted["data"])), Path(wanted["out"])
    options = RunOptions(
        data=data, out=out, minutes=wanted["minutes"], images=wanted["images"], sample_minutes=0.0
    )
    training(options, from_json(wanted["config"])).run()
    if os.environ.get("RANK", "0") == "0":
        path, device = job.with_name(MEMORY), torch.device("cuda" if torch.cuda.is_available() else "cpu")
        before = json.loads(path.read_text(encoding="utf-8"))["peak_bytes"] if path.is_file() else 0
        peak = max(before, peak_memory_bytes(device) or 0)
        path.write_text(json.dumps({"peak_bytes": peak, "device": device.type}), encoding="utf-8")


def main(job: Path) -> None:
    """Do a job, and write its outcome."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    told: dict[str, object] = {}
    try:
        work(job)
    except KeyboardInterrupt:
        told = {"interrupted": True}
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        told = {"error": one_line(error)}
    with replace_atomically(job.with_name(OUTCOME)) as partial:
        partial.write_text(json.dumps(told), encoding="utf-8")
    sys.exit(bool(told))  # a launcher of several processes then ends the others


def _end_with_parent() -> None:
    """Wait until the standard input is closed, as the system does however the parent ends; end too."""
    while os.read(0, 4096):  # sys.stdin has a lock, which Python would miss at the end
        pass
    os._exit(True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
