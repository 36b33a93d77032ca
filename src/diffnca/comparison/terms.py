"""The terms that all rows of a table share; without torch, so that a command line starts quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffnca.errors import require
from diffnca.evaluation.options import MAX_IMAGES
from diffnca.files import check_place

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
        features: the network that looks at the images.
        weights: local file of the weights of inception.
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
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "dpmpp2m"
    steps: int = 20
    seeds: int = 1
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0"
    weights: Path | None = None
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
        allowed = f"from {MIN_IMAGES} to {MAX_IMAGES:,} images for each row"
        require(MIN_IMAGES <= self.n <= MAX_IMAGES, "--n", self.n, allowed)
