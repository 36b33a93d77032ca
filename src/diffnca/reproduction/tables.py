"""The tables: which models are trained, and on what.

All rows of a table see the same images, cut and mirrored in the same way; network, loss, optimiser and
learning rate are each row's own, as its recipe says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from diffnca.config import Config, DataConfig, LossConfig, ScheduleConfig
from diffnca.networks import FourierConfig, NCAConfig, VNCAConfig
from diffnca.recipes import EMA_HALFLIFE_BATCHES, RECIPES, fourier_diff_nca

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


def table_named(name: str, reduce: int) -> Table:
    """Return a table.

    Args:
        name: `faces64`, `pathology`, `ablation` or `stages`.
        reduce: whole factor by which the images are made smaller.

    Raises:
        ValueError: there is no such table, or nothing is left of the images.
    """
    if name == "pathology":
        tissue = DataConfig(crop=TEXTURE_PX, reduce=reduce, validation=HELD_OUT, max_background=0.2)
        return Table(name, "diff_nca", _recipes_on(tissue))
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
    raise ValueError(f"table {name!r}: must be faces64, pathology, ablation or stages")


def _named_rows(rows: dict[str, Callable[[], Config]], data: DataConfig) -> tuple[Config, ...]:
    """Return the rows of a table, on the same images."""
    return tuple(_on(replace(make(), name=name), data) for name, make in rows.items())


def _recipes_on(data: DataConfig) -> tuple[Config, ...]:
    """Return all recipes, on the same images."""
    return tuple(_on(recipe(), data) for recipe in RECIPES.values())


def _on(config: Config, data: DataConfig) -> Config:
    """Return a configuration on these images; VNCA makes images of one size alone."""
    model = config.model
    if isinstance(model, VNCAConfig):
        start = data.crop if model.start == model.size else model.start
        model = replace(model, size=data.crop, start=start, damage=model.damage * data.crop // model.size)
    return replace(config, model=model, data=data)


def _with_cells(**changes: object) -> Config:
    """Return our model with the cells of both stages changed."""
    config = fourier_diff_nca()
    model, fourier = _stages(config)
    return replace(
        config,
        model=replace(
            model,
            cell=replace(model.cell, **changes),  # type: ignore[arg-type]
            fourier=replace(fourier, cell=replace(fourier.cell, **changes)),  # type: ignore[arg-type]
        ),
    )


def _with_fourier(**changes: object) -> Config:
    """Return our model with its Fourier stage changed."""
    config = fourier_diff_nca()
    model, fourier = _stages(config)
    return replace(config, model=replace(model, fourier=replace(fourier, **changes)))  # type: ignore[arg-type]


def _stages(config: Config) -> tuple[NCAConfig, FourierConfig]:
    """Return the network and its Fourier stage."""
    assert isinstance(config.model, NCAConfig)
    assert config.model.fourier is not None
    return config.model, config.model.fourier


def _with_steps(of_spectrum: int, of_image: int) -> Config:
    """Return our model with so many cell steps in each stage."""
    config = fourier_diff_nca()
    model, fourier = _stages(config)
    fourier = replace(fourier, cell=replace(fourier.cell, num_cell_steps=of_spectrum))
    return replace(
        config, model=replace(model, fourier=fourier, cell=replace(model.cell, num_cell_steps=of_image))
    )


def _relative_positions() -> Config:
    """Positions of both stages stretch with the image."""
    return _with_cells(positions="relative")


def _linear_embedding() -> Config:
    """Time and positions enter as they are, and positions stretch with the image: one published choice."""
    return _with_cells(embedding="linear", embedding_channels=4, embedding_width=256, positions="relative")


def _pixel_cells() -> Config:
    """A cell of the image stage holds one pixel, not 4x4."""
    config = fourier_diff_nca()
    model, _ = _stages(config)
    return replace(config, model=replace(model, patch=1))


def _with_training(**changes: object) -> Config:
    """Return our model with its training changed."""
    config = fourier_diff_nca()
    return replace(config, training=replace(config.training, **changes))  # type: ignore[arg-type]


def _published_training() -> Config:
    """Adam, a learning rate that decays with each batch, a short average."""
    return _with_training(
        optimizer="adam",
        learning_rate=1.6e-3,
        decay="exponential",
        max_gradient_norm=None,
        ema_halflife_images=round(EMA_HALFLIFE_BATCHES * fourier_diff_nca().training.batch),
        ema_warmup=False,
    )


def _no_low_frequencies() -> Config:
    """The image stage alone."""
    config = fourier_diff_nca()
    model, _ = _stages(config)
    return replace(config, model=replace(model, family="diff_nca", fourier=None))


ABLATIONS: dict[str, Callable[[], Config]] = {
    "default": fourier_diff_nca,
    "quadrant": lambda: _with_fourier(spectrum="quadrant"),
    "forward_scaling": lambda: _with_fourier(scaling="forward"),
    "linear_embedding": _linear_embedding,
    "relative_positions": _relative_positions,
    "published_training": _published_training,
    "adam": lambda: _with_training(optimizer="adam"),
    "noise_prediction": lambda: replace(fourier_diff_nca(), prediction="noise"),
    "linear_schedule": lambda: replace(fourier_diff_nca(), schedule=ScheduleConfig("linear")),
    "random_updates": lambda: _with_cells(update_probability=0.9),
    "published_loss": lambda: replace(fourier_diff_nca(), loss=LossConfig("l1_l2")),
    "published_window": lambda: _with_fourier(window=16),
    "pixel_cells": _pixel_cells,
    "gates": lambda: _with_cells(modulation="gate"),
    "neighbours_only": lambda: _with_cells(dilations=(1,)),
    "no_fourier_stage": _no_low_frequencies,
}
"""Our `fourier_diff_nca`, with one choice at a time taken back to that of the published networks.

Two rows change more than one number: `linear_embedding` has `relative_positions` besides, which are a row of
their own, and `published_training` has `adam`, likewise. One more difference, gates computed once for all
images instead of for each, changes no number but the time.
"""

STAGES: dict[str, Callable[[], Config]] = {
    "default": fourier_diff_nca,
    "no_fourier_stage": _no_low_frequencies,
    "quadrant": lambda: _with_fourier(spectrum="quadrant"),
    "window_12": lambda: _with_fourier(window=12),
    "window_16": lambda: _with_fourier(window=16),
    "2_steps_on_spectrum": lambda: _with_steps(2, 8),
    "4_steps_on_spectrum": lambda: _with_steps(4, 8),
    "16_steps_on_spectrum": lambda: _with_steps(16, 8),
    "4_steps_on_image": lambda: _with_steps(8, 4),
    "16_steps_on_image": lambda: _with_steps(8, 16),
}
"""What the Fourier stage of `fourier_diff_nca` brings, and how many cell steps each stage needs (8 and 8)."""
