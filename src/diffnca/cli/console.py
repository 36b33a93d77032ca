"""The only module that prints: results on stdout, notes and progress on stderr."""

import logging
import sys
import traceback

from diffnca.errors import one_line
from diffnca.progress import Progress, show


def say(text: str) -> None:
    """Print a result on stdout; raise `OSError` if it is lost, as on a full disk."""
    error = show(text, sys.stdout)
    if error is not None:
        raise OSError(f"stdout: cannot be written ({one_line(error)}); make room and repeat the command")


def note(text: str) -> None:
    """Print one line for the user on stderr."""
    show(f"diffnca: {' '.join(text.split())}", sys.stderr)


def trace(error: BaseException) -> None:
    """Print the traceback of an error on stderr."""
    show("".join(traceback.format_exception(error)).rstrip(), sys.stderr)


def flush() -> None:
    """Flush the output of libraries; drop the output if nobody reads the stream."""
    for stream in (sys.stdout, sys.stderr):
        show("", stream, end="")


def progress() -> Progress:
    """Return a context manager that shows progress on stderr."""
    return Progress(sys.stderr)


class Notes(logging.Handler):
    """Shows log records of the package as notes, each text once."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.shown = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record unless its text was shown before."""
        text = record.getMessage()
        if text not in self.shown:
            self.shown.add(text)
            note(text)
