"""Change single fields of configurations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Choices = TypeVar("Choices")


def with_fields(choices: Choices, changes: Mapping[str, Any]) -> Choices:
    """Return a configuration with new values: `with_fields(config, {"data.crop": 32})`.

    All fields change at once, and then the dataclasses check the result.
    """
    own: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if not dataclasses.is_dataclass(choices) or first not in choices.__dataclass_fields__:
            raise ValueError(f"{name}: there is no such field in {type(choices).__name__}")
        if rest:
            below.setdefault(first, {})[rest] = value
        else:
            own[first] = value
    for first, values in below.items():
        own[first] = with_fields(own.get(first, getattr(choices, first)), values)
    changed: Choices = dataclasses.replace(choices, **own)  # type: ignore[type-var]
    return changed
