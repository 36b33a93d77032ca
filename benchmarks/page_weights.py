"""What the 8-bit weights of a page cost: change of the images, KID x 1000 to held-out pictures.

    python benchmarks/page_weights.py --tissue glas/held-out --meadow aerial/held-out --faces faces64.zip

The weights are rounded as `diffnca export --format web --weights int8` rounds them. Both kinds of weights
make the images of the same seeds, so that their scores differ by the weights alone. A model whose pictures
are not given is left out.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from diffnca.canvas.pixels import to_uint8
from diffnca.data import open_images
from diffnca.diffusion.denoiser import Denoiser
from diffnca.evaluation.metrics.distances import kid, kid_difference
from diffnca.evaluation.metrics.features import (
    FeatureExtractor,
    efficientnet_lite0,
    extract_cached,
    user_cache,
)
from diffnca.evaluation.selections import Selection, crops
from diffnca.export.packed import eight_bits
from diffnca.models.file import find_model, load_denoiser, read_card, read_config
from diffnca.sampling.generate import generate

CROP_PX, TILE_PX = 64, 256
MODELS = {
    "pathology-4step": "tissue",
    "colon-4step": "tissue",
    "aerial-4step": "meadow",
    "faces-4step": "faces",
}
"""The models of the page, and the held-out pictures that they are compared with."""

COLUMNS = [
    *("model", "mean change, levels of 255", "largest"),
    *("KID x 1000, 16 bits", "8 bits", "less that of 16 bits"),
]


@dataclass(frozen=True)
class Options:
    """Held-out pictures, and numbers of images."""

    tissue: Path | None = None
    """Folder of held-out tissue, for `pathology-4step` and `colon-4step`."""
    meadow: Path | None = None
    """Folder of held-out meadow, for `aerial-4step`."""
    faces: Path | None = None
    """All faces, for `faces-4step`; its card says which of them are held out."""
    tiles: int = 32
    """Tiles of 256 px of a model that makes maps; each is cut into 16 crops of 64 px."""
    images: int = 500
    """Images of a model that makes single ones."""
    held_out: int = 300
    """Crops of held-out pictures, at random places; whole pictures where they have 64 px."""


def main(options: Options) -> None:
    """Print a row of a table for each model."""
    extractor = efficientnet_lite0()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for name, kind in MODELS.items():
        place: Path | None = getattr(options, kind)
        if place is not None:
            started = time.process_time()
            print(f"| {' | '.join([f'`{name}`', *row(name, place, options, extractor)])} |", flush=True)
            print(f"{name}: {time.process_time() - started:.0f} s of a core", file=sys.stderr)


def row(name: str, place: Path, options: Options, extractor: FeatureExtractor) -> list[str]:
    """Return what rounding does to a model, as text."""
    full = load_denoiser(name)
    count = options.tiles if full.config.model.fourier is None else options.images
    pictures = [images_of(denoiser, count) for denoiser in (full, rounded(name))]
    apart = np.abs(pictures[1].astype(int) - pictures[0].astype(int))
    n = apart.size // (3 * CROP_PX**2)
    made, real = [crops(each, n, CROP_PX) for each in pictures], held_out(name, place, options.held_out)
    known, *features = [
        extract_cached(extractor, each.images, user_cache() / "features") for each in (real, *made)
    ]
    scores = [kid(each, known, made[0].pictures, real.pictures) for each in features]
    change = kid_difference(features[1][None], features[0][None], known, real.pictures)
    told = [f"{1000 * score.value:.0f} ± {1000 * (score.error or 0):.0f}" for score in scores]
    told.append(f"{1000 * change.mean:.1f} ± {1000 * change.error:.1f}")
    print(f"{name}: {n} crops of {count} images, {len(known)} held out", file=sys.stderr)
    return [f"{apart.mean():.2f}", str(apart.max()), *told]


def images_of(denoiser: Denoiser, count: int) -> np.ndarray[Any, Any]:
    """Return images of seeds 0, 1, ...: tiles as the page has them, or images of the size of training."""
    stage = denoiser.config.model.fourier
    size = TILE_PX if stage is None else stage.trained_px
    edge = "circular" if stage is None else "reflect"
    images = [
        generate(denoiser, height=size, width=size, boundary=(edge, edge), seed=seed) for seed in range(count)
    ]
    return to_uint8(torch.cat(images))


def rounded(name: str) -> Denoiser:
    """Load a model whose weights are rounded as those of a page of 8 bits."""
    denoiser = load_denoiser(name)
    weights = denoiser.network.state_dict()
    for key, weight in weights.items():
        if weight.ndim > 1:
            whole, factor = eight_bits(weight.to(torch.float16))
            weights[key] = whole.float() * factor.float()
    denoiser.network.load_state_dict(weights)
    return denoiser


def held_out(name: str, place: Path, n: int) -> Selection:
    """Return held-out pictures of 64 px, or crops of larger ones at random places."""
    pictures = open_images([place], reduce=read_config(find_model(name)).data.reduce)
    names = set(read_card(find_model(name))["held_out"])
    if names and names < set(pictures.names):
        pictures = pictures.chosen([index for index, each in enumerate(pictures.names) if each in names])
    is_whole = max(pictures[0].shape[:2]) <= CROP_PX
    return crops(pictures, min(n, len(pictures)) if is_whole else n, CROP_PX, None if is_whole else 0)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
