"""Make images of sizes never trained, and measure them in two ways.

Crops of the size of training tell whether the texture holds; whole images, reduced to that size, tell whether
the whole does: a face of 128x128 should be a face, and not four. Example, of one model and another:

    python benchmarks/sizes.py runs/ours runs/published --data faces/ --sizes 48x48 64x64 96x96 64x128 128x128
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from comparisons import in_batches
from torch import Tensor
from torch.nn import functional as F

from diffnca import generate, load
from diffnca.data import open_images
from diffnca.evaluation import crops
from diffnca.metrics import efficientnet_lite0, extract, kid_error, kid_full
from diffnca.pixels import to_uint8
from diffnca.writers.png import contact_sheet, write_png

SHOWN = 6


@dataclass(frozen=True)
class Options:
    """Which models, at which sizes."""

    models: tyro.conf.Positional[tuple[str, ...]]
    """Model files, runs' folders or bundled models."""
    data: Path = Path("faces")
    """Real images of the size of training."""
    reduce: int = 1
    """Reduce them by this factor."""
    sizes: tuple[str, ...] = ("48x48", "64x64", "96x96", "128x128", "64x128", "256x256")
    """Heights and widths in px."""
    n: int = 100
    """Images of each model and size, and real ones."""
    steps: int | None = None
    """Diffusion steps; without it, each model's choice."""
    threads: int = 2
    """Threads to compute with."""
    pictures: Path | None = None
    """Folder, which must exist, for a picture of each model and size."""


def crops_of(images: Tensor, side: int) -> Tensor:
    """Return the centre of each image, or (of smaller ones) the image enlarged."""
    height, width = images.shape[-2:]
    if min(height, width) < side:
        return resized(images, side)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def resized(images: Tensor, side: int) -> Tensor:
    """Return the images as squares of this side."""
    changed = F.interpolate(images.float(), (side, side), mode="bicubic", antialias=True, align_corners=False)
    return changed.round().clamp(0, 255).byte()


def main(options: Options) -> None:
    """Print a row for each model and size."""
    torch.set_num_threads(options.threads)
    extractor = efficientnet_lite0()
    print("| model | size | KID x 1000 of crops | KID x 1000 of the whole, reduced |\n|---|---|---|---|")
    for name in options.models:
        model = load(name)
        side = model.config.data.crop
        real = crops(open_images((options.data,), reduce=options.reduce, min_size=side), options.n, side)
        reference = extract(extractor, real.images)
        for size in options.sizes:
            height, width = map(int, size.split("x"))
            made = []
            for seeds in in_batches(torch.arange(options.n)):
                images = generate(model, height=height, width=width, seed=seeds.tolist(), steps=options.steps)
                made.append(torch.from_numpy(to_uint8(images)).movedim(-1, 1))
            images = torch.cat(made)
            cells = []
            for looked_at in (crops_of(images, side), resized(images, side)):
                features = extract(extractor, looked_at)
                error = 1000 * kid_error(features, reference)
                cells.append(f"{1000 * kid_full(features, reference):.1f} ± {error:.1f}")
            print(f"| {name} | {size} | {cells[0]} | {cells[1]} |", flush=True)
            if options.pictures is not None:
                sheet = contact_sheet(images[:SHOWN].movedim(1, -1).numpy(), SHOWN)
                write_png(options.pictures / f"{Path(name).stem}-{size}.png", sheet, {})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
