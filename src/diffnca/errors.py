"""Errors for users: each message is one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Interrupted(KeyboardInterrupt):
    """Work was stopped on request; the message says what is kept and how to continue."""


def require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    """Raise a `ValueError` with the name, the value and the allowed values, unless the value is allowed."""
    if not is_allowed:
        raise ValueError(f"{name}={value}: must be {allowed}")


def require_within(owner: object, prefix: str, limits: Mapping[str, tuple[int | float, int | float]]) -> None:
    """Refuse attributes of `owner` that are NaN or out of their limits (least, most); `None` is allowed.

    Messages put `prefix` before the name.
    """
    for name, (least, most) in limits.items():
        value = getattr(owner, name)
        require(value is None or least <= value <= most, f"{prefix}{name}", value, f"from {least} to {most}")


def require_members(kind: str, thing: object, names: Iterable[str]) -> None:
    """Refuse an object of the user that lacks a public name that its kind must have."""
    missing = [name for name in names if not name.startswith("_") and not hasattr(thing, name)]
    if missing:
        raise ValueError(
            f"{kind} {type(thing).__name__}: must have {', '.join(missing)}; see the architecture page"
        )


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line; if the message is empty, the type of the error."""
    return " ".join(str(error).split()) or type(error).__name__
