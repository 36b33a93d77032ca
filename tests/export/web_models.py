"""Small models with random weights, of the kinds that a page runs."""

from dataclasses import replace
from pathlib import Path

import torch

from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, SamplingConfig
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.models.build import build_denoiser
from diffnca.models.file import write_model

CELL = CellConfig(hidden=16, num_cell_steps=2, dilations=(1, 2), embedding_width=8, embedding_channels=8)
NETWORK = NCAConfig(
    patch=2, channels=30, cell=CELL, coarse=CoarseConfig(4, 64, 4, replace(CELL, num_cell_steps=1))
)
STUDENT = SamplingConfig("ddim", 3, (299, 224, 99))
PLAIN = Config("plain", NETWORK, sampling=STUDENT)
DRAWN = replace(
    PLAIN,
    name="drawn",
    model=replace(NETWORK, given_channels=3),
    layout=LayoutConfig(("stroma", "gland", "white")),
)
RARE = replace(
    PLAIN, name="rare", model=replace(NETWORK, coarse=None, cell=replace(CELL, update_probability=0.5))
)
RARE_CELL = replace(CELL, update_probability=0.5)
WAVES = replace(
    PLAIN,
    name="waves",
    model=NCAConfig(
        "fourier_diff_nca",
        patch=4,
        channels=100,
        cell=RARE_CELL,
        fourier=FourierConfig(
            window=4, trained_px=32, cell=replace(RARE_CELL, positions="pixels", padding="zeros")
        ),
    ),
)
SMALL = (DRAWN, PLAIN, RARE, WAVES)
OWN = tuple(config.name for config in SMALL)
EIGHT = replace(WAVES, name="eight")


def write_small(folder: Path, config: Config) -> Path:
    """Write a model with random weights that are no larger than those of trained ones."""
    torch.manual_seed(0)
    denoiser, path = build_denoiser(config), folder / f"{config.name}.safetensors"
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    write_model(path, denoiser.network.state_dict(), config, {}, torch.float16)
    return path
