"""What an error is to a user: one line, and the exit code that a stopped command has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Limits = Mapping[str, tuple[int | float, int | float]]
"""The least and the largest allowed number of each name."""


class Interrupted(KeyboardInterrupt):
    """Work was stopped on request; its message says what is kept and how to go on."""


def require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value.

    Raises:
        ValueError: it is not allowed; the message gives the name, the value and what is allowed.
    """
    if not is_allowed:
        raise ValueError(f"{name}={value}: must be {allowed}")


def require_within(owner: object, prefix: str, limits: Limits) -> None:
    """Refuse numbers of an object that are out of their limits; `None` is allowed.

    Args:
        owner: has the numbers as attributes.
        prefix: what stands before their names in messages.
        limits: the least and the largest allowed number of each name.

    Raises:
        ValueError: a number is out of its limits, or not a number.
    """
    for name, (least, most) in limits.items():
        value = getattr(owner, name)
        require(value is None or least <= value <= most, f"{prefix}{name}", value, f"from {least} to {most}")


def require_members(kind: str, thing: object, names: Iterable[str]) -> None:
    """Refuse an object of the user that lacks what its kind must have.

    Raises:
        ValueError: something is missing; the message names the object.
    """
    missing = [name for name in names if not hasattr(thing, name)]
    if missing:
        raise ValueError(
            f"{kind} {type(thing).__name__}: must have {', '.join(missing)}; see the architecture page"
        )


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, or its type where the message is empty."""
    return " ".join(str(error).split()) or type(error).__name__
