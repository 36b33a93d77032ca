"""What is known of a recipe, a model, or this installation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from diffnca.config.recipes import RECIPES, recipe_named
from diffnca.models.build import build_network
from diffnca.models.file import bundled_models, find_model, read_card, read_config

if TYPE_CHECKING:
    from diffnca.cli.inspections import Info


def info(command: Info) -> int:
    """Print what is known of a recipe, a model or the installation; return the exit code."""
    facts = _installation() if command.name is None else facts_of(command.name)
    if command.json:
        print(json.dumps(facts, indent=1, sort_keys=True))
    else:
        for key, value in facts.items():
            print(f"{key.replace('_', ' ')}: {_shown(value)}")
    return 0


def _shown(value: Any) -> str:
    """Return a fact as text."""
    match value:
        case dict():
            return "".join(f"\n  {key}: {item}" for key, item in value.items())
        case list():
            return ", ".join(map(str, value))
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _installation() -> dict[str, Any]:
    """Return versions, recipes and bundled models."""
    versions = {"python": platform.python_version()}
    for package in ("diffnca", "torch", "accelerate", "safetensors", "numpy", "pillow", "tiffslide"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "recipes": list(RECIPES), "models": list(bundled_models())}


def facts_of(name: str) -> dict[str, Any]:
    """Return what is known of a recipe or a model; a recipe's name comes first."""
    if name in RECIPES:
        config, card = recipe_named(name), {}
    else:
        path = find_model(name)
        config, card = read_config(path), read_card(path)
    network = build_network(config.model)
    facts = {"name": name, "recipe": config.name, "parameters": sum(p.numel() for p in network.parameters())}
    radius = "the whole image" if network.radius is None else network.radius
    return {**facts, "radius_px": radius, **card, "config": dataclasses.asdict(config)}
