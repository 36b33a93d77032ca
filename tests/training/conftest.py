"""Small runs of training: a network of a few cells, nothing compiled; of striped images, or of files."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffnca.config.model import Config, DataConfig, TrainingConfig
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.file import STATE_FILE, read_tensors
from diffnca.training.loop import Care, Trainer
from diffnca.training.options import RunOptions
from diffnca.training.session import training
from diffnca.training.state import Progress

BATCH = 4
CELL = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
QUIET = Care(checkpoint_seconds=1e9, sample_seconds=0.0)
CONFIG = Config(
    model=NCAConfig(channels=36, cell=CELL),
    training=TrainingConfig(batch=BATCH, precision="float32", compile="off"),
    data=DataConfig(crop=16),
)
"""A training on crops of 16 px."""


@pytest.fixture(scope="module")
def quick_look() -> Iterator[None]:
    """Let one small crop rank the bundled models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffnca.training.start.NUM_CROPS", 1)
        patch.setattr("diffnca.training.start.CROP_PX", 48)
        yield


@pytest.fixture
def options(given: RunOptions, tmp_path: Path) -> RunOptions:
    """What the file of tests gives a run, in a folder of the test."""
    return replace(given, out=tmp_path / "run")


@pytest.fixture(scope="module")
def config() -> Config:
    """What the run of a file of tests trains; a file may have another one."""
    return CONFIG


@pytest.fixture(scope="module")
def finished(given: RunOptions, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that stays as it is."""
    return training(replace(given, out=tmp_path_factory.mktemp("finished") / "run"), config).run().out


@pytest.fixture
def run(finished: Path, options: RunOptions) -> Path:
    """A finished run of which a test may do anything."""
    return shutil.copytree(finished, options.out)


def small_config(images: int, **changes: object) -> Config:
    choices = {"batch": BATCH, "warmup_images": 20, "precision": "float32", "compile": "off", **changes}
    model = NCAConfig(channels=8, cell=replace(CELL, update_probability=0.9))
    return Config(data=DataConfig(crop=16), model=model, training=TrainingConfig(images=images, **choices))


def stripes(step: int) -> Tensor:
    """Stripes of random phase: something to learn."""
    phase = torch.rand(BATCH, 1, 1, 1, generator=torch.Generator().manual_seed(step)) * 6.28
    wave = torch.sin(torch.arange(16.0) * 1.57 + phase)
    return wave.expand(BATCH, 3, 16, 16).contiguous()


def train(out: Path, config: Config, care: Care = QUIET, start: Path | None = None) -> Progress:
    out.mkdir(exist_ok=True)
    return Trainer(config, out, stripes, care, start).run()


def state_of(out: Path) -> dict[str, Tensor]:
    return read_tensors(out / STATE_FILE)[0]


def is_equal(one: Path, other: Path) -> bool:
    """Return whether two runs have the same state to the bit."""
    first, second = state_of(one), state_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


class Means:
    """Means of squares of pixels, in place of a trained network; the squares have these sides."""

    widths = (3, 3)

    def __init__(self, *sides: int) -> None:
        self.sides = sides

    def levels(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images, side) for side in self.sides]

    def to(self, device: torch.device) -> "Means":
        return self
