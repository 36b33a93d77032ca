"""A discriminator on frozen features: what it sees of an image, its heads, its memory and its loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.training.expressions import EXPRESSIONS, face_expressions
from diffnca.training.features import FEATURES, Features, efficientnet_lite2

WIDTH = 64
"""Channels of a head."""

MEMORY = 64
"""Real and made images, each, whose features are remembered."""

SPREAD, LEAST_VARIANCE = 3.0, 1e-6
"""Factor that brings the spread of a batch to the size of features; the variance where its slope ends."""

PLACES, WHOLE = 8, 4
"""Squares along a side of an image whose mean colours are seen: each as a place, and all at once."""

NETWORKS: dict[str, Callable[[], Features]] = {
    FEATURES: efficientnet_lite2,
    EXPRESSIONS: face_expressions,
}
"""The frozen networks by the names that cards of models give them."""


@dataclass(frozen=True)
class View:
    """What a discriminator sees by one frozen network.

    Attributes:
        network: its name in `NETWORKS`.
        enlarged: how many times as large the network sees an image.
    """

    network: str
    enlarged: float = 1.0


@dataclass(frozen=True)
class Look:
    """What a discriminator sees of an image, and how the student learns from it.

    Attributes:
        views: what it sees.
        all_calls: whether gradients pass through all calls, or through the last call alone.
        weight: how much looking real counts by default, next to the error of the distillation.
        learning_rate: the default peak rate of the student.
    """

    views: tuple[View, ...]
    all_calls: bool
    weight: float
    learning_rate: float

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks, view by view."""
        return tuple(view.network for view in self.views)

    def loaded(self) -> tuple[Features, ...]:
        """Return the networks, view by view."""
        return tuple(NETWORKS[name]() for name in self.networks)


FORMS = View(FEATURES, enlarged=3.0)

LOOKS = {
    "features": Look((View(FEATURES),), all_calls=False, weight=0.002, learning_rate=1.2e-4),
    "forms": Look((FORMS,), all_calls=True, weight=0.015, learning_rate=2e-4),
    "faces": Look((FORMS, View(EXPRESSIONS)), all_calls=True, weight=0.3, learning_rate=3e-4),
}
"""The looks by the values of `--against`."""


class Head(nn.Module):
    """A score for each place of a level, above 0 for real, from all its features and their spread."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width + 1, WIDTH, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 1, 1)
        )

    def forward(self, level: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return the scores of the places of a level of a batch of images."""
        scores: Tensor = self.layers(torch.cat([level, spread(level)], dim=1))
        return scores


def spread(level: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return how far the images of a batch differ at each place: images that are all alike have 0."""
    variance = level.var(0, correction=0, keepdim=True)
    deviation = (variance + LEAST_VARIANCE).sqrt().mean(1, keepdim=True)
    return SPREAD * deviation.expand(len(level), -1, -1, -1)


def colour_widths(channels: int) -> tuple[int, int]:
    """Return the widths of the levels that `colours` returns."""
    return channels, channels * WHOLE**2


def colours(images: Float[Tensor, "b c h w"]) -> list[Tensor]:
    """Return the coarse colours of images, twice as strong: 8x8 places, and one place with all of 4x4."""
    whole = F.adaptive_avg_pool2d(images, WHOLE).flatten(1)[..., None, None]
    return [2.0 * F.adaptive_avg_pool2d(images, PLACES), 2.0 * whole]


class Memory(nn.Module):
    """The features of the last real and made images, as a part of the discriminator: a checkpoint holds them.

    `shapes` are those of the levels of an image.
    """

    count: Tensor

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.kinds = [[f"{kind}{level}" for level in range(len(shapes))] for kind in ("real", "made")]
        for names in self.kinds:
            for name, shape in zip(names, shapes, strict=True):
                self.register_buffer(name, torch.zeros(MEMORY, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def add(self, real: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Remember the levels of images, instead of the oldest ones."""
        number = min(len(real[0]), MEMORY)
        places = (int(self.count) + torch.arange(number)) % MEMORY
        for names, levels in zip(self.kinds, (real, made), strict=True):
            for name, level in zip(names, levels, strict=True):
                self.get_buffer(name)[places] = level[:number]
        self.count += number

    def drawn(self, number: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Return the levels of random real and made images, `number` of each."""
        known = min(int(self.count), MEMORY)
        real, made = torch.randint(known, (2, number), generator=generator)
        both = zip(self.kinds, (real, made), strict=True)
        found = [[self.get_buffer(name)[places] for name in names] for names, places in both]
        return found[0], found[1]


def hinge(real: list[Tensor], made: list[Tensor]) -> Float[Tensor, ""]:
    """Return the loss of the discriminator, 0 if scores are above 1 for real and below -1 for made images."""
    losses = [F.relu(1.0 - r).mean() + F.relu(1.0 + m).mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def unreality(made: list[Tensor]) -> Float[Tensor, ""]:
    """Return the loss of the student: the mean of the scores of its images over levels, negated."""
    return -torch.stack([scores.mean() for scores in made]).mean()
