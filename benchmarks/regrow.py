"""Wipe a square out of images that a VNCA has grown, let it grow on, and write the picture.

The columns are the grown image, the wound, and the image after 1, 2, 4, ... further rounds of its cell steps;
each row is another seed, or with --data another image of those, grown from its own description. The mean
squared error inside the wound, against the grown image, is printed; with --data also the error of all images
so grown, against that of their own mean colour. Example:

    python benchmarks/regrow.py runs/vnca_damage --data faces/ --reduce 2 --out regrown.png
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from diffnca import load
from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_model, to_uint8
from diffnca.canvas.region import Canvas
from diffnca.data import open_images
from diffnca.formats.png import contact_sheet, write_png

ROUNDS = (1, 2, 4, 8)

SHOWN_PX = 96
"""Smaller images are enlarged by a whole factor, up to this side."""


@dataclass(frozen=True)
class Options:
    """Which model, and what to do to its images."""

    model: tyro.conf.Positional[str]
    """A VNCA: a model file or the folder of a run."""
    out: Path = Path("regrown.png")
    """The picture to write."""
    side: int | None = None
    """Side of the wound in px; without it, half the side of the image."""
    count: int = 6
    """Images."""
    seed: int = 0
    """Seed of the first image."""
    data: Path | None = None
    """Images to grow, all of one size."""
    reduce: int = 1
    """Reduce them by this factor."""


@torch.inference_mode()
def main(options: Options) -> None:
    """Grow, wound, grow again; write the picture and the errors."""
    model = load(options.model)
    if not isinstance(model, Autoencoder):
        raise ValueError(f"{options.model}: must be a VNCA")
    size = model.choices.size
    side = size // 2 if options.side is None else options.side
    noise = Noise(tuple(range(options.seed, options.seed + options.count)))
    images = given(options)
    if images is None:
        latent = noise.normal(Stream.INITIAL, 0, Canvas(1, 1).whole, model.choices.latent)[:, :, 0, 0]
    else:
        latent = model.network.encode(images[: options.count])[0]
    grown = model.network.grow(model.network.seed(latent), noise.at(0))
    top = (size - side) // 2
    wound = (slice(None), slice(None), slice(top, top + side), slice(top, top + side))
    state = grown.clone()
    state[wound] = 0.0
    shown = [model.shown(grown), model.shown(state)]
    for done in range(max(ROUNDS)):
        state = model.network.grow(state, noise.at(done + 1))
        if done + 1 in ROUNDS:
            shown.append(model.shown(state))
    for name, image in zip(("wounded", *(f"{n} rounds" for n in ROUNDS)), shown[1:], strict=True):
        print(f"{name:10} error in the wound {float((image - shown[0])[wound].square().mean()):.4f}")
    factor = max(1, SHOWN_PX // size)
    rows = torch.stack(shown, 1).flatten(0, 1).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    write_png(options.out, contact_sheet(to_uint8(rows), columns=len(shown)), {})
    if images is not None:
        report_reconstruction(model, images)


def given(options: Options) -> Tensor | None:
    """Return the images to grow; `None` where they come from seeds."""
    if options.data is None:
        return None
    return torch.stack([to_model(picture) for picture in open_images([options.data], reduce=options.reduce)])


def report_reconstruction(model: Autoencoder, images: Tensor) -> None:
    """Print how near images are to what is grown from their own descriptions."""
    again = torch.cat([model.reconstruct(part) for part in images.split(16)])
    error = float((again - images).square().mean())
    plain = float((images - images.mean((2, 3), keepdim=True)).square().mean())
    print(f"{len(images)} images: error of the reconstruction {error:.4f}, of the mean colour {plain:.4f}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
