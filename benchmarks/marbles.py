"""Draw simple pictures to learn: a marble of some colour, size and place, with a dark ring, on white.

A VNCA of few channels learns to grow those of one colour in half an hour on one core, and to heal them:

    python benchmarks/marbles.py marbles --hue 210
    diffnca train --recipe vnca_damage --data marbles --out marbles-vnca --minutes 30
        --data.crop 16 --data.no-flips --model.size 16 --model.start 16 --model.damage 8
        --model.latent 32 --model.hidden 64 --model.encoder-channels 16
        --model.num-cell-steps 24 --model.extra-cell-steps 24
        --training.learning-rate 0.001 --training.decay cosine --training.batch 16
    python benchmarks/regrow.py marbles-vnca --data marbles --out regrown.png
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

OVERSAMPLED = 8


@dataclass(frozen=True)
class Options:
    """How many, how large, and where."""

    out: tyro.conf.Positional[Path]
    """A folder, which is made."""
    count: int = 2000
    """Pictures."""
    size: int = 16
    """Side in px."""
    seed: int = 0
    """Of all of them."""
    hue: int | None = None
    """Colour of all of them, 0 to 359; without it, each has its own."""


def marble(random: np.random.Generator, size: int, hue: int | None) -> Image.Image:
    """Return one picture."""
    side = size * OVERSAMPLED
    image = Image.new("RGB", (side, side), "white")
    radius = random.uniform(0.3, 0.42) * side
    y, x = random.uniform(radius, side - radius, 2)
    hue = int(random.integers(360)) if hue is None else hue
    ring, fill = f"hsl({hue}, 80%, 25%)", f"hsl({hue}, 75%, 60%)"
    draw = ImageDraw.Draw(image)
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill, ring, round(radius / 4))
    shine = radius / 4
    draw.ellipse([x - 2 * shine, y - 2 * shine, x - shine / 2, y - shine / 2], "white")
    return image.resize((size, size), Image.Resampling.BOX)


def main(options: Options) -> None:
    """Write the pictures."""
    options.out.mkdir()
    random = np.random.default_rng(options.seed)
    for index in range(options.count):
        marble(random, options.size, options.hue).save(options.out / f"{index:05d}.png")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
