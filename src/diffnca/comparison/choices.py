"""Our recipes with one choice at a time changed: the rows of `ablation`, `stages` and `textures`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from diffnca.config.model import Config, LossConfig, ScheduleConfig
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.config.recipes import EMA_HALFLIFE_BATCHES, diff_nca, fourier_diff_nca


def _parts(config: Config) -> tuple[NCAConfig, Literal["fourier", "coarse"], FourierConfig | CoarseConfig]:
    """Return the network, and the name and choices of the stage before its image stage."""
    model = config.model
    assert isinstance(model, NCAConfig)
    if model.fourier is not None:
        return model, "fourier", model.fourier
    assert model.coarse is not None
    return model, "coarse", model.coarse


def _with_first(config: Config, **changes: object) -> Config:
    """Return a recipe with its Fourier or coarse stage changed."""
    model, name, first = _parts(config)
    changed = replace(first, **changes)  # type: ignore[arg-type]
    return replace(config, model=replace(model, **{name: changed}))  # type: ignore[arg-type]


def _with_cells(config: Config, first: dict[str, object], image: dict[str, object]) -> Config:
    """Return a recipe with the cells of its first stage and of its image stage changed."""
    _, _, stage = _parts(config)
    config = _with_first(config, cell=replace(stage.cell, **first))  # type: ignore[arg-type]
    model, _, _ = _parts(config)
    return replace(config, model=replace(model, cell=replace(model.cell, **image)))  # type: ignore[arg-type]


def _with_both(config: Config, **changes: object) -> Config:
    """Return a recipe with the cells of both stages changed alike."""
    return _with_cells(config, changes, changes)


def _with_steps(config: Config, of_first: int, of_image: int) -> Config:
    """Return a recipe with so many cell steps in each stage."""
    return _with_cells(config, {"num_cell_steps": of_first}, {"num_cell_steps": of_image})


def _with_model(config: Config, **changes: object) -> Config:
    """Return a recipe with its network changed."""
    assert isinstance(config.model, NCAConfig)
    return replace(config, model=replace(config.model, **changes))  # type: ignore[arg-type]


def _with_training(config: Config, **changes: object) -> Config:
    """Return a recipe with its training changed."""
    return replace(config, training=replace(config.training, **changes))  # type: ignore[arg-type]


def _linear_embedding() -> Config:
    """Time and positions enter as they are, and positions stretch with the image: one published choice."""
    sizes = {"embedding_channels": 4, "embedding_width": 256}
    return _with_both(fourier_diff_nca(), embedding="linear", positions="relative", **sizes)


def _published_training() -> Config:
    """Adam, a learning rate that decays with each batch, a short average."""
    return _with_training(
        fourier_diff_nca(),
        optimizer="adam",
        learning_rate=1.6e-3,
        decay="exponential",
        max_gradient_norm=None,
        ema_halflife_images=round(EMA_HALFLIFE_BATCHES * fourier_diff_nca().training.batch),
        ema_warmup=False,
    )


ABLATIONS: dict[str, Callable[[], Config]] = {
    "default": fourier_diff_nca,
    "quadrant": lambda: _with_first(fourier_diff_nca(), spectrum="quadrant"),
    "forward_scaling": lambda: _with_first(fourier_diff_nca(), scaling="forward"),
    "linear_embedding": _linear_embedding,
    "relative_positions": lambda: _with_both(fourier_diff_nca(), positions="relative"),
    "published_training": _published_training,
    "adam": lambda: _with_training(fourier_diff_nca(), optimizer="adam"),
    "noise_prediction": lambda: replace(fourier_diff_nca(), prediction="noise"),
    "clean_prediction": lambda: replace(fourier_diff_nca(), prediction="clean"),
    "linear_schedule": lambda: replace(fourier_diff_nca(), schedule=ScheduleConfig("linear")),
    "random_updates": lambda: _with_both(fourier_diff_nca(), update_probability=0.9),
    "published_loss": lambda: replace(fourier_diff_nca(), loss=LossConfig("l1_l2")),
    "published_window": lambda: _with_first(fourier_diff_nca(), window=16),
    "pixel_cells": lambda: _with_model(fourier_diff_nca(), patch=1),
    "gates": lambda: _with_both(fourier_diff_nca(), modulation="gate"),
    "neighbours_only": lambda: _with_both(fourier_diff_nca(), dilations=(1,)),
    "no_fourier_stage": lambda: _with_model(fourier_diff_nca(), family="diff_nca", fourier=None),
}
"""Our `fourier_diff_nca`, with one choice at a time taken back to that of the published networks.

