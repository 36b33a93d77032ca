"""A look at images before training: what they hold, how a training would begin, how fast it would be."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import Config
from diffnca.data.crops import crops
from diffnca.data.images import ImageSet
from diffnca.data.layouts import coloured
from diffnca.data.survey import Survey, survey
from diffnca.engine.learning import learn_natively
from diffnca.files import OWN
from diffnca.formats.png import side_by_side, write_png
from diffnca.models.build import build_model
from diffnca.progress import Report, unseen
from diffnca.sampling.layouts import shown_layout
from diffnca.training.objectives import Batch, OwnLoss
from diffnca.training.options import RunOptions
from diffnca.training.start import chosen, conditioned, errors, images_of, suited
from diffnca.training.steps import precision_of

SHEET_CROPS = 25
TIMED_STEPS = 3


@dataclass(frozen=True)
class Preview:
    """What a training on some images would be.

    Attributes:
        config: the training, with the choices that the images decide.
        images: the images as training would see them.
        facts: facts about these images.
        errors: errors of the bundled models on the images, the smallest first.
        crops_per_second: speed here; code that torch compiles, where it must, is faster.
    """

    config: Config
    images: ImageSet
    facts: Survey
    errors: dict[str, float]
    crops_per_second: float

    def write_sheet(self, path: Path) -> None:
        """Write a sheet of crops as training would see them, and beside it one of their maps."""
        shown = crops(self.images, size=self.config.data.crop, batch=SHEET_CROPS, seed=0, step=0)
        channels, legend = self.images.channels, self.config.layout
        pictures = [to_uint8(shown[:, :channels])]
        if legend.classes:
            numbers = shown_layout(shown[:, channels:][:, : len(legend.classes)]).numbers.numpy()
            pictures.append(coloured(numbers, legend))
        write_png(path, side_by_side(*pictures), {f"{OWN}look": "training crops"})


def preview(options: RunOptions, config: Config, report: Report = unseen) -> Preview:
    """Look at the images of a training of `config`, with their maps and labels; write nothing."""
    config = replace(config, data=options.scaled(config.data))
    config = suited(conditioned(config, options), options, decides_colours=True)
    images = images_of(options, config, report)
    measured = errors(images, config, report)
    _, config = chosen(config, measured)
    report("timing a few steps", 0.0, 0.0)
    return Preview(config, images, survey(images), measured, _speed(config, images))


def _speed(config: Config, images: ImageSet) -> float:
    """Return how many crops a second training sees here, without code that torch compiles."""
    data, training, device = config.data, config.training, torch.device("cpu")
    model = build_model(config)
    dtype = precision_of(training, device)
    if training.compile == "auto":
        learn_natively(model.network.compiled_parts(), dtype)
    objective = OwnLoss(model, device)
    shown = crops(images, size=data.crop, batch=training.batch, seed=0, step=0)
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        started = time.perf_counter()
        objective.player.optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = objective.loss("model", Batch.of(shown, config, torch.Generator().manual_seed(0)))
        loss.backward()
        objective.player.optimizer.step()
        seconds.append(time.perf_counter() - started)
    return training.batch / float(np.median(seconds[1:]))
