"""The real images of a table: all rows train on the first part; no row sees the held-out part."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from diffnca.comparison.terms import MIN_IMAGES, Terms
from diffnca.config.model import Config
from diffnca.data.images import images_for
from diffnca.evaluation.metrics.features import FeatureExtractor
from diffnca.evaluation.scores import Evaluation, Protocol, evaluate
from diffnca.evaluation.selections import Selection, count_crops, crops
from diffnca.progress import Report


@dataclass(frozen=True)
class RealSelections:
    """The real images of all rows, and the number of unusable files (`left_out`)."""

    training: Selection
    held_out: Selection
    fingerprint: str
    left_out: int


def real_selections(config: Config, terms: Terms, report: Report) -> RealSelections:
    """Return the real images, split as in the trainings; refuse too few of them."""
    data, images = config.data, images_for(config, terms.data, report=report)
    training, held_out = images.split(data.validation, data.split_seed)
    num_training, num_held_out = (count_crops(each, data.crop) for each in (training, held_out))
    if num_held_out < MIN_IMAGES:
        raise ValueError(
            f"--data: holds out {num_held_out} images or crops of {data.crop} px; at least {MIN_IMAGES} are "
            "needed to compare with; give more images"
        )
    if terms.n > num_training:
        raise ValueError(
            f"--n {terms.n}: must be at most {num_training}, as many images as there are to train on"
        )
    return RealSelections(
        training=crops(training, num_training, data.crop),
        held_out=crops(held_out, min(terms.n, num_held_out), data.crop),
        fingerprint=images.fingerprint,
        left_out=len(images.skipped),
    )


def real_score(real: RealSelections, extractor: FeatureExtractor, terms: Terms, report: Report) -> Evaluation:
    """Measure training images in the way of generated images."""
    index = torch.arange(terms.n) * len(real.training) // terms.n
    selection = Selection(real.training.images[index], real.training.pictures[index])
    protocol = Protocol(split="held out")
    return evaluate(selection, real.held_out, extractor, cache=terms.cache, protocol=protocol, report=report)
