"""Store the features of crops of held-out pictures, with which the tests look after the bundled models.

The pictures themselves may not be published; numbers of which no picture can be made again may. Example:

    python benchmarks/reference_features.py held-out/ --reduce 2 --out tests/reference/features_pathology.npz
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from diffnca.data import open_images
from diffnca.evaluation.metrics.features import efficientnet_lite0, extract
from diffnca.evaluation.selections import crops


@dataclass(frozen=True)
class Options:
    """Of which pictures, and where to."""

    data: tyro.conf.Positional[Path]
    """Held-out pictures: a folder or a zip file."""
    out: Path
    """File to write."""
    reduce: int = 1
    """Reduce them by this factor (Lanczos)."""
    crop: int = 64
    """Side of the crops in px."""
    n: int = 64
    """How many, at random places."""
    seed: int = 0
    """Of the places."""


def main(options: Options) -> None:
    """Write the features of the crops in half precision, with what they were computed by."""
    extractor = efficientnet_lite0()
    pictures = open_images([options.data], reduce=options.reduce)
    chosen = crops(pictures, options.n, options.crop, options.seed)
    features = extract(extractor, chosen.images).to(torch.float16).numpy()
    np.savez_compressed(options.out, features=features, pictures=chosen.pictures, checksum=extractor.checksum)
    print(f"{options.out}: {features.shape}, {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
