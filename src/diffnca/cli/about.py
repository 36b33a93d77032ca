"""Facts about a recipe, a model, or this installation."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from diffnca.config.recipes import RECIPES, recipe_named
from diffnca.models.build import build_network
from diffnca.models.file import bundled_models, find_model, read_card, read_config


def as_text(facts: Mapping[str, Any], depth: int = 0) -> str:
    """Return facts as lines; facts of a group stand indented below its name."""
    lines = []
    for key, value in facts.items():
        name = f"{'  ' * depth}{key.replace('_', ' ') if depth == 0 else key}:"
        if isinstance(value, Mapping) and value:
            lines += [name, as_text(value, depth + 1)]
        else:
            lines.append(f"{name} {_shown(value)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    match value:
        case list() | tuple():
            return ", ".join(map(str, value))
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return str(value)


def installation() -> dict[str, Any]:
    """Return versions, recipes and bundled models."""
    versions = {"python": platform.python_version()}
    for package in ("diffnca", "torch", "accelerate", "safetensors", "numpy", "pillow", "tiffslide"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "recipes": list(RECIPES), "models": list(bundled_models())}


def facts_of(name: str) -> dict[str, Any]:
    """Return facts about a recipe or a model; if both have the name, about the recipe."""
    if name in RECIPES:
        config, card = recipe_named(name), {}
    else:
        path = find_model(name)
        config, card = read_config(path), read_card(path)
    network = build_network(config.model)
    facts = {"name": name, "recipe": config.name, "parameters": sum(p.numel() for p in network.parameters())}
    radius = "the whole image" if network.radius is None else network.radius
    return {**facts, "radius_px": radius, **card, "config": dataclasses.asdict(config)}
