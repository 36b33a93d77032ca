"""One training of a table, in a process of its own: `python -m diffnca.comparison.child JOB.json`.

So the memory it takes is its own, several GPUs can be given to it, and it ends with the one who started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import torch

from diffnca.cli.main import INTERRUPTED
from diffnca.config.json import from_json
from diffnca.engine.machine import peak_memory_bytes
from diffnca.training.options import RunOptions
from diffnca.training.session import training


def main(path: Path) -> int:
    """Train as the job says, and write what it took; return the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(path.read_text(encoding="utf-8"))
    config = from_json(job["config"])
    options = RunOptions(
        data=tuple(map(Path, job["data"])),
        out=Path(job["out"]),
        minutes=job["minutes"],
        images=job["images"],
        sample_minutes=0.0,
    )
    try:
        training(options, config).run()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"diffnca: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if int(os.environ.get("RANK", "0")) == 0:
        _note_memory(path.with_name("memory.json"))
    return 0


def _note_memory(path: Path) -> None:
    """Write the most memory that this training has held, now or before it was stopped."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = json.loads(path.read_text(encoding="utf-8"))["peak_bytes"] if path.is_file() else 0
    peak = max(before, peak_memory_bytes(device) or 0)
    path.write_text(json.dumps({"peak_bytes": peak, "device": device.type}), encoding="utf-8")


def _end_with_parent() -> None:
    """Wait until the one who started this process is gone, and go too.

    It holds the other end of the standard input, and the system closes that however it ends.
    """
    while os.read(0, 4096):  # not through sys.stdin, whose lock would be missed at the end
        pass
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
