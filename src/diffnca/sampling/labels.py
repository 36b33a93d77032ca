"""Labels of new images: names that a model has learnt, as constant planes after all its other planes."""

from collections.abc import Sequence
from typing import Any

import torch

from diffnca.config.model import Config
from diffnca.diffusion.walk import Planes
from diffnca.errors import require
from diffnca.sampling.constants import Constants


def labelled(planes: Planes | None, label: str | Sequence[str] | None, config: Config) -> Planes | None:
    """Return the planes of a map with those of a label, or of the label of each image.

    Return `planes` without a label, and for a model that knows no labels, next to one that does. A model that
    makes maps sees no map.
    """
    names, planes = config.layout.labels, None if config.layout.made else planes
    if label is None or not names:
        return planes
    own = [names.index(each) for each in ([label] if isinstance(label, str) else label)]
    count = config.layout.num_map_planes(config.model.image_channels)
    return Constants(torch.eye(len(names))[own], planes, count)


def check_label(label: Any, images: int, *configs: Config) -> None:
    """Refuse a label that a model does not know, and any label if no model knows labels.

    `label` is one for all images, or a sequence of one for each of so many `images`.
    """
    if label is None:
        return
    told = [label] if isinstance(label, str) else list(label)
    if not isinstance(label, str) and len(told) != images:
        raise ValueError(f"label of {len(told)} names: must be one, or one for each of {images} images")
    knowing = [config for config in configs if config.layout.labels]
    if not knowing:
        name = configs[0].name
        raise ValueError(f"label: must be left out for the model {name}, which was trained without labels")
    for config in knowing:
        for each in told:
            names = config.layout.labels
            require(each in names, "label", each, f"one of the labels of {config.name}: {', '.join(names)}")
