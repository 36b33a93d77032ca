"""Commands that change nothing: check an image, look at it, tell about a model."""

from __future__ import annotations

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Verify:
    """Check a finished OME-Zarr image: shapes, checksums, no file missing.

    Attributes:
        image: its folder, or an address of fsspec.
    """

    image: tyro.conf.Positional[str]


@dataclass(frozen=True)
class View:
    """Look at an image of any size in the browser.

    Attributes:
        image: an OME-Zarr image, an OME-TIFF or a PNG file.
        port: of the local address; 0 takes a free one.
        no_open: print the address, do not open the browser.
    """

    image: tyro.conf.Positional[str]
    port: int = 0
    no_open: bool = False


@dataclass(frozen=True)
class Info:
    """Tell about a recipe or a model; without a name, about this installation.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        json: print JSON, for machines.
    """

    name: tyro.conf.Positional[str | None] = None
    json: bool = False
