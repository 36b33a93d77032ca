"""Show a large image at several zoom levels: the whole, then smaller squares in its middle, side by side.

python benchmarks/zooms.py slide.ome.zarr --sides 1200 400 130 --out docs/images/slide_4096.jpg
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from diffnca.formats.ome_zarr import read_pixels

PANEL_PX, GAP_PX = 400, 12
QUALITY = 85


@dataclass(frozen=True)
class Options:
    """Of what, and where to."""

    image: tyro.conf.Positional[Path]
    """A square OME-Zarr image that fits into memory."""
    out: Path
    """File of the picture."""
    sides: tuple[int, ...] = (1200, 400, 130)
    """Sides of the squares in px."""


def main(options: Options) -> None:
    """Write the picture."""
    pixels = read_pixels(str(options.image))
    sides = (len(pixels), *options.sides)
    shown = np.full((PANEL_PX, len(sides) * (PANEL_PX + GAP_PX) - GAP_PX, 3), 255, np.uint8)
    for number, side in enumerate(sides):
        first, left = (len(pixels) - side) // 2, number * (PANEL_PX + GAP_PX)
        square = Image.fromarray(pixels[first : first + side, first : first + side])
        panel = square.resize((PANEL_PX, PANEL_PX), Image.Resampling.LANCZOS)
        shown[:, left : left + PANEL_PX] = np.asarray(panel)
    Image.fromarray(shown).save(options.out, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
