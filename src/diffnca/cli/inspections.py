"""Commands that change no file: check an image, view an image, describe a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import tyro

from diffnca.cli.console import Console

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
        from diffnca.cli.about import as_text, facts_of, installation

        facts = installation() if self.name is None else facts_of(self.name)
        console.say(json.dumps(facts, indent=1, sort_keys=True) if self.json else as_text(facts))
        return 0
