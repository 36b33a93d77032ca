"""Does the colour drift over a large texture? The spread of block means, in generated and in real pictures.

A picture is cut into blocks, and the mean colour of each is taken. Their standard deviation within a picture
(root mean square over the three channels, in levels of 255) is what the eye sees as patches of other stain;
that of the means of whole pictures tells how far pictures are apart. Example:

    python benchmarks/drift.py pathology --data slides/ --reduce 2 --max-background 0.2 --even-px 0 64 128

Blocks that real pictures are too small for are measured in the generated ones alone.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from diffnca import generate, load
from diffnca.canvas.pixels import to_uint8
from diffnca.data import open_images


@dataclass(frozen=True)
class Options:
    """What to compare."""

    models: tyro.conf.Positional[tuple[str, ...]]
    """Texture models."""
    data: Path
    """Real pictures: a folder or a zip file."""
    reduce: int = 1
    """Reduce them by this factor (Lanczos)."""
    max_background: float = 1.0
    """Leave out pictures with a larger share of near-white pixels."""
    blocks: tuple[int, ...] = (32, 64, 128, 256)
    """Sides of the blocks in px."""
    side: int = 1024
    """Height and width of the generated pictures in px."""
    num_samples: int = 2
    """Generated pictures of each model."""
    even_px: tuple[int, ...] = ()
    """Make the pictures with these sides of squares that start with one mean; none is the model's choice."""
    threads: int = 2
    """Threads to compute with."""


def block_means(picture: np.ndarray, side: int) -> np.ndarray:
    """Return the mean colours of the whole blocks in a picture (y x c), one in each row."""
    (rows, columns), channels = (size // side for size in picture.shape[:2]), picture.shape[2]
    blocks = picture[: rows * side, : columns * side].astype(np.float64)
    return blocks.reshape(rows, side, columns, side, channels).mean(axis=(1, 3)).reshape(-1, channels)


def spread(pictures: list[np.ndarray], side: int) -> float | None:
    """Return the standard deviation of block means within a picture, over all of at least four blocks."""
    means = [block_means(picture, side) for picture in pictures]
    variances = [each.var(axis=0, ddof=1).mean() for each in means if len(each) >= 4]
    return float(np.sqrt(np.mean(variances))) if variances else None


def row(name: str, pictures: list[np.ndarray], blocks: tuple[int, ...]) -> str:
    """Return a line of the table."""
    whole = np.stack([picture.reshape(-1, picture.shape[-1]).mean(axis=0) for picture in pictures])
    apart = float(np.sqrt(whole.var(axis=0, ddof=1).mean()))
    numbers = [spread(pictures, side) for side in blocks]
    cells = ["-" if number is None else f"{number:.1f}" for number in numbers]
    return f"| {name} | {len(pictures)} | {' | '.join(cells)} | {apart:.1f} |"


def main(options: Options) -> None:
    """Print a table."""
    torch.set_num_threads(options.threads)
    sides = " | ".join(f"{side} px" for side in options.blocks)
    print(f"| | pictures | {sides} | whole pictures |\n|{'---|' * (len(options.blocks) + 3)}")
    choice = {"reduce": options.reduce, "max_background": options.max_background}
    real = open_images((options.data,), **choice)
    print(row("real", [real[index] for index in range(len(real))], options.blocks), flush=True)
    for name, even_px in itertools.product(options.models, options.even_px or (None,)):
        model, size = load(name), {"height": options.side, "width": options.side, "even_px": even_px}
        made = [to_uint8(generate(model, seed=seed, **size))[0] for seed in range(options.num_samples)]
        title = name if even_px is None else f"{name}, even_px={even_px}"
        print(row(title, made, options.blocks), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
