"""The first weights of a training: those of the bundled model with the smallest error on the user's images."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.data.crops import crops
from diffnca.data.images import ImageSet
from diffnca.diffusion.velocity import velocity_error
from diffnca.sampling.guidance import prepare
from diffnca.models.file import bundled_models, load_denoiser, read_config
from diffnca.progress import Report, unseen

NUM_CROPS = 8
"""Crops to look at: the errors of two models on equal crops and noise differ by much less than the crops do."""

CROP_PX = 96


def candidates(config: Config) -> dict[str, Config]:
    """Return the bundled models that can begin the training of `config`: local cells that know all levels."""
    read = {name: read_config(path) for name, path in bundled_models().items()}
    return {
        name: each
        for name, each in read.items()
        if isinstance(each.model, NCAConfig)
        and each.model.family == config.model.family == "diff_nca"
        and each.model.image_channels == config.model.image_channels
        and each.sampling.visited is None
    }


def errors(images: ImageSet, config: Config, report: Report = unseen) -> dict[str, float]:
    """Return the error of the velocity of each candidate on crops of the images, the smallest error first."""
    side = min(CROP_PX, int(images.sizes.min()))
    looked_at = crops(images, size=side, batch=NUM_CROPS, seed=0, step=0, flips=False, quarter_turns=False)
    pixels = ((looked_at + 1.0) * 127.5).round().to(torch.uint8)
    found = candidates(config)
    measured: dict[str, float] = {}
    for number, name in enumerate(found):
        report("looking for weights to begin with", float(number), float(len(found)))
        measured[name] = velocity_error(prepare(load_denoiser(name), "cpu"), pixels, NUM_LEVELS)
    return dict(sorted(measured.items(), key=lambda item: item[1]))


def begun_with(config: Config, start: str) -> Config:
    """Return a training like that of `config`, of the network of the bundled model `start`."""
    found = read_config(bundled_models()[start])
    return replace(config, model=found.model, prediction=found.prediction, schedule=found.schedule)
