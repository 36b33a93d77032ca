"""Show the progress of work: a bar on a terminal, a line every 30 seconds elsewhere.

Computing code takes a `Report` and calls it. Only the command line makes a `Progress`, which is a `Report`.
"""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

Number = int | float
"""An amount of work."""

Report = Callable[[str, float, float], object]
"""Takes a title, the amount that is done, and the total: `report("tiles", 3, 8)`; total 0 means unknown."""


def unseen(*_: object) -> None:
    """Ignore a report."""


def part_of(report: Report, title: str, before: Number, size: Number, total: Number) -> Callable[..., object]:
    """Return a report for a part of some work: it is of `size`, and begins when `before` of `total` is done.

    The part reports what it has done and its own total, with or without a title.
    """
    return lambda *told: report(title, before + size * told[-2] / max(told[-1], 1e-9), total)


def show(text: str, stream: Any, end: str = "\n") -> OSError | None:
    """Print a line on a stream; characters that its encoding lacks become `?`.

    Work continues when the text cannot be written: the stream then drops all text. Return the error, unless
    the reader has closed the stream.
    """
    if stream is None:
        return None
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), end=end, file=stream, flush=True)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return None if isinstance(error, ValueError | BrokenPipeError) else error
    return None


class Recent:
    """Speed of work in the last minute."""

    def __init__(self) -> None:
        """Begin without a measurement."""
        self.points: deque[tuple[float, float]] = deque()

    def of(self, now: float, done: float) -> float:
        """Return the work per second, when `done` is done at time `now`; 0 at the first call."""
        self.points.append((now, done))
        while len(self.points) > 2 and now - self.points[0][0] > 60.0:
            self.points.popleft()
        before, done_before = self.points[0]
        return (done - done_before) / (now - before) if now > before else 0.0


class Progress:
    """Show reports on a stream; as a context manager, remove the bar at the end."""

    def __init__(self, stream: Any, line_seconds: float = 30.0) -> None:
        """Show a bar if `stream` is a terminal, else a line every `line_seconds`."""
        self.stream, self.line_seconds = stream, line_seconds
        self.title, self.shown, self.recent, self.speed = "", 0.0, Recent(), 0.0
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Progress":
        if self.stream is not None and not self.stream.closed and self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), TextColumn("{task.description}"))
            # rich prints results above the bar if they go to the terminal too
            is_shared = sys.stdout is not None and sys.stdout.isatty()
            console = Console(file=self.stream)
            self.bar = Bar(*columns, console=console, transient=True, redirect_stdout=is_shared)
            self.bar.start()
            self.task = self.bar.add_task("", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError):  # the terminal has gone
                self.bar.stop()
            self.bar = None

    def __call__(self, title: str, done: Number, total: Number) -> None:
        """Show a report."""
        now = time.monotonic()
        is_new = title.split(",")[0] != self.title.split(",")[0]
        if is_new:
            self.recent, self.shown = Recent(), now
        self.title, self.speed = title, self.recent.of(now, done)
        if self.bar is not None:
            share = done / total if total > 0 else 0.0
            self.bar.update(self.task, completed=share, description=self.text(done, total))
        elif now - self.shown >= self.line_seconds or (is_new and total <= 0):
            self.shown = now
            show(f"diffnca: {self.text(done, total)}", self.stream)

    def text(self, done: Number, total: Number) -> str:
        """Return title, share and time left as text."""
        if total <= 0:
            return self.title
        left = f", {duration((total - done) / self.speed)} left" if self.speed > 0.0 and done < total else ""
        return f"{self.title} {done / total:.0%}{left}"


def duration(seconds: Number) -> str:
    """Return a duration as text."""
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def amount(num_bytes: Number) -> str:
    """Return a number of bytes as text."""
    unit, name = next(((u, n) for u, n in ((1e9, "GB"), (1e6, "MB")) if num_bytes >= u), (1e3, "kB"))
    return f"{num_bytes / unit:,.1f} {name}"
