"""A small segmenter, which learns from images and their masks where glands (or other things) stand.

It is the `UNet2DModel` of diffusers, without attention, on squares of 2x2 px; the level of noise is always 0.
Crops are mirrored, turned by quarters, and changed in colour. A file of weights says how they were trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.random import Generator
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from diffnca.data.images import ImageSet
from diffnca.data.sources import stem_of

FOLD = 2
WARM_UP = 0.1


@dataclass(frozen=True)
class Example:
    """An image with the share of the things in each of its pixels.

    Attributes:
        name: name of the image.
        image: y x 3, uint8.
        share: y x, uint8, where 255 is all of a pixel.
    """

    name: str
    image: np.ndarray
    share: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """Where the things are, as y x bool."""
        return self.share >= 128


@dataclass(frozen=True)
class Lesson:
    """How the segmenter learns."""

    crops: int = 12_000
    """Crops that it sees; 12,000 take about six minutes of a quiet core."""
    batch: int = 8
    """Crops of a step."""
    crop_px: int = 96
    """Side of a crop in px, or the shorter side of a smaller image; a multiple of 8 is taken."""
    learning_rate: float = 0.003
    """The largest learning rate; it rises over a tenth of the steps, and falls as a cosine."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Channels of the levels; each level halves the sides. Multiples of 8."""
    jitter: float = 0.12
    """Standard deviation of the gain and the offset of each colour, for images in [0, 1]."""
    synthetic: float = 0.5
    """Share of synthetic pairs in a step, where there are some."""


@dataclass(frozen=True)
class Segmenter:
    """A trained segmenter."""

    network: UNet2DModel

    @torch.inference_mode()
    def found(self, image: np.ndarray) -> np.ndarray:
        """Return where the things are in an image, as y x bool."""
        height, width = image.shape[:2]
        unit = _unit(self.network.config.block_out_channels)
        below, right = (-side % unit for side in (height, width))
        padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="symmetric")
        logits = _logits(self.network, _tensor(padded / 255.0)[None])
        return logits[0, 0, :height, :width].numpy() > 0.0


def examples_of(images: ImageSet) -> list[Example]:
    """Return labelled images as examples: the share of class 1, and of what it encloses of class 2."""
    return [
        Example(stem_of(name), labelled[..., : images.channels], _share(labelled[..., images.channels :]))
        for name, labelled in zip(images.names, map(images.labelled, range(len(images))), strict=True)
    ]


def _share(planes: np.ndarray) -> np.ndarray:
    share: np.ndarray = planes[..., 1]
    if planes.shape[2] > 2:
        is_inside = ndimage.binary_fill_holes(share >= 128) & (share < 128)
        share = share + np.minimum(np.where(is_inside, planes[..., 2], 0), 255 - share)
    return share


def dice(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return how far two masks agree: twice what both hold, over the sum of what each holds."""
    both, total = int((found & wanted).sum()), int(found.sum() + wanted.sum())
    return 2 * both / total if total else 1.0


def segmenter(
    path: Path, lesson: Lesson, real: Sequence[Example], made: Sequence[Example] = (), seed: int = 0
) -> Segmenter:
    """Return the segmenter in a file; train it first, if the file does not exist.

    Raises:
        ValueError: the segmenter in the file was trained in another way.
    """
    told = json.dumps({**asdict(lesson), "seed": seed, "real": _digest(real), "made": _digest(made)})
    if path.is_file():
        with safe_open(path, "pt") as file:
            known = (file.metadata() or {}).get("lesson")
        if known != told:
            raise ValueError(f"{path}: was trained with {known}, not {told}; give another folder")
        network = _network(lesson.channels)
        network.load_state_dict(load_file(path))
    else:
        network = _learned(lesson, real, made, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: weight.contiguous() for name, weight in network.state_dict().items()}
        save_file(state, path, {"lesson": told})
    return Segmenter(network.eval())


def _learned(lesson: Lesson, real: Sequence[Example], made: Sequence[Example], seed: int) -> UNet2DModel:
    torch.manual_seed(seed)
    network = _network(lesson.channels)
    random, steps = np.random.default_rng(seed), max(lesson.crops // lesson.batch, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lesson.learning_rate, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step / steps))
    for _ in range(steps):
        images, shares = _batch(lesson, real, made, random)
        loss = _loss(_logits(network, images), shares)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return network


def _rate(done: float) -> float:
    return min(done / WARM_UP, 1.0) * (0.5 + 0.5 * math.cos(math.pi * done)) + 0.01


def _loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the cross entropy, and what is missing to a Dice of 1."""
    chances = logits.sigmoid()
    overlap = 2 * (chances * shares).sum() / (chances.sum() + shares.sum() + 1e-6)
    return functional.binary_cross_entropy_with_logits(logits, shares) + 1 - overlap


def _batch(
    lesson: Lesson, real: Sequence[Example], made: Sequence[Example], random: Generator
) -> tuple[Tensor, Tensor]:
    num_made = round(lesson.batch * lesson.synthetic) if made else 0
    of = [real] * (lesson.batch - num_made) + [made] * num_made
    examples = [each[random.integers(len(each))] for each in of]
    unit = _unit(lesson.channels)
    room = min(lesson.crop_px, *(side for each in examples for side in each.share.shape))
    crops = [_crop(each, room // unit * unit, lesson.jitter, random) for each in examples]
    return torch.stack([image for image, _ in crops]), torch.stack([share for _, share in crops])


def _crop(example: Example, side: int, jitter: float, random: Generator) -> tuple[Tensor, Tensor]:
    """Return a crop at a random place, mirrored and turned at random, in other colours; and its shares."""
    top, left = (random.integers(size - side + 1) for size in example.share.shape)
    both = np.concatenate([example.image, example.share[..., None]], axis=2)[
        top : top + side, left : left + side
    ]
    both = np.rot90(both[:, ::-1] if random.integers(2) else both, random.integers(4)) / 255.0
    gain, offset = 1.0 + jitter * random.standard_normal(3), 0.5 * jitter * random.standard_normal(3)
    image = np.clip((both[..., :3] - 0.5) * gain + 0.5 + offset, 0.0, 1.0)
    return _tensor(image), _tensor(both[..., 3:])


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)).movedim(-1, 0)


def _logits(network: UNet2DModel, images: Tensor) -> Tensor:
    squares = functional.pixel_unshuffle(2.0 * images - 1.0, FOLD)
    return functional.pixel_shuffle(network(squares, 0).sample, FOLD)


def _unit(channels: Sequence[int]) -> int:
    """Return of what number sides must be multiples."""
    return FOLD * 2 ** (len(channels) - 1)


def _network(channels: tuple[int, ...]) -> UNet2DModel:
    return UNet2DModel(
        in_channels=3 * FOLD**2,
        out_channels=FOLD**2,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) * len(channels),
        up_block_types=("UpBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
    )


def _digest(examples: Sequence[Example]) -> str:
    """Return a short hash of examples."""
    digest = sha256()
    for each in examples:
        digest.update(each.image.tobytes() + each.share.tobytes())
    return digest.hexdigest()[:16]