`clean_prediction` alone is a third way, neither theirs nor ours.
Two rows change more than one number: `linear_embedding` has `relative_positions` besides, which are a row of
their own, and `published_training` has `adam`, likewise. One more difference, gates computed once for all
images instead of for each, changes no number but the time.
"""

STAGES: dict[str, Callable[[], Config]] = {
    "default": fourier_diff_nca,
    "no_fourier_stage": lambda: _with_model(fourier_diff_nca(), family="diff_nca", fourier=None),
    "quadrant": lambda: _with_first(fourier_diff_nca(), spectrum="quadrant"),
    "window_12": lambda: _with_first(fourier_diff_nca(), window=12),
    "window_16": lambda: _with_first(fourier_diff_nca(), window=16),
    "2_steps_on_spectrum": lambda: _with_steps(fourier_diff_nca(), 2, 8),
    "4_steps_on_spectrum": lambda: _with_steps(fourier_diff_nca(), 4, 8),
    "16_steps_on_spectrum": lambda: _with_steps(fourier_diff_nca(), 16, 8),
    "4_steps_on_image": lambda: _with_steps(fourier_diff_nca(), 8, 4),
    "16_steps_on_image": lambda: _with_steps(fourier_diff_nca(), 8, 16),
}
"""What the Fourier stage of `fourier_diff_nca` brings, and how many cell steps each stage needs (8 and 8)."""


def _one_stage(patch: int, channels: int, hidden: int) -> Config:
    """Return `diff_nca` with one stage of eight cell steps, of about as many parameters."""
    cell = CellConfig(hidden=hidden, num_cell_steps=8, dilations=(1, 2, 4, 1), embedding_channels=32)
    return replace(diff_nca(), model=NCAConfig("diff_nca", patch=patch, channels=channels, cell=cell))


def _fewer_channels() -> Config:
    """A smaller state and a wider hidden layer in both stages, of about as many parameters."""
    config = _with_model(_with_first(diff_nca(), channels=88), channels=36)
    return _with_cells(config, {"hidden": 160}, {"hidden": 176})


def _clean_as_velocity(gamma: float) -> Config:
    """Predict the clean image; its error counts as that of the velocity does, but at most `gamma` times."""
    loss = LossConfig(weighting="velocity", min_snr_gamma=gamma)
    return replace(diff_nca(), prediction="clean", loss=loss)


TEXTURES: dict[str, Callable[[], Config]] = {
    "default": diff_nca,
    "one_stage_1px": lambda: _one_stage(1, 64, 560),
    "one_stage_2px": lambda: _one_stage(2, 80, 384),
    "one_stage_4px": lambda: _one_stage(4, 112, 160),
    "half_the_steps": lambda: _with_steps(diff_nca(), 4, 3),
    "twice_the_steps": lambda: _with_steps(diff_nca(), 16, 12),
    "fewer_channels": _fewer_channels,
    "neighbours_only": lambda: _with_both(diff_nca(), dilations=(1,)),
    "random_updates": lambda: _with_both(diff_nca(), update_probability=0.9),
    "gates": lambda: _with_both(diff_nca(), modulation="gate"),
    "noise_prediction": lambda: replace(diff_nca(), prediction="noise"),
    "clean_prediction": lambda: replace(diff_nca(), prediction="clean"),
    "clean_at_most_5": lambda: _clean_as_velocity(5.0),
    "clean_at_most_25": lambda: _clean_as_velocity(25.0),
    "min_snr": lambda: replace(diff_nca(), loss=LossConfig(weighting="min_snr")),
    "adam": lambda: _with_training(diff_nca(), optimizer="adam"),
    "half_the_rate": lambda: _with_training(diff_nca(), learning_rate=diff_nca().training.learning_rate / 2),
    "twice_the_rate": lambda: _with_training(diff_nca(), learning_rate=2 * diff_nca().training.learning_rate),
}
"""Our `diff_nca` with its cells, its prediction, its loss or its optimiser changed, one at a time."""
