"""The tables: which models are trained, and on what.

All rows of a table see the same images, cut and mirrored in the same way; network, loss, optimiser and
learning rate are each row's own, as its recipe says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from diffnca.comparison.choices import ABLATIONS, STAGES, TEXTURES
from diffnca.config.model import Config, DataConfig
from diffnca.config.networks import NCAConfig, VNCAConfig
from diffnca.config.recipes import RECIPES

HELD_OUT = 0.1
"""Share of the images that no row is trained on: what generated images are compared with."""

FACE_PX = 64
"""Side of the faces, unless they are reduced."""

TEXTURE_PX = 64
"""Side of the crops of textures, which is also that of the images compared."""


@dataclass(frozen=True)
class Table:
    """Models to compare.

    Attributes:
        name: of the table.
        subject: the row with which all others are compared.
        rows: one configuration for each row; its name is that of the row.
    """

    name: str
    subject: str
    rows: tuple[Config, ...]


def table_named(name: str, reduce: int, microns_per_px: float | None = None) -> Table:
    """Return a table.

    Args:
        name: `faces64`, `pathology`, `ablation`, `stages` or `textures`.
        reduce: whole factor by which the images are made smaller.
        microns_per_px: scale at which slides are read.

    Raises:
        ValueError: there is no such table, or nothing is left of the images.
    """
    tissue = DataConfig(
        crop=TEXTURE_PX,
        reduce=reduce,
        validation=HELD_OUT,
        max_background=0.2,
        microns_per_px=microns_per_px,
    )
    if name == "pathology":
        return Table(name, "diff_nca", _recipes_on(tissue))
    if name == "textures":
        return Table(name, "default", _named_rows(TEXTURES, tissue))
    if microns_per_px is not None:
        raise ValueError(f"--microns-per-px {microns_per_px}: must be left out for {name}, a table of faces")
    if reduce not in (1, 2, 4):
        raise ValueError(f"--reduce {reduce}: must be 1, 2 or 4, for faces of 64, 32 or 16 px")
    faces = DataConfig(crop=FACE_PX // reduce, reduce=reduce, quarter_turns=False, validation=HELD_OUT)
    match name:
        case "faces64":
            return Table(name, "fourier_diff_nca", _recipes_on(faces))
        case "ablation":
            return Table(name, "default", _named_rows(ABLATIONS, faces))
        case "stages":
            return Table(name, "default", _named_rows(STAGES, faces))
    raise ValueError(f"table {name!r}: must be faces64, pathology, ablation, stages or textures")


def _named_rows(rows: dict[str, Callable[[], Config]], data: DataConfig) -> tuple[Config, ...]:
    """Return the rows of a table, on the same images."""
    return tuple(_on(replace(make(), name=name), data) for name, make in rows.items())


def _recipes_on(data: DataConfig) -> tuple[Config, ...]:
    """Return all recipes, on the same images."""
    return tuple(_on(recipe(), data) for recipe in RECIPES.values())


def _on(config: Config, data: DataConfig) -> Config:
    """Return a configuration on these images; VNCA makes images of one size, a Fourier stage knows theirs."""
    model = config.model
    if isinstance(model, VNCAConfig):
        start = data.crop if model.start == model.size else model.start
        model = replace(model, size=data.crop, start=start, damage=model.damage * data.crop // model.size)
    elif isinstance(model, NCAConfig) and model.fourier is not None:
        model = replace(model, fourier=replace(model.fourier, trained_px=data.crop))
    return replace(config, model=model, data=data)
