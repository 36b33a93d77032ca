"""Commands that change no file: check an image, view an image, describe a model."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

import tyro

from diffnca.cli.console import Console
from diffnca.config.recipes import RECIPES, recipe_named

MOST_PROBLEMS = 10
"""Largest number of problems in the message for a damaged image."""


@dataclass(frozen=True)
class Verify:
    """Check a finished OME-Zarr image: shapes, checksums, missing files.

    Attributes:
        image: the folder of the image, or an address of fsspec.
    """

    verb: ClassVar = "verify"

    image: tyro.conf.Positional[str]

    def run(self, console: Console) -> int:
        """Check the image; return the exit code."""
        from diffnca.formats.ome_zarr import verify

        with console.progress() as progress:
            problems = verify(self.image, lambda done, total: progress("verify", done, total))
        if problems:
            more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
            raise ValueError(f"{self.image}: {'; '.join(problems[:MOST_PROBLEMS])}{more}")
        console.say(f"{self.image}: complete")
        return 0


@dataclass(frozen=True)
class View:
    """View an image of any size in the browser.

    Attributes:
        image: an OME-Zarr image, a slide, or a picture (TIFF, PNG, JPEG).
        port: port of the local address; 0 takes a free port.
        no_open: print the address, but do not open the browser.
    """

    verb: ClassVar = "view"

    image: tyro.conf.Positional[str]
    port: int = 0
    no_open: bool = False

    def run(self, console: Console) -> int:
        """Serve the image; return the exit code."""
        from diffnca.view.server import serve

        serve(self.image, self.port, not self.no_open, console.say)
        return 0


@dataclass(frozen=True)
class Info:
    """Describe a recipe or a model; without a name, this installation.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        json: print JSON, for programs.
    """

    verb: ClassVar = "info"

    name: tyro.conf.Positional[str | None] = None
    json: bool = False

    def run(self, console: Console) -> int:
        """Print the facts; return the exit code."""
        facts = installation() if self.name is None else facts_of(self.name)
        console.say(json.dumps(facts, indent=1, sort_keys=True) if self.json else as_text(facts))
        return 0


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
    from diffnca.models.file import bundled_models

    versions = {"python": platform.python_version()}
    for package in ("diffnca", "torch", "accelerate", "safetensors", "numpy", "pillow", "tiffslide"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"versions": versions, "recipes": list(RECIPES), "models": list(bundled_models())}


def facts_of(name: str) -> dict[str, Any]:
    """Return facts about a recipe or a model; if both have the name, about the recipe."""
    from diffnca.models.build import build_network
    from diffnca.models.file import find_model, read_card, read_config

    if name in RECIPES:
        config, card = recipe_named(name), {}
    else:
        path = find_model(name)
        config, card = read_config(path), read_card(path)
    network = build_network(config.model)
    facts = {"name": name, "recipe": config.name, "parameters": sum(p.numel() for p in network.parameters())}
    radius = "the whole image" if network.radius is None else network.radius
    return {**facts, "radius_px": radius, **card, "config": asdict(config)}
