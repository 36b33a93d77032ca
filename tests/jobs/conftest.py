"""A small model for images of all sizes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffnca.config.model import Config
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_denoiser
from diffnca.models.file import write_model


def small(**cell: Any) -> Config:
    """Return a configuration of two small cell steps, which samples in three steps."""
    config = recipe_named("diff_nca")
    cells = replace(config.model.cell, num_cell_steps=2, hidden=24, **cell)
    model = replace(config.model, channels=24, cell=cells, coarse=None)
    return replace(config, model=model, sampling=replace(config.sampling, steps=3))


def write_small(path: Path, config: Config, **card: Any) -> str:
    """Write a model with fresh weights, disturbed so that it does something."""
    torch.manual_seed(0)
    network = build_denoiser(config).network.requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    write_model(path, network.state_dict(), config, card)
    return str(path)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of a small model."""
    return write_small(tmp_path_factory.mktemp("model") / "small.safetensors", small(), microns_per_px=0.5)
