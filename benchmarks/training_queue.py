"""Keep one core training: take the next unfinished run of a list, again and again, at the lowest priority.

    python benchmarks/training_queue.py --folder ~/runs --data faces=faces64.zip tissue=glas.zip

Each run lives in a folder of its own below `--folder`, with a log beside it. Stop and start the queue at any
time: a stopped run goes on from its checkpoint. A run that fails is left out until the next start.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tyro

LIST = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Options:
    """Where the runs live, and the images of each kind."""

    folder: Path
    """Holds the folders of the runs."""
    data: dict[str, Path]
    """Images by the name that the list uses."""
    runs: Path = LIST
    """The list of runs."""
    threads: int = 1
    """Threads of a run."""


def main(options: Options) -> None:
    """Train until every run is finished, or has failed."""
    listed = tomllib.loads(options.runs.read_text())["run"]
    failed: set[str] = set()
    while (run := following(listed, options.folder, failed)) is not None:
        code = carry_out(run, options)
        if code == 0:
            (options.folder / f"{run['name']}.finished").touch()
        else:
            print(f"{run['name']}: exit code {code}, see {run['name']}.log", file=sys.stderr)
            failed.add(run["name"])


def following(listed: list[dict[str, str]], folder: Path, failed: set[str]) -> dict[str, str] | None:
    """Return the next run that can be done: not finished, not failed, what it waits for finished."""
    finished = {path.stem for path in folder.glob("*.finished")}
    for run in listed:
        is_waiting = "after" in run and run["after"] not in finished
        if run["name"] not in finished | failed and not is_waiting:
            return run
    return None


def carry_out(run: dict[str, str], options: Options) -> int:
    """Train one run; return the exit code of its command."""
    places = {name: path.resolve() for name, path in options.data.items()}
    words = shlex.split(run["command"].format(**places, runs=options.folder.resolve()))
    command = [sys.executable, "-m", "diffnca", *words, "--out", run["name"], "--checkpoint-seconds", "180"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "ACCELERATE_USE_CPU": "true"}
    with (options.folder / f"{run['name']}.log").open("ab") as log:
        return subprocess.run(
            command, cwd=options.folder, env=environment, stdout=log, stderr=log, preexec_fn=_yield_to_others
        ).returncode


def _yield_to_others() -> None:
    """Take the lowest priority."""
    os.nice(19)


if __name__ == "__main__":
    main(tyro.cli(Options))
