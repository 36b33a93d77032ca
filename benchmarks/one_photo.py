"""Train a model on each of the photos in examples/textures, and draw the figures of docs/one-photo.md.

    python benchmarks/one_photo.py runs/photos --images 9000

A figure shows the photo, a sample twice as wide, and four copies of a seamless tile. Runs that are there are
taken as they are.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from diffnca import generate, load
from diffnca.canvas.pixels import to_uint8

ROOT = Path(__file__).parents[1]
SIDE_PX, GAP_PX, QUALITY = 256, 8, 85
UPRIGHT = {"coral": ("--data.no-flips", "--data.no-quarter-turns")}
"""Photos with a direction, which mirrored and turned crops would lose."""


@dataclass(frozen=True)
class Options:
    """Where the runs are, and how long new ones train."""

    runs: tyro.conf.Positional[Path]
    """Folder of the runs."""
    images: int = 9_000
    """Budget of a run in crops."""
    seed: int = 1
    """Seed of the samples."""


def main(options: Options) -> None:
    """Train what is missing and draw."""
    options.runs.mkdir(parents=True, exist_ok=True)
    for photo in sorted((ROOT / "examples" / "textures").glob("*.jpg")):
        run = options.runs / photo.stem
        if not (run / "model.safetensors").is_file():
            words = ["train", "--data", str(photo), "--images", str(options.images), "--out", str(run)]
            words += UPRIGHT.get(photo.stem, ())
            subprocess.run([sys.executable, "-m", "diffnca", *words], check=True)
        path = ROOT / "docs" / "images" / "one_photo" / photo.name
        path.parent.mkdir(exist_ok=True)
        figure(photo, run, options.seed).save(path, quality=QUALITY)


def figure(photo: Path, run: Path, seed: int) -> Image.Image:
    """Return photo, sample and repeated tile side by side, each `SIDE_PX` high."""
    model = load(run)
    side = SIDE_PX * model.config.data.reduce
    real = Image.open(photo).convert("RGB").crop((0, 0, side, side)).resize((SIDE_PX, SIDE_PX))
    wide = to_uint8(generate(model, height=SIDE_PX, width=2 * SIDE_PX, seed=seed))[0]
    half = SIDE_PX // 2
    tile = to_uint8(generate(model, height=half, width=half, seed=seed, boundary=("circular", "circular")))[0]
    gap = np.full((SIDE_PX, GAP_PX, 3), 255, np.uint8)
    return Image.fromarray(
        np.concatenate([np.asarray(real), gap, wide, gap, np.tile(tile, (2, 2, 1))], axis=1)
    )


if __name__ == "__main__":
    main(tyro.cli(Options))
