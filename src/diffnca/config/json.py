"""The JSON form of a configuration, for the header of a weights file."""

import dataclasses
import json
import math
import types
import typing
from typing import Any, Literal

from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config
from diffnca.errors import one_line, require, shown

FORMAT_VERSION = 1
"""Version of the JSON layout; each text stores it."""


def to_json(config: Config) -> str:
    """Return `config` as JSON text with sorted keys."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(config)}
    for name in ("given_channels", "made_channels"):
        if values["model"].get(name) == 0:  # files of before these planes stay equal
            del values["model"][name]
    if config.layout == LayoutConfig():  # and files of before layouts
        del values["layout"]
    elif not config.layout.style:  # and of before styles
        del values["layout"]["style"], values["layout"]["styles"]
    return json.dumps(values, sort_keys=True, indent=1)


def from_json(text: str, source: str = "config") -> Config:
    """Return the configuration that `to_json` wrote; error messages begin with `source`.

    Raises:
        ValueError: the text is no JSON object, has another format version, or has unknown, ill-typed or
            forbidden fields.
    """
    values = object_of(text, source)
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{source}: configuration format {shown(version)}: this diffnca reads format {FORMAT_VERSION}; "
            "update diffnca"
        )
    try:
        return typing.cast(Config, _build(Config, values, "config"))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def object_of(text: str, source: str) -> dict[str, Any]:
    """Return the JSON object of a text; error messages begin with `source`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: must be JSON text ({one_line(error)})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{source}: holds {shown(values)}; must be a JSON object")
    return values


def _build(kind: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to the annotation `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin is types.UnionType:
        return _build_union(arguments, value, where)
    if origin is Literal:
        is_one = isinstance(value, str) and value in arguments
        require(is_one, where, shown(value), f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        require(isinstance(value, list), where, shown(value), "a list")
        return tuple(_build(arguments[0], item, where) for item in value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    require(type(value) is kind, where, shown(value), f"of type {kind.__name__}")
    require(kind is not float or math.isfinite(value), where, value, "a finite number")
    return value


def _build_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """Build `None`, a plain type, or the dataclass whose `family` the value names."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _build(kinds[0], value, where)
    families = {
        name: kind for kind in kinds for name in typing.get_args(typing.get_type_hints(kind)["family"])
    }
    family = value.get("family") if isinstance(value, dict) else None
    is_known = isinstance(family, str) and family in families
    require(is_known, f"{where}.family", shown(family), f"one of {', '.join(families)}; update diffnca")
    return _build(families[family], value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    require(isinstance(value, dict), where, shown(value), "an object")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown field {shown(unknown[0])}; known are {', '.join(hints)}")
    return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
