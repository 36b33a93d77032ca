"""The tables: which models are trained, on which images, on what terms; without torch, to start quickly.

All rows of a table see equal images. A row is a recipe, or a recipe with one change.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffnca.config.model import Config, DataConfig, LossConfig, SamplerName, ScheduleConfig, with_fields
from diffnca.config.networks import CellConfig, NCAConfig, VNCAConfig
from diffnca.config.recipes import EMA_HALFLIFE_BATCHES, RECIPES, diff_nca, fourier_diff_nca
from diffnca.errors import require
from diffnca.evaluation.options import MAX_IMAGES, Judge, check_judges
from diffnca.files import check_place

HELD_OUT = 0.1
"""Share of the images that no row is trained on; generated images are compared with these."""

SIDE_PX = 64
"""Side of the crops of textures, and of faces before a reduction."""


def _cells(first: str, **changes: Any) -> dict[str, Any]:
    stages = ("model.cell", f"model.{first}.cell")
    return {f"{stage}.{name}": value for stage in stages for name, value in changes.items()}


def _steps(first: str, of_first: int, of_image: int) -> dict[str, Any]:
    return {f"model.{first}.cell.num_cell_steps": of_first, "model.cell.num_cell_steps": of_image}


def _one_stage(patch: int, channels: int, hidden: int) -> dict[str, Any]:
    """Return one stage of eight cell steps, with about as many parameters as `diff_nca`."""
    cell = CellConfig(hidden=hidden, num_cell_steps=8, dilations=(1, 2, 4, 1), embedding_channels=32)
    return {"model": NCAConfig("diff_nca", patch=patch, channels=channels, cell=cell)}


def _clean_as_velocity(gamma: float) -> dict[str, Any]:
    """Predict the clean image; the loss weighs its error like the velocity, at most `gamma` times."""
    return {"prediction": "clean", "loss": LossConfig(weighting="velocity", min_snr_gamma=gamma)}


NO_FOURIER_STAGE = {"model.family": "diff_nca", "model.fourier": None}

ABLATIONS: dict[str, Mapping[str, Any]] = {
    "default": {},
    "quadrant": {"model.fourier.spectrum": "quadrant"},
    "forward_scaling": {"model.fourier.scaling": "forward"},
    "linear_embedding": _cells(
        "fourier", embedding="linear", positions="relative", embedding_channels=4, embedding_width=256
    ),
    "relative_positions": _cells("fourier", positions="relative"),
    "published_training": {
        "training.optimizer": "adam",
        "training.learning_rate": 1.6e-3,
        "training.decay": "exponential",
        "training.max_gradient_norm": None,
        "training.ema_halflife_images": round(EMA_HALFLIFE_BATCHES * fourier_diff_nca().training.batch),
        "training.ema_warmup": False,
        "training.ema_widths": (),
    },
    "adam": {"training.optimizer": "adam"},
    "noise_prediction": {"prediction": "noise"},
    "clean_prediction": {"prediction": "clean"},
    "linear_schedule": {"schedule": ScheduleConfig("linear")},
    "random_updates": _cells("fourier", update_probability=0.9),
    "published_loss": {"loss": LossConfig("l1_l2")},
    "published_window": {"model.fourier.window": 16},
    "pixel_cells": {"model.patch": 1},
    "gates": _cells("fourier", modulation="gate"),
    "neighbours_only": _cells("fourier", dilations=(1,)),
    "no_fourier_stage": NO_FOURIER_STAGE,
}
"""Our `fourier_diff_nca`; each row takes one choice back to the choice of the published networks.

