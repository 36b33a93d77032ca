"""What a user may ask of a run of training; without torch, so that the command line can show it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Images, folder, budget and care of a run.

    Attributes:
        data: folders (searched recursively), zip files, images or whole slides.
        out: folder of the run; made if its parent exists. Without it: MODEL-DATA in the current folder.
        minutes: budget of training time.
        images: budget of images seen.
        strict: stop at the first image that cannot be used, instead of leaving it out.
        checkpoint_seconds: time between checkpoints.
        sample_minutes: time between sample grids in OUT/samples, and one at the end; 0 makes none.
        trackers: log to these as well (tensorboard, wandb and others known to accelerate).
    """

    data: tuple[Path, ...] = ()
    out: Path | None = None
    minutes: float | None = None
    images: int | None = None
    strict: bool = False
    checkpoint_seconds: float = 60.0
    sample_minutes: float = 10.0
    trackers: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what no run can be made of.

        Raises:
            ValueError: there are no images, or a number is out of range.
        """
        if not self.data:
            raise ValueError("--data is missing: give folders, zip files, images or slides")
        for name in ("minutes", "images"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name} {value}: must be above 0")
        for name in ("checkpoint-seconds", "sample-minutes"):
            value = getattr(self, name.replace("-", "_"))
            if not 0 <= value < math.inf:
                raise ValueError(f"--{name} {value}: must be 0 or more")
        if self.minutes is not None and self.images is not None:
            raise ValueError("--minutes and --images: give one of them")


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """What a student learns of its teacher, and how.

    Attributes:
        steps: diffusion steps of the student; 0 leaves the walk as it is, to learn what guidance does.
        guidance: how far the teacher is led away from the errors of a weaker model, from 1 (not at all) to
            10; without it, the teacher's own choice, or 2 with --guide.
        guide: the weaker model, of the same images; without it, the teacher without its last cell steps.
        batch: crops per training step; without it, as the teacher was trained.
        learning_rate: peak learning rate.
    """

    steps: int = 4
    guidance: float | None = None
    guide: str | None = None
    batch: int | None = None
    learning_rate: float = 1e-3
