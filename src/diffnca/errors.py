"""What an error is to a user: one line, and the exit code that a stopped command has."""

from __future__ import annotations


class Interrupted(KeyboardInterrupt):
    """Work was stopped on request; its message says what is kept and how to go on."""


def require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value.

    Raises:
        ValueError: it is not allowed; the message gives the name, the value and what is allowed.
    """
    if not is_allowed:
        raise ValueError(f"{name}={value}: must be {allowed}")


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, or its type where the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
