"""First weights from a model file; a network for gray images can begin with those of a colour network.

The gray network sees its image three times, as the colour network sees a gray image, and predicts the mean of
the three predictions. Channels that become free keep fresh weights.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from diffnca.config.networks import Model, NCAConfig
from diffnca.models.build import Generator, fill
from diffnca.models.file import load_weights, read_config, read_tensors

COLOURS = 3


def load_start(model: Generator, path: Path) -> None:
    """Copy the weights of a model file into `model`; refuse the weights of another network."""
    stored, own = read_config(path).model, model.config.model
    if stored == own or not fits_in_gray(stored, own):
        return load_weights(model, path)
    assert isinstance(stored, NCAConfig)
    weights = in_gray(read_tensors(path)[0], stored, model.network.state_dict())
    return fill(model.network, weights, str(path))


def fits_in_gray(colour: Model, gray: Model) -> bool:
    """Return whether `gray` is the network `colour` for gray images, of cells that know no frequencies."""
    return (
        isinstance(colour, NCAConfig)
        and colour.fourier is None
        and colour.image_channels == COLOURS
        and all(stage.modulation == "scale_shift" and not stage.perceive_embedding for stage in colour.stages)
        and replace(colour, image_channels=1) == gray
    )


def in_gray(
    weights: Mapping[str, Tensor], colour: NCAConfig, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of a gray network: those of a colour network, and `fresh` ones where it has none."""
    made = {}
    for name, weight in weights.items():
        stage, layer = name.split(".")[:2]
        places = _places(colour, stage)
        both = torch.cat([places, len(places) + torch.arange(len(places))])  # the state and its neighbours
        match layer:
            case "perceive" if weight.ndim > 1:
                made[name] = _summed(weight, places, fresh[name])
            case "expand" if weight.ndim > 1:
                made[name] = _summed(weight, both, fresh[name])
            case "project":
                made[name] = _averaged(weight, places, fresh[name])
            case "gate_perception":
                made[name] = _averaged(weight, torch.cat([both, len(both) + both]), fresh[name])
            case _:
                made[name] = weight
    return made


def _places(colour: NCAConfig, stage: str) -> Int64[Tensor, " c"]:
    """Return the channel of the gray state for each channel of the colour state."""
    first = colour.coarse if stage == "coarse" else None
    patch, channels = (colour.patch, colour.channels) if first is None else (first.patch, first.channels)
    pixels = torch.arange(patch**2)
    seen = pixels.repeat(COLOURS)
    images = seen if first is not None else torch.cat([seen, patch**2 + seen])  # noisy image, prediction
    groups = len(images) // len(seen)
    rest = groups * patch**2 + torch.arange(channels - len(images))
    return torch.cat([images, rest])


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
