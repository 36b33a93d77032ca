"""First weights from a model file, of a network that may differ in its colours or its given planes.

A gray network sees its image three times, as the colour network sees a gray image, and predicts the mean of
the three predictions. Channels that become free keep fresh weights. A network with given planes predicts what
the network without planes did: no cell takes account of the planes before training.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from diffnca.config.networks import Model, NCAConfig
from diffnca.models.build import Generator, fill
from diffnca.models.file import load_weights, read_config, read_tensors

COLOURS = 3


def load_start(model: Generator, path: Path) -> None:
    """Copy the weights of a model file into `model`; refuse the weights of a network that does not fit."""
    stored, own = read_config(path).model, model.config.model
    if stored == own or not fits(stored, own):
        return load_weights(model, path)
    assert isinstance(stored, NCAConfig)
    assert isinstance(own, NCAConfig)
    weights = transferred(read_tensors(path)[0], stored, own, model.network.state_dict())
    return fill(model.network, weights, str(path))


def fits(old: Model, new: Model) -> bool:
    """Return whether weights of `old` can begin `new`: the same cells, for gray images or with planes."""
    if not isinstance(old, NCAConfig) or not isinstance(new, NCAConfig):
        return False
    is_gray = (old.image_channels, new.image_channels) == (COLOURS, 1) and old.fourier is None
    return (
        (is_gray or old.image_channels == new.image_channels)
        and old.given_channels in (0, new.given_channels)
        and all(stage.modulation == "scale_shift" for stage in old.stages)
        and not any(stage.perceive_embedding or stage.weight_norm for stage in old.stages)
        and replace(old, image_channels=new.image_channels, given_channels=new.given_channels) == new
    )


def transferred(
    weights: Mapping[str, Tensor], old: NCAConfig, new: NCAConfig, fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the weights of the network `new`: those of `old`, and `fresh` ones where it has none."""
    made = {}
    for name, weight in weights.items():
        stage, layer = name.split(".")[:2]
        state = _channels_of(stage, old, new, len(weights[f"{stage}.project.bias"]))
        near = len(fresh[f"{stage}.project.bias"])  # what a cell perceives: the state, then its neighbours
        kept = torch.arange(len(state.places))
        both = torch.cat([state.places, near + kept])
        unseen = torch.cat([state.planes, torch.arange(near + len(kept), 2 * near)])
        match layer:
            case "perceive":
                made[name] = fresh[name].clone()
                is_matrix = weight.ndim > 1
                rows = _summed(weight, state.places, fresh[name][kept], state.planes) if is_matrix else weight
                made[name][kept] = rows.to(made[name])
            case "expand" if weight.ndim > 1:
                made[name] = _summed(weight, both, fresh[name], unseen)
            case "project":
                made[name] = _averaged(weight, state.places, fresh[name])
            case "gate_perception":
                made[name] = _averaged(weight, torch.cat([both, 2 * near + both]), fresh[name])
            case _:
                made[name] = weight
    return made


class _Channels(NamedTuple):
    """The channel of the new state for each channel of the old state, and the channels of new planes."""

    places: Int64[Tensor, " c"]
    planes: Int64[Tensor, " k"]


def _channels_of(stage: str, old: NCAConfig, new: NCAConfig, count: int) -> _Channels:
    """Return where the `count` channels of a state go: the image, the planes, the prediction, all others."""
    if stage == "fourier":  # real parts, then imaginary parts
        half, size = _channels(old, new, 1, count // 2, has_prediction=False), new.spectrum_channels
        return _Channels(*(torch.cat([each, size + each]) for each in half))
    if stage == "coarse":
        assert old.coarse is not None
        return _channels(old, new, old.coarse.patch, count, has_prediction=False)
    return _channels(old, new, old.patch, count, has_prediction=True)


def _channels(old: NCAConfig, new: NCAConfig, patch: int, count: int, has_prediction: bool) -> _Channels:
    width, first = new.image_channels * patch**2, new.seen_channels(patch)
    image = torch.arange(old.image_channels * patch**2) % width
    known = width + torch.arange(old.given_channels)
    shown = [image, known, *([first + image] if has_prediction else [])]
    others = first + width * has_prediction + torch.arange(count - sum(map(len, shown)))
    return _Channels(torch.cat([*shown, others]), torch.arange(width + len(known), first))


def _summed(weight: Tensor, places: Tensor, fresh: Tensor, unseen: Tensor) -> Tensor:
    """Add up the columns (inputs) of equal place; the `unseen` columns are zero."""
    made = fresh.clone()
    made[:, places] = 0.0
    made[:, unseen] = 0.0
    return made.index_add_(1, places, weight.to(made))


def _averaged(weight: Tensor, places: Tensor, fresh: Tensor) -> Tensor:
    """Average the rows (outputs) of equal place."""
    made = fresh.clone()
    made[places] = 0.0
    shares = 1.0 / torch.bincount(places)[places].to(made)
    return made.index_add_(0, places, weight.to(made) * shares.reshape(-1, *[1] * (weight.ndim - 1)))