Only `clean_prediction` is neither their choice nor ours. Two rows change two choices: `linear_embedding`
contains `relative_positions`, and `published_training` contains `adam`.
"""

STAGES: dict[str, Mapping[str, Any]] = {
    "default": {},
    "no_fourier_stage": NO_FOURIER_STAGE,
    "quadrant": {"model.fourier.spectrum": "quadrant"},
    "window_12": {"model.fourier.window": 12},
    "window_16": {"model.fourier.window": 16},
    "2_steps_on_spectrum": _steps("fourier", 2, 8),
    "4_steps_on_spectrum": _steps("fourier", 4, 8),
    "16_steps_on_spectrum": _steps("fourier", 16, 8),
    "4_steps_on_image": _steps("fourier", 8, 4),
    "16_steps_on_image": _steps("fourier", 8, 16),
}
"""The gain of the Fourier stage of `fourier_diff_nca`, and the cell steps that each stage needs (8 and 8)."""

TEXTURES: dict[str, Mapping[str, Any]] = {
    "default": {},
    "one_stage_1px": _one_stage(1, 64, 560),
    "one_stage_2px": _one_stage(2, 80, 384),
    "one_stage_4px": _one_stage(4, 112, 160),
    "half_the_steps": _steps("coarse", 4, 3),
    "twice_the_steps": _steps("coarse", 16, 12),
    "fewer_channels": {  # with about as many parameters
        "model.coarse.channels": 88,
        "model.coarse.cell.hidden": 160,
        "model.channels": 36,
        "model.cell.hidden": 176,
    },
    "neighbours_only": _cells("coarse", dilations=(1,)),
    "random_updates": _cells("coarse", update_probability=0.9),
    "gates": _cells("coarse", modulation="gate"),
    "noise_prediction": {"prediction": "noise"},
    "clean_prediction": {"prediction": "clean"},
    "clean_at_most_5": _clean_as_velocity(5.0),
    "clean_at_most_25": _clean_as_velocity(25.0),
    "min_snr": {"loss": LossConfig(weighting="min_snr")},
    "adam": {"training.optimizer": "adam"},
    "half_the_rate": {"training.learning_rate": diff_nca().training.learning_rate / 2},
    "twice_the_rate": {"training.learning_rate": 2 * diff_nca().training.learning_rate},
}
"""Our `diff_nca`; each row changes its cells, its prediction, its loss or its optimiser."""

VARIED = {
    "ablation": (fourier_diff_nca, ABLATIONS),
    "stages": (fourier_diff_nca, STAGES),
    "textures": (diff_nca, TEXTURES),
}
"""The recipe of each table of its variants; the row `default` is compared with all others."""

SUBJECTS = {"faces64": "fourier_diff_nca", "pathology": "diff_nca"}


@dataclass(frozen=True)
class Table:
    """A name, a configuration for each row, and `subject`, the row that is compared with all others."""

    name: str
    subject: str
    rows: tuple[Config, ...]


def table_named(name: str, reduce: int, microns_per_px: float | None = None) -> Table:
    """Return a table: `faces64`, `pathology`, `ablation`, `stages` or `textures`.

    `reduce` makes images smaller by this whole factor; the scale of slides must be `None` for faces.
    """
    if name in SUBJECTS:
        rows = [recipe() for recipe in RECIPES.values()]
    elif name in VARIED:
        recipe, variants = VARIED[name]
        rows = [with_fields(recipe(), {"name": row, **changes}) for row, changes in variants.items()]
    else:
        raise ValueError(f"table {name!r}: must be faces64, pathology, ablation, stages or textures")
    data = DataConfig(SIDE_PX, reduce=reduce, validation=HELD_OUT, microns_per_px=microns_per_px)
    data = replace(data, max_background=0.2) if name in ("pathology", "textures") else _of_faces(name, data)
    return Table(name, SUBJECTS.get(name, "default"), tuple(_on(row, data) for row in rows))


def _of_faces(name: str, data: DataConfig) -> DataConfig:
    if data.microns_per_px is not None:
        raise ValueError(
            f"--microns-per-px {data.microns_per_px}: must be left out for {name}, a table of faces"
        )
    if data.reduce not in (1, 2, 4):
        raise ValueError(f"--reduce {data.reduce}: must be 1, 2 or 4, for faces of 64, 32 or 16 px")
    return replace(data, crop=data.crop // data.reduce, quarter_turns=False)


def _on(config: Config, data: DataConfig) -> Config:
    """Return a configuration for these images; VNCA and a Fourier stage depend on their size."""
    model = config.model
    if isinstance(model, VNCAConfig):
        start = data.crop if model.start == model.size else model.start
        model = replace(model, size=data.crop, start=start, damage=model.damage * data.crop // model.size)
    elif isinstance(model, NCAConfig) and model.fourier is not None:
        model = replace(model, fourier=replace(model.fourier, trained_px=data.crop))
    return replace(config, model=model, data=data)


MIN_IMAGES = 100
"""Fewest generated images of a row, and fewest real images to compare with: 1% must be an image."""

MAX_SEEDS = 100
"""Most trainings of a row."""


@dataclass(frozen=True)
class Terms:
    """The terms on which all rows of a table are trained and measured.

    Attributes:
        out: folder of the table: results.json, table.md, a picture of each row.
        data: folders (searched recursively), zip files, images or whole slides.
        minutes: training time of each row.
        images: training images of each row, instead of --minutes.
        rows: train only these rows; other finished rows stay in the table.
        reduce: make images smaller by this whole factor; faces64 becomes 32x32 with 2.
        microns_per_px: scale at which slides are read, for pathology and textures.
        n: generated images of each row to measure, 100 or more, and at most the number of training images.
        sampler: of all denoisers.
        steps: diffusion steps of all denoisers.
        seeds: trainings of each row, with different seeds.
        features: the networks that look at the images, one or several; the first puts the rows in order.
        weights: files of the weights of inception, inception_nsfwjs, face_descriptor, in the order of
            --features; without them, they are looked for in ~/.cache/diffnca (inception is downloaded once).
        device: where to sample; auto takes a GPU where there is one. Training takes all GPUs.
    """

    out: Path
    data: tuple[Path, ...] = ()
    minutes: float | None = None
    images: int | None = None
    rows: tuple[str, ...] = ()
    reduce: int = 1
    microns_per_px: float | None = None
    n: int = 2048
    sampler: SamplerName = "dpmpp2m"
    steps: int = 20
    seeds: int = 1
    features: tuple[Judge, ...] = ("efficientnet_lite0",)
    weights: tuple[Path, ...] = ()
    device: str = "auto"

    @property
    def budget(self) -> str:
        """The budget of each row in words."""
        return f"{self.minutes:g} minutes" if self.minutes is not None else f"{self.images:,} images"

    @property
    def cache(self) -> Path:
        """The folder that keeps features of images."""
        return self.out / "features"

    def check(self) -> None:
        """Refuse terms that would fail only after hours, with a `ValueError` or an `OSError`."""
        if not self.data:
            raise ValueError("--data is missing: give folders, zip files, images or slides")
        if (self.minutes is None) == (self.images is None):
            raise ValueError("--minutes, --images: give one of them, the budget of each row")
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"--out {self.out}: is a file; give a folder")
        check_place(self.out / "table.md" if self.out.is_dir() else self.out)
        for name in ("minutes", "images"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"--{name}", value, "above 0")
        require(1 <= self.seeds <= MAX_SEEDS, "--seeds", self.seeds, f"from 1 to {MAX_SEEDS}")
        check_judges(self.features, self.weights)
        allowed = f"from {MIN_IMAGES} to {MAX_IMAGES:,} images for each row"
        require(MIN_IMAGES <= self.n <= MAX_IMAGES, "--n", self.n, allowed)
