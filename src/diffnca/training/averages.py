"""Averages of the weights: one over a half-life, and some over powers of the images seen [1].

An average of relative width w weighs the weights after n of N images by (n / N) ** gamma, and gamma follows
from w. Its spread is w times N, however long the training is. Averages of a few widths, kept together, give
the average of any width between them: no width must be chosen before training.

[1] Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models", 2024 (section 3).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diffnca.config.model import TrainingConfig
from diffnca.errors import require
from diffnca.models.file import STATE_FILE, read_config, read_tensors
from diffnca.progress import Report, unseen

WARMUP_SHARE = 0.1
"""Largest half-life during warm-up, as a share of the images seen so far."""

HALFLIFE, POWER = "average.", "power."
"""Stand in a state before the tensors of the average over a half-life, and before the others."""


class Averages:
    """The averages of the weights of one network.

    Attributes:
        recent: the average over a half-life; the last weights without one.
        powers: the average of each relative width.
        width: the width that was chosen; `None` stands for the half-life.
    """

    def __init__(self, training: TrainingConfig, weights: Mapping[str, Tensor]) -> None:
        """Begin each average with `weights`."""
        self.training, self.recent = training, _copied(weights)
        self.width: float | None = None
        widths = () if training.ema == "none" else training.ema_widths
        self.powers = {width: _copied(weights) for width in widths}

    def update(self, weights: Mapping[str, Tensor], images_seen: int, batch: int) -> None:
        """Take in the `weights` after a step of `batch` images; `images_seen` came before."""
        move(self.recent, weights, ema_decay(self.training, images_seen, batch))
        for width, power in self.powers.items():
            move(power, weights, power_decay(width, images_seen, batch))

    def tensors(self) -> dict[str, Tensor]:
        """Return all averages by their names in a state."""
        named = {HALFLIFE: self.recent} | {_power(width): power for width, power in self.powers.items()}
        return {prefix + name: each for prefix, kept in named.items() for name, each in kept.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the averages of a state. A width that it lacks begins with the average over the half-life."""
        recent = under(HALFLIFE, tensors)
        _copy(self.recent, recent)
        for width, power in self.powers.items():
            _copy(power, under(_power(width), tensors) or recent)

    @property
    def widths(self) -> tuple[float, ...]:
        """Widths to choose among: the kept ones, and one between each two."""
        if not self.powers:
            return ()
        least, most = min(self.powers), max(self.powers)
        return tuple(round(float(w), 3) for w in np.geomspace(least, most, 2 * len(self.powers) - 1))

    @property
    def chosen(self) -> dict[str, Tensor]:
        """The average that model files hold."""
        return self.recent if self.width is None else self.of_width(self.width)

    @property
    def told(self) -> dict[str, float]:
        """What the card of a model says of the choice."""
        return {} if self.width is None else {"average_width": self.width}

    def choose(self, network: nn.Module, loss: Callable[[], float], report: Report = unseen) -> None:
        """Choose the average with which the loss of `network` is smallest; `network` keeps its weights."""
        own, losses = _copied(network.state_dict()), dict[float | None, float]()
        widths = (None, *self.widths)
        for number, self.width in enumerate(widths):
            report("choosing an average", number, len(widths))
            network.load_state_dict(self.chosen)
            losses[self.width] = loss()
        network.load_state_dict(own)
        self.width = min(losses, key=losses.__getitem__)

    def of_width(self, width: float) -> dict[str, Tensor]:
        """Return the average of a relative width, as a combination of those that are kept."""
        shares = combination(width, tuple(self.powers))
        kept = list(self.powers.values())
        return {
            name: sum((share * each[name] for share, each in zip(shares, kept, strict=True)), 0.0 * first)
            for name, first in kept[0].items()
        }


def ema_decay(training: TrainingConfig, images_seen: int, batch: int) -> float:
    """Return the factor of the old average after a batch of `batch` images; `images_seen` came before."""
    if training.ema == "none":
        return 0.0
    halflife = float(training.ema_halflife_images)
    if training.ema_warmup:
        halflife = min(halflife, WARMUP_SHARE * images_seen)
    return 0.0 if halflife <= 0.0 else float(0.5 ** (batch / halflife))


def power_decay(width: float, images_seen: int, batch: int) -> float:
    """Return the factor of the old average of a width ([1] section 3.1, for any batch)."""
    return float((images_seen / (images_seen + batch)) ** (exponent(width) + 1.0))


@cache
def exponent(width: float) -> float:
    """Return the power gamma of a relative width ([1] section 3.1)."""
    roots = np.roots([1.0, 7.0, 16.0 - width**-2, 12.0 - width**-2])
    return float(max(roots.real))


def combination(width: float, kept: Sequence[float]) -> list[float]:
    """Return shares of the `kept` averages, of sum 1, that come closest to the average of a width.

    The squared difference of the weights over the training is least ([1] section 3.2). The shares are exact
    for a width that is kept.
    """
    gammas = np.array([exponent(each) for each in kept])
    sums = np.add.outer(gammas, gammas) + 1.0
    overlaps = np.outer(gammas + 1.0, gammas + 1.0) / sums
    wanted = exponent(width)
    own = (gammas + 1.0) * (wanted + 1.0) / (gammas + wanted + 1.0)
    ones = np.ones((len(kept), 1))
    system = np.block([[overlaps, ones], [ones.T, np.zeros((1, 1))]])
    solved: list[float] = np.linalg.solve(system, np.append(own, 1.0))[:-1].tolist()
    return solved


def _power(width: float) -> str:
    """Return what stands in a state before the tensors of the average of a width."""
    return f"{POWER}{width:g}."


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in weights.items()}


def _copy(average: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Fill an average with the tensors of a state; raise `ValueError` if they are others."""
    if {name: kept[name].shape for name in kept} != {name: average[name].shape for name in average}:
        raise ValueError("average: other tensors")
    for name, value in kept.items():
        average[name].copy_(value)


@torch.no_grad()
def move(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Move each tensor of `average` in place towards the tensor of `weights` with an equal name."""
    for name, kept in average.items():
        kept.lerp_(weights[name].to(kept), 1.0 - decay)


def average_of_run(out: Path, width: float) -> dict[str, Tensor]:
    """Return the average of a relative width of the run in the folder `out`.

    Raises:
        ValueError: the run keeps no average so narrow or so wide.
    """
    path = out / STATE_FILE
    tensors, _ = read_tensors(path)
    training = read_config(path).training
    averages = Averages(training, under(HALFLIFE, tensors))
    is_kept = any(name.startswith(POWER) for name in tensors)
    require(is_kept, "width", width, f"of a run that keeps averages of several widths; {path} has none")
    least, most = min(averages.powers), max(averages.powers)
    require(least <= width <= most, "width", width, f"from {least} to {most}, the widths that {path} keeps")
    averages.restore(tensors)
    return averages.of_width(width)
