"""The only place that prints: results on stdout, notes and progress on stderr.

A reader that goes away ends no work: what a closed stream cannot take is dropped. What a stream cannot encode
is replaced.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO

from diffnca.progress import Progress


class Console:
    """Says what commands have to say."""

    def say(self, text: str) -> None:
        """Print a result on stdout."""
        _print(text, sys.stdout)

    def note(self, text: str) -> None:
        """Print one line for the user on stderr."""
        _print(f"diffnca: {' '.join(text.split())}", sys.stderr)

    def progress(self) -> Progress:
        """Return what shows progress on stderr, as a context manager."""
        return Progress(sys.stderr)


class Notes(logging.Handler):
    """Shows as notes what the package logs: warnings, and what it leaves out."""

    def __init__(self, console: Console) -> None:
        """Show them on `console`."""
        super().__init__(logging.INFO)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        self.console.note(record.getMessage())


def _print(text: str, stream: TextIO | None) -> None:
    """Print a line, whatever the stream can take."""
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError, ValueError, OSError):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
