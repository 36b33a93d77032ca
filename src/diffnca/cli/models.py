"""Commands that make models: train, distil, convert what others trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from diffnca.cli.console import Console
from diffnca.config.model import Config
from diffnca.files import check_target


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all training has in common.

    Attributes:
        data: folders (searched recursively), zip files, images or whole slides.
        out: folder of the run; made if its parent exists. Without it: MODEL-DATA in the current folder.
        minutes: budget of training time.
        images: budget of images seen.
        dry_run: say what would be done, write nothing.
        strict: stop at the first image that cannot be used, instead of leaving it out.
        checkpoint_seconds: time between checkpoints.
        sample_minutes: time between sample grids in OUT/samples, and one at the end; 0 makes none.
        trackers: log to these as well (tensorboard, wandb and others known to accelerate).
    """

    data: tuple[Path, ...] = ()
    out: Path | None = None
    minutes: float | None = None
    images: int | None = None
    dry_run: bool = False
    strict: bool = False
    checkpoint_seconds: float = 60.0
    sample_minutes: float = 10.0
    trackers: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Train(Run):
    """Train a model on your images; the same command takes a stopped run up again.

    Attributes:
        recipe: the recipe: one of those that `diffnca info` lists; with --from, by default the model's own.
        start: fine-tune this model: a bundled one, a file, a run's folder or a hub id.
        config: the recipe's fields.
    """

    verb: ClassVar = "train"

    recipe: str = "diff_nca"
    start: Annotated[str | None, tyro.conf.arg(name="from")] = None
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    def run(self, console: Console) -> int:
        """Train; return the exit code."""
        check_data(self)
        from diffnca.training.run import train

        return train(self)


@dataclass(frozen=True, kw_only=True)
class Distill(Run):
    """Make a student of a model that samples in a few steps; the same command takes a stopped run up again.

    Attributes:
        model: the teacher: a bundled model, a model file, a run's folder, or a hub id.
        steps: diffusion steps of the student; 0 leaves the walk as it is, to learn what guidance does.
        guidance: how far the teacher is led away from the errors of a weaker model, from 1 (not at all) to
            10; without it, the teacher's own choice, or 2 with --guide.
        guide: the weaker model, of the same images; without it, the teacher without its last cell steps.
        batch: crops per training step; without it, as the teacher was trained.
        learning_rate: peak learning rate.
    """

    verb: ClassVar = "distill"

    model: tyro.conf.Positional[str]
    steps: int = 4
    guidance: float | None = None
    guide: str | None = None
    batch: int | None = None
    learning_rate: float = 1e-3

    def run(self, console: Console) -> int:
        """Train the student; return the exit code."""
        check_data(self)
        from diffnca.training.run import distill

        return distill(self)


@dataclass(frozen=True)
class Convert:
    """Turn a checkpoint of the published code (model0.pth) into a model file; no pickled code is run.

    Attributes:
        source: the checkpoint.
        out: the file to write, ending in .safetensors.
        image_channels: channels of the images it was trained on; the checkpoint does not tell.
    """

    verb: ClassVar = "convert"

    source: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    image_channels: Literal[1, 3] = 3

    def run(self, console: Console) -> int:
        """Read a published checkpoint and write a model file; return the exit code."""
        from diffnca.models.file import write_model
        from diffnca.models.published import read_published_checkpoint

        check_target(self.out, (".safetensors",))
        network, config = read_published_checkpoint(self.source, self.image_channels)
        card = {"converted_from": self.source.name, "licence": "that of the converted checkpoint"}
        write_model(self.out, network.state_dict(), config, card)
        console.say(str(self.out))
        return 0


def check_data(command: Run) -> None:
    """Refuse a training without images.

    Raises:
        ValueError: there are none.
    """
    if not command.data:
        raise ValueError("--data is missing: give folders, zip files, images or slides")
