"""Long work of the page, such as a training: one at a time, in its own thread, with progress and a stop.

It belongs to no tab: it goes on when a tab is closed, and each tab shows it.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffnca.errors import Interrupted, explained, fault
from diffnca.progress import Number, Recent, Report, duration

Cancelled = Callable[[], bool]
Do = Callable[[Report, Cancelled], str]
"""Long work: it reports, asks whether to stop, and returns a line on its result."""


@dataclass
class Work:
    """Long work, now or before.

    Attributes:
        kind, name: what it is and makes.
        text: how far it is, or how it ended.
        share: the part that is done, from 0 to 1.
        folder: where its results are.
        way_on: what a person does to go on with it after a stop.
    """

    kind: str
    name: str
    folder: Path
    way_on: str
    text: str = "begins"
    share: float = 0.0
    is_running: bool = True
    is_error: bool = False


class Works:
    """Runs long work; as a context manager, stops it at the end and waits for it."""

    def __init__(self) -> None:
        """Begin without work."""
        self.latest: dict[str, Work] = {}
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Works":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.wait()

    def check_idle(self) -> None:
        """Refuse further work while there is some."""
        for other in self.latest.values():
            if other.is_running:
                busy = f"{other.name} is being made ({other.kind})"
                raise ValueError(f"{busy}: must be finished first; wait for it, or stop it")

    def begin(self, work: Work, do: Do) -> None:
        """Begin a work; refuse it while there is another one."""
        with self._lock:
            self.check_idle()
            self._stop.clear()
            self.latest[work.kind] = work
            self._thread = threading.Thread(target=self._run, args=(work, do), daemon=True)
            self._thread.start()

    def stop(self, kind: str | None = None) -> None:
        """Ask running work, of one kind or any, to stop after its current step."""
        if any(work.is_running and kind in (None, work.kind) for work in self.latest.values()):
            self._stop.set()

    def wait(self) -> None:
        """Wait until no work runs."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Work, do: Do) -> None:
        speeds = Recent()

        def report(title: str, done: Number, total: Number) -> None:
            work.share = done / total if total > 0 else 0.0
            speed = speeds.of(time.monotonic(), done)
            is_known = speed > 0.0 and done < total
            work.text = f"{title}, {duration((total - done) / speed)} left" if is_known else title

        try:
            work.text, work.share = do(report, self._stop.is_set), 1.0
        except Interrupted as stop:
            work.text = f"{stop.so_far}; {work.way_on}" if stop.again else stop.so_far
        except Exception as error:
            text = explained(error)
            if text is None:
                logging.getLogger(__name__).exception("%s %s", work.kind, work.name)
            work.text, work.is_error = text or fault(error), True
        finally:
            work.is_running = False
