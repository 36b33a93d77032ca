"""Errors for users: each message is one line."""

from collections.abc import Iterable
from dataclasses import MISSING, field, fields
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Work was stopped on request; the message says what is kept and how to continue.

    Attributes:
        so_far: how far the work came.
        again: what the same command does; empty if it begins anew.
    """

    def __init__(self, so_far: str = "stopped", again: str = "") -> None:
        """Put the message together."""
        super().__init__(f"{so_far}; the same command {again}" if again else so_far)
        self.so_far, self.again = so_far, again


def require(is_allowed: bool, name: str, value: object, allowed: str) -> None:
    """Raise a `ValueError` with the name, the value and the allowed values, unless the value is allowed."""
    if not is_allowed:
        raise ValueError(f"{name}={value}: must be {allowed}")


def number(default: Any = MISSING, *, within: tuple[int | float, int | float]) -> Any:
    """Return a field of a dataclass that `require_within` keeps in its limits (least, most)."""
    return field(default=default, metadata={"within": within})


def require_within(owner: Any, prefix: str) -> None:
    """Refuse a `number` of a dataclass that is NaN or out of its limits; `None` is allowed.

    Messages put `prefix` before the name.
    """
    for each in fields(owner):
        if "within" in each.metadata:
            value, (least, most) = getattr(owner, each.name), each.metadata["within"]
            allowed = f"from {least} to {most}"
            name = each.name.replace("_", "-") if prefix == "--" else each.name
            require(value is None or least <= value <= most, f"{prefix}{name}", value, allowed)


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


def shown(value: object) -> str:
    """Return a value as it stands in a message: one line, not a long one."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."


def explained(error: Exception) -> str | None:
    """Return the line of an error that a user can cause; `None` for an error of diffnca."""
    text = one_line(error)
    if isinstance(error, RuntimeError) and "memory" in text:
        return f"{str(error).splitlines()[0]}; make a smaller image or a smaller batch"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    return text if isinstance(error, ValueError | OSError | ImportError | MemoryError) else None


def fault(error: Exception) -> str:
    """Return the line of an error of diffnca."""
    return f"an error of diffnca, not of yours: {type(error).__name__}: {one_line(error)}; please report it"
