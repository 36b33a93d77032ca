"""The only place that prints: results on stdout, notes and progress on stderr."""

from __future__ import annotations

import logging
import sys
import traceback

from diffnca.progress import Progress, show


class Console:
    """Says what commands have to say."""

    def say(self, text: str) -> None:
        """Print a result on stdout."""
        show(text, sys.stdout)

    def note(self, text: str) -> None:
        """Print one line for the user on stderr."""
        show(f"diffnca: {' '.join(text.split())}", sys.stderr)

    def trace(self, error: BaseException) -> None:
        """Print where an error arose, on stderr."""
        show("".join(traceback.format_exception(error)).rstrip(), sys.stderr)

    def flush(self) -> None:
        """Send what libraries have printed; what nobody reads is dropped."""
        for stream in (sys.stdout, sys.stderr):
            show("", stream, end="")

    def progress(self) -> Progress:
        """Return what shows progress on stderr, as a context manager."""
        return Progress(sys.stderr)


class Notes(logging.Handler):
    """Shows as notes what the package logs: warnings, and what it leaves out; each text once."""

    def __init__(self, console: Console) -> None:
        """Show them on `console`."""
        super().__init__(logging.INFO)
        self.console, self.shown = console, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        text = record.getMessage()
        if text not in self.shown:
            self.shown.add(text)
            self.console.note(text)
