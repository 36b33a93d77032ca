"""The first weights of a training: of the bundled model with the smallest error on the images."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import NCAConfig
from diffnca.config.recipes import diff_nca
from diffnca.data.crops import crops
from diffnca.data.images import ImageSet
from diffnca.diffusion.velocity import velocity_error
from diffnca.models.file import bundled_models, find_model, load_denoiser, read_config
from diffnca.progress import Report, unseen
from diffnca.sampling.guidance import prepare
from diffnca.training.state import NETWORK_FIELDS, Run

AUTO, RANDOM = "auto", "none"
"""Stand for the bundled model with the smallest error, and for random weights."""

YOUNG_MINUTES, YOUNG_IMAGES = 20.0, 30_000
"""Largest budgets after which a network that predicts the clean image is ahead: it learns without grain."""

NUM_CROPS, NUM_LEVELS = 8, 4
"""Few are enough to rank models, which see equal crops and equal noise."""

CROP_PX = 96
LEARNING_RATE = 1e-3
"""Peak learning rate after a start from trained weights, unless the user gives another one."""


def candidates(config: Config) -> list[str]:
    """Return the bundled models that can begin the training of `config`: local cells that know all levels."""
    read = {name: read_config(path) for name, path in bundled_models().items()}
    return [
        name
        for name, each in read.items()
        if isinstance(each.model, NCAConfig)
        and each.model.family == "diff_nca"
        and each.model.image_channels == config.model.image_channels
        and each.sampling.visited is None
    ]


def errors(images: ImageSet, config: Config, report: Report = unseen) -> dict[str, float]:
    """Return the error of the velocity of each candidate on crops of the images, the smallest error first.

    Nothing is returned if the user has changed the network of the recipe: no weights fit it then.
    """
    if not is_as_in_recipe(config):
        return {}
    side = min(CROP_PX, int(images.sizes.min()))
    looked_at = crops(images, size=side, batch=NUM_CROPS, seed=0, step=0, flips=False, quarter_turns=False)
    pixels, found = torch.from_numpy(to_uint8(looked_at)).movedim(-1, 1), candidates(config)
    measured: dict[str, float] = {}
    for number, name in enumerate(found):
        report("looking for weights to begin with", float(number), float(len(found)))
        measured[name] = velocity_error(prepare(load_denoiser(name), torch.device("cpu")), pixels, NUM_LEVELS)
    return dict(sorted(measured.items(), key=lambda item: item[1]))


def is_as_in_recipe(config: Config) -> bool:
    """Return whether network, prediction and schedule of a configuration are those of `diff_nca`."""
    recipe = diff_nca()
    return all(getattr(config, name) == getattr(recipe, name) for name in NETWORK_FIELDS)


def from_random(config: Config) -> Config:
    """Return a training from random weights; with a small budget, the network predicts the clean image."""
    training = config.training
    is_young = (
        training.images <= YOUNG_IMAGES if training.minutes is None else training.minutes <= YOUNG_MINUTES
    )
    return replace(config, prediction="clean") if is_young and is_as_in_recipe(config) else config


def continued(config: Config, stored: Run) -> Config:
    """Return a training like that of `config`, of the network that a stored run began with."""
    if stored.start is not None:
        return begun_with(config, stored.start)
    return replace(config, prediction=stored.config.prediction) if is_as_in_recipe(config) else config


def begun_with(config: Config, start: str) -> Config:
    """Return a training like that of `config`, of the network of the model `start`."""
    found = read_config(find_model(start))
    config = replace(config, **{name: getattr(found, name) for name in NETWORK_FIELDS})
    if config.training.learning_rate != diff_nca().training.learning_rate:
        return config
    return with_fields(config, {"training.learning_rate": LEARNING_RATE})
