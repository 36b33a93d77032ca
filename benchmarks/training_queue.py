"""Keep one core training: take the next unfinished run of a list, again and again, at the lowest priority.

    python benchmarks/training_queue.py --folder ~/runs --data faces faces64.zip tissue glas.zip
    python benchmarks/training_queue.py --folder ~/runs --status

Each run lives in a folder of its own below `--folder`, with a log beside it. Stop, kill and start the queue
at any time: a stopped run goes on from its checkpoint. A run that fails is left out until the next start.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import IO, Any

import tyro

LIST = Path(__file__).with_suffix(".toml")
LOCK, FINISHED = ".queue.lock", ".finished"
STOPPED = (130, -signal.SIGTERM, -signal.SIGINT)  # exit codes of a run that goes on


@dataclass(frozen=True)
class Options:
    """Where the runs live, and the images of each kind."""

    folder: Path
    """Holds the folders of the runs."""
    data: dict[str, Path] = field(default_factory=dict)
    """Pairs: the name that the list uses, and the images; runs on other images wait."""
    runs: Path = LIST
    """The list of runs."""
    status: bool = False
    """Print a table of the runs, and start none."""
    until: str | None = None
    """Stop at this time, such as 07:30."""
    hours: float | None = None
    """Stop after so many hours."""


@dataclass(frozen=True)
class Run:
    """An entry of the list: a command, its budget, and the runs and files that it waits for."""

    name: str
    command: str
    images: int | None = None
    after: Sequence[str] = ()
    files: Sequence[str] = ()

    def words(self, places: dict[str, Path]) -> list[str]:
        """Return the words of the command; raise `KeyError` for a place that is not known."""
        program, *rest = [word.format(**places) for word in shlex.split(self.command)]
        if program != "diffnca":
            return [program, *rest]
        budget = [] if self.images is None else ["--images", str(self.images)]
        own = [*budget, "--out", self.name, "--checkpoint-seconds", "180"]
        return [sys.executable, "-m", "diffnca", *rest, *own]

    def missing(self, folder: Path, places: dict[str, Path]) -> str:
        """Return what the run waits for, as text; nothing if it can start."""
        try:
            self.words(places)
            files = [path for path in self.files if not Path(path.format(**places)).exists()]
        except KeyError as place:
            return f"--data {place.args[0]} PATH"
        return ", ".join([name for name in self.after if not is_finished(folder, name)] + files)


def main(options: Options) -> int:
    """Train until every run is finished, has failed or waits, or until the time is over."""
    listed = [Run(**each) for each in tomllib.loads(options.runs.read_text(encoding="utf-8"))["run"]]
    folder = options.folder.resolve()
    places = {name: path.resolve() for name, path in options.data.items()} | {"runs": folder}
    if options.status:
        print("\n".join(table(listed, folder, places)))
        return 0
    end, asked, failed = end_of(options, datetime.now()), list[int](), set[str]()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: asked.append(number))

    def is_over() -> bool:
        return bool(asked) or datetime.now() >= end

    with locked(folder) as lock:
        while not is_over() and (run := following(listed, folder, places, failed)) is not None:
            code = carry_out(run, folder, places, lock, is_over)
            if code == 0:
                (folder / f"{run.name}{FINISHED}").touch()
            elif code not in STOPPED:
                print(f"{run.name}: exit code {code}, see {run.name}.log", file=sys.stderr)
                failed.add(run.name)
    return int(bool(failed))


def end_of(options: Options, now: datetime) -> datetime:
    """Return the time at which the queue stops."""
    end = datetime.max if options.hours is None else now + timedelta(hours=options.hours)
    if options.until is None:
        return end
    at = datetime.combine(now.date(), time.fromisoformat(options.until))
    return min(end, at if at > now else at + timedelta(days=1))


def is_finished(folder: Path, name: str) -> bool:
    return (folder / f"{name}{FINISHED}").exists()


def following(listed: Sequence[Run], folder: Path, places: dict[str, Path], failed: set[str]) -> Run | None:
    """Return the first run that is not finished, has not failed, and waits for nothing."""
    open_runs = (run for run in listed if not is_finished(folder, run.name) and run.name not in failed)
    return next((run for run in open_runs if not run.missing(folder, places)), None)


def carry_out(
    run: Run, folder: Path, places: dict[str, Path], lock: IO[str], must_stop: Callable[[], bool]
) -> int:
    """Train one run, and stop it on request; return the exit code of its command.

    The run holds the lock too: no other queue starts before it has saved.
    """
    lock.truncate(0)
    print(run.name, file=lock, flush=True)
    log = (folder / f"{run.name}.log").open("ab")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    choices: dict[str, Any] = {"cwd": folder, "env": environment, "stdout": log, "stderr": log}
    choices |= {"pass_fds": [lock.fileno()], "preexec_fn": yield_to_others, "stdin": subprocess.DEVNULL}
    with log, subprocess.Popen(run.words(places), start_new_session=True, **choices) as process:
        while process.poll() is None and not must_stop():
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        if process.poll() is None:
            process.terminate()
    return process.returncode


def yield_to_others() -> None:
    """Take the lowest priority, and stop with the queue."""
    os.nice(19)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: as if the queue had sent it


@contextmanager
def locked(folder: Path) -> Iterator[IO[str]]:
    """Lock the folder of the runs; refuse a folder where a queue, or the run of a killed queue, works."""
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"{folder}: a queue works here, or its last run still saves") from None
        yield file


def working(folder: Path) -> str:
    """Return the name of the run that a queue trains now; nothing if no queue works."""
    try:
        with locked(folder):
            return ""
    except SystemExit:
        return (folder / LOCK).read_text(encoding="utf-8").strip()


def table(listed: Sequence[Run], folder: Path, places: dict[str, Path]) -> Iterator[str]:
    """Yield a line for each run: its state, images, share of the budget, speed and last sheet."""
    yield f"{'run':18} {'state':24} {'images':>9} {'share':>6} {'per s':>6}  last sheet"
    current = working(folder)
    for run in listed:
        missing, (images, speed) = run.missing(folder, places), pace(folder / run.name)
        state = "trains" if run.name == current else f"waits for {missing}" if missing else "ready"
        state = "finished" if is_finished(folder, run.name) else state
        share = f"{images / run.images:.0%}" if run.images else "-"
        sheet = max((folder / run.name / "samples").glob("*.png"), default="-")
        yield f"{run.name:18} {state:24} {images:9,} {share:>6} {speed:6.1f}  {sheet}"


def pace(run: Path) -> tuple[int, float]:
    """Return the images that a run has seen, and its recent speed in images a second."""
    path, none = run / "log.jsonl", {"images": 0, "seconds": 0.0}
    lines = path.read_text(encoding="utf-8").splitlines()[-2:] if path.is_file() else []
    *_, before, last = none, none, *map(json.loads, lines)
    seconds = last["seconds"] - before["seconds"]
    return last["images"], (last["images"] - before["images"]) / seconds if seconds > 0 else 0.0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
