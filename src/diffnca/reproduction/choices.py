"""Our recipes with one choice at a time changed: the rows of `ablation`, `stages` and `textures`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from diffnca.config import Config, LossConfig, ScheduleConfig
from diffnca.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.recipes import EMA_HALFLIFE_BATCHES, diff_nca, fourier_diff_nca


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


def _coarse_of(config: Config) -> tuple[NCAConfig, CoarseConfig]:
    """Return the network and its coarse stage."""
    assert isinstance(config.model, NCAConfig)
    assert config.model.coarse is not None
    return config.model, config.model.coarse


def _texture_cells(**changes: object) -> Config:
    """Return `diff_nca` with the cells of both stages changed."""
    config = diff_nca()
    model, coarse = _coarse_of(config)
    cell = replace(model.cell, **changes)  # type: ignore[arg-type]
    coarse = replace(coarse, cell=replace(coarse.cell, **changes))  # type: ignore[arg-type]
    return replace(config, model=replace(model, cell=cell, coarse=coarse))


def _texture_steps(of_coarse: int, of_image: int) -> Config:
    """Return `diff_nca` with so many cell steps in each stage."""
    config = diff_nca()
    model, coarse = _coarse_of(config)
    coarse = replace(coarse, cell=replace(coarse.cell, num_cell_steps=of_coarse))
    return replace(
        config, model=replace(model, coarse=coarse, cell=replace(model.cell, num_cell_steps=of_image))
    )


def _one_stage(patch: int, channels: int, hidden: int) -> Config:
    """Return `diff_nca` with one stage of eight cell steps, of about as many parameters."""
    config = diff_nca()
    cell = CellConfig(hidden=hidden, num_cell_steps=8, dilations=(1, 2, 4, 1), embedding_channels=32)
    return replace(config, model=NCAConfig("diff_nca", patch=patch, channels=channels, cell=cell))


def _texture_training(**changes: object) -> Config:
    """Return `diff_nca` with its training changed."""
    config = diff_nca()
    return replace(config, training=replace(config.training, **changes))  # type: ignore[arg-type]


def _fewer_channels() -> Config:
    """A smaller state and a wider hidden layer in both stages, of about as many parameters."""
    config = diff_nca()
    model, coarse = _coarse_of(config)
    coarse = replace(coarse, channels=88, cell=replace(coarse.cell, hidden=160))
    return replace(
        config, model=replace(model, channels=36, cell=replace(model.cell, hidden=176), coarse=coarse)
    )


TEXTURES: dict[str, Callable[[], Config]] = {
    "default": diff_nca,
    "one_stage_1px": lambda: _one_stage(1, 64, 560),
    "one_stage_2px": lambda: _one_stage(2, 80, 384),
    "one_stage_4px": lambda: _one_stage(4, 112, 160),
    "half_the_steps": lambda: _texture_steps(4, 3),
    "twice_the_steps": lambda: _texture_steps(16, 12),
    "fewer_channels": _fewer_channels,
    "neighbours_only": lambda: _texture_cells(dilations=(1,)),
    "random_updates": lambda: _texture_cells(update_probability=0.9),
    "gates": lambda: _texture_cells(modulation="gate"),
    "noise_prediction": lambda: replace(diff_nca(), prediction="noise"),
    "clean_prediction": lambda: replace(diff_nca(), prediction="clean"),
    "min_snr": lambda: replace(diff_nca(), loss=LossConfig(weighting="min_snr")),
    "adam": lambda: _texture_training(optimizer="adam"),
    "half_the_rate": lambda: _texture_training(learning_rate=diff_nca().training.learning_rate / 2),
    "twice_the_rate": lambda: _texture_training(learning_rate=2 * diff_nca().training.learning_rate),
}
"""Our `diff_nca` with its cells, its prediction, its loss or its optimiser changed, one at a time."""
