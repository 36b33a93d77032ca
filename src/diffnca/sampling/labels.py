"""Labels of new images: names that a model has learnt, as constant planes after all its other planes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from diffnca.config.model import Config
from diffnca.diffusion.walk import Planes
from diffnca.errors import require, shown
from diffnca.sampling.arguments import number
from diffnca.sampling.constants import Constants

Told = str | Mapping[str, float]
"""A label, or a mix of labels: the share of each."""


def labelled(planes: Planes | None, label: Told | Sequence[Told] | None, config: Config) -> Planes | None:
    """Return the planes of a map with those of a label, or of the label of each image.

    Return `planes` without a label, and for a model that knows no labels, next to one that does. A model that
    makes maps sees no map.
    """
    names, planes = config.layout.labels, None if config.layout.made else planes
    if label is None or not names:
        return planes
    shares = [[_shares_of(each).get(name, 0.0) for name in names] for each in _each_of(label)]
    count = config.layout.num_map_planes(config.model.image_channels)
    return Constants(torch.tensor(shares, dtype=torch.float32), planes, count)


def mixed(label: Told | Sequence[Told] | None, shares: tuple[float, ...]) -> Told | Sequence[Told] | None:
    """Return a mix of two labels for each share of the way between them; any other label as it is."""
    if label is None or isinstance(label, str | Mapping) or len(_each_of(label)) != 2:
        return label
    one, other = map(_shares_of, _each_of(label))
    names = dict.fromkeys((*one, *other))
    return [
        {name: (1.0 - share) * one.get(name, 0.0) + share * other.get(name, 0.0) for name in names}
        for share in shares
    ]


def check_label(label: Any, images: int, *configs: Config) -> None:
    """Refuse a label that a model does not know, and any label if no model knows labels.

    `label` is one for all images, or a sequence of one for each of so many `images`.
    """
    if label is None:
        return
    told = _each_of(label)
    for share in (share for each in told if isinstance(each, Mapping) for share in each.values()):
        number("label", share)
    if not isinstance(label, str | Mapping) and len(told) != images:
        raise ValueError(f"label of {len(told)} names: must be one, or one for each of {images} images")
    knowing = [config for config in configs if config.layout.labels]
    if not knowing:
        raise ValueError("label: must be left out for a model that was trained without labels")
    for config in knowing:
        for each in (name for one in told for name in _shares_of(one)):
            names = config.layout.labels
            require(each in names, "label", each, f"one of the labels of the model: {', '.join(names)}")


def _each_of(label: Any) -> list[Told]:
    """Return a label, or the label of each image, as a list; refuse what is no label."""
    is_list = isinstance(label, Iterable) and not isinstance(label, str | Mapping)
    told = list(label) if is_list and getattr(label, "ndim", 1) == 1 else [label]
    if not all(isinstance(each, str | Mapping) for each in told):
        raise ValueError(f"label={shown(label)}: must be a name, or a list of one name for each image")
    return told


def _shares_of(told: Told) -> Mapping[str, float]:
    return {told: 1.0} if isinstance(told, str) else told
