"""Small runs of training: striped images, a network of a few cells, nothing compiled."""

from pathlib import Path

import torch
from torch import Tensor

from diffnca.config.model import Config, TrainingConfig
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.models.file import STATE_FILE, read_tensors
from diffnca.training.loop import Care, Trainer
from diffnca.training.state import Progress

BATCH = 4
CELL = CellConfig(
    hidden=16, num_cell_steps=2, update_probability=0.9, embedding_width=8, embedding_channels=8
)
QUIET = Care(checkpoint_seconds=1e9, sample_seconds=0.0)


def small_config(images: int, **changes: object) -> Config:
    choices = {"batch": BATCH, "warmup_images": 20, "precision": "float32", "compile": "off", **changes}
    return Config(model=NCAConfig(channels=8, cell=CELL), training=TrainingConfig(images=images, **choices))


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
