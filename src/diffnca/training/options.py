"""Options of a run; without torch, so that the command line shows its help at once."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from diffnca.config.model import LARGEST_BATCH, LARGEST_CROP_PX, LARGEST_RATE, DataConfig
from diffnca.errors import number, require_within

AUTO, RANDOM = "auto", "none"
"""Stand for the bundled model with the smallest error, and for random weights."""

MOST_SAMPLE_MINUTES, SHEETS = 10.0, 5
"""Longest time between sample grids by default, and their number in a short budget."""

SCALES = ((r"\d{1,4}", "px"), (r"\d+\.?\d*|\.\d+", "(?:um|µm)"))
"""Patterns of a scale in pixels and in micrometres: the number, and the unit."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Images, folder, budget and care of a run.

    Attributes:
        data: folders (searched recursively), zip files, images or whole slides.
        layouts: folders or zip files of label images (PNG or TIFF) with the names of the images. They hold
            class numbers 0, 1, 2, ... or the colours of --layout.classes; the model learns to follow them.
        labels: what each image shows as a whole: `folders` takes the name of its folder (or file) among those
            of --data, or of the folder within a single one; or a CSV file with the columns name and label.
        scale: the pixel of the model: `2px` makes images two times smaller, `0.5um` reads slides at 0.5
            micrometres per pixel; without it, the detail in the images decides.
        out: folder of the run; its parent must exist; without it, MODEL-DATA in the current folder.
        minutes: budget of training time.
        images: budget of training images; an image counts each time training sees it.
        strict: stop at the first unusable image, instead of leaving it out.
        checkpoint_seconds: time between checkpoints.
        sample_minutes: time between sample grids in OUT/samples; the end makes a last grid; 0 makes none;
            by default 10 minutes, or a fifth of a budget in minutes if that is less.
        trackers: also log to these trackers (tensorboard, wandb and others that accelerate knows).
    """

    data: tuple[Path, ...] = ()
    layouts: tuple[Path, ...] = ()
    labels: str | None = None
    scale: str | None = None
    out: Path | None = None
    minutes: float | None = None
    images: int | None = None
    strict: bool = False
    checkpoint_seconds: float = 60.0
    sample_minutes: float | None = None
    trackers: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `ValueError` if images are missing or a number is out of range."""
        if not self.data:
            raise ValueError("--data is missing: give folders, zip files, images or slides")
        for name in ("minutes", "images"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} {value}: must be above 0")
        for name in ("checkpoint-seconds", "sample-minutes"):
            value = getattr(self, name.replace("-", "_"))
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"--{name} {value}: must be 0 or more")
        if self.minutes is not None and self.images is not None:
            raise ValueError("--minutes and --images: give one of them")

    @property
    def sample_seconds(self) -> float:
        """Time between sample grids."""
        if self.sample_minutes is not None:
            return 60.0 * self.sample_minutes
        return 60.0 * min(MOST_SAMPLE_MINUTES, (self.minutes or math.inf) / SHEETS)

    def scaled(self, data: DataConfig) -> DataConfig:
        """Return how images are shown, at the scale that the user wants; refuse a scale that is none."""
        if self.scale is None:
            return data
        pixels, microns = (re.fullmatch(rf"({kind}) ?{unit}", self.scale) for kind, unit in SCALES)
        if pixels and int(pixels[1]) > 0:
            return replace(data, reduce=int(pixels[1]), microns_per_px=None)
        if microns and float(microns[1]) > 0:
            return replace(data, reduce=1, microns_per_px=float(microns[1]))
        raise ValueError(f"--scale {self.scale}: must be pixels, such as 2px, or micrometres, such as 0.5um")


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """Steps, guidance and training of a student.

    Attributes:
        steps: diffusion steps of the student; 0 keeps the steps of the teacher, to learn its guidance.
        guidance: strength, from 1 (none) to 10, that leads the teacher away from errors of a weaker model;
            without it, the teacher's own choice, or 2 with --guide.
        guide: the weaker model, trained on the same images; without it, the teacher without its last
            cell steps.
        batch: crops per training step; without it, the batch of the teacher.
        crop: side of the square crops in pixels; without it, that of the teacher.
        late_batch: crops per step in the last sixth of the budget, half as many in the sixth before; a
            multiple of the batch, which stays without it.
        learning_rate: peak learning rate; without it, 0.001, or less with --against.
        against: also trains a discriminator on frozen features of EfficientNet-Lite2 (extra `features`), and
            the student to make images that look real to it. `features` looks at grain, for textures;
            `forms` at what whole images show; `faces` also at eyes and mouths, for square images of
            faces, aligned as in CelebA. A student can then be its own teacher: with --steps 0, it stays
            near itself.
        against_weight: how much looking real counts next to the distance from the teacher; without it, as
            much as suits --against.
    """

    steps: int = 4
    guidance: float | None = None
    guide: str | None = None
    batch: int | None = number(None, within=(1, LARGEST_BATCH))
    crop: int | None = number(None, within=(1, LARGEST_CROP_PX))
    late_batch: int | None = number(None, within=(1, LARGEST_BATCH))
    learning_rate: float | None = number(None, within=(0, LARGEST_RATE))
    against: Literal["features", "forms", "faces"] | None = None
    against_weight: float | None = number(None, within=(0, 1000))

    def __post_init__(self) -> None:
        require_within(self, "--")
