"""First weights from a model file, of a network that may differ in its colours or its given planes.

A gray network sees its image three times, as the colour network sees a gray image, and predicts the mean of
the three predictions. Channels that become free keep fresh weights. A network with more given planes predicts
what the network with fewer did: no cell takes account of the last planes before training.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.models.build import Generator, fill
from diffnca.models.file import load_weights, read_config, read_tensors

COLOURS = 3


def load_start(model: Generator, path: Path) -> None:
    """Copy the weights of a model file into `model`; refuse the weights of a network that does not fit."""
    config = read_config(path)
    stored, own = config.model, model.config.model
    if stored == own or not fits(config, model.config):
        return load_weights(model, path)
    assert isinstance(stored, NCAConfig)
    assert isinstance(own, NCAConfig)
    weights = transferred(read_tensors(path)[0], stored, own, model.network.state_dict())
    return fill(model.network, weights, str(path))


def fits(stored: Config, wanted: Config) -> bool:
    """Return whether stored weights can begin a network: equal cells, for gray images or with more planes.

    The planes of the stored network are the first ones of the other.
    """
    old, new = stored.model, wanted.model
    if not isinstance(old, NCAConfig) or not isinstance(new, NCAConfig):
        return False
    is_gray = (old.image_channels, new.image_channels) == (COLOURS, 1)
    is_gray = is_gray and old.fourier is None and old.made_channels == 0
    return (
        (is_gray or old.image_channels == new.image_channels)
        and _planes_fit(stored, wanted)
        and all(stage.modulation == "scale_shift" for stage in old.stages)
        and not any(stage.perceive_embedding or stage.weight_norm for stage in old.stages)
        and replace(old, image_channels=new.image_channels, given_channels=new.given_channels) == new
    )


def _planes_fit(stored: Config, wanted: Config) -> bool:
    """Return whether the planes that stored weights know are the first ones of a network."""
    if not stored.layout.is_used:
        return getattr(stored.model, "given_channels", 0) in (0, getattr(wanted.model, "given_channels", 0))
    known = _planes_of(stored)
    return known == _planes_of(wanted)[: len(known)]


def _planes_of(config: Config) -> list[tuple[str, str | int]]:
    """Return kind and name of each given plane, in their order."""
    layout, channels = config.layout, config.model.image_channels
    kinds: dict[str, Iterable[str | int]] = {
        "class": () if layout.made else layout.names,
        f"one of {channels} colours": range(channels + 1) if layout.coarse else (),
        "label": layout.labels,
        "style": layout.style_numbers(channels),
    }
    return [(kind, name) for kind, names in kinds.items() for name in names]


def transferred(
    weights: Mapping[str, Tensor], old: NCAConfig, new: NCAConfig, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of the network `new`: those of `old`, and `fresh` ones where it has none."""
    made = {}
    for name, weight in weights.items():
        stage, layer = name.split(".")[:2]
        count, own, all_seen = _widths(stage, fresh)
        places, known = _places_of(stage, old, new, count), _widths(stage, weights)[1] - count
        # what a cell perceives: given planes, the rest of its own state, what it perceives of its neighbours
        halves = 2 if stage == "fourier" else 1  # a spectrum has real and imaginary planes
        planes, state = torch.arange(own - count).reshape(halves, -1), own - count + places
        first, more = planes.tensor_split([known // halves], dim=1)
        kept = torch.cat([first.flatten(), state])
        seen = torch.cat([kept, own + torch.arange(count)])
        match layer:
            case "perceive" if weight.ndim > 1:
                made[name] = _summed(weight, places, fresh[name])
            case "expand" if weight.ndim > 1:
                made[name] = _summed(weight, seen, fresh[name])
                made[name][:, more.flatten()] = 0.0
            case "project":
                made[name] = _averaged(weight, kept, fresh[name])
            case "gate_perception":
                made[name] = _averaged(weight, torch.cat([seen, all_seen + seen]), fresh[name])
            case _:
                made[name] = weight
    return made


def _widths(stage: str, weights: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Return the channels of a state without planes and with them, and those of a perception."""
    names = (f"{stage}.{layer}" for layer in ("perceive.bias", "project.bias", "expand.weight"))
    bias, change, expand = (weights[name] for name in names)
    return len(bias), len(change), expand.shape[1]


def _places_of(stage: str, old: NCAConfig, new: NCAConfig, count: int) -> Int64[Tensor, " c"]:
    """Return where `count` channels of a state go, without planes: the image, the prediction, all others."""
    if stage == "fourier":  # never gray
        return torch.arange(count)
    patch = old.coarse.patch if stage == "coarse" and old.coarse is not None else old.patch
    width = new.drawn_channels * patch**2
    image = torch.arange(old.drawn_channels * patch**2) % width
    shown = [image] if stage == "coarse" else [image, width + image]
    others = width * len(shown) + torch.arange(count - sum(map(len, shown)))
    return torch.cat([*shown, others])


def _summed(weight: Tensor, places: Tensor, fresh: Tensor) -> Tensor:
    """Add up the columns (inputs) of equal place."""
    made = fresh.clone()
    made[:, places] = 0.0
    return made.index_add_(1, places, weight.to(made))


def _averaged(weight: Tensor, places: Tensor, fresh: Tensor) -> Tensor:
    """Average the rows (outputs) of equal place."""
    made = fresh.clone()
    made[places] = 0.0
    shares = 1.0 / torch.bincount(places)[places].to(made)
    return made.index_add_(0, places, weight.to(made) * shares.reshape(-1, *[1] * (weight.ndim - 1)))
