"""What the benchmarks of tasks share: real crops, and how far results are from them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from diffnca.canvas.pixels import to_uint8
from diffnca.data import open_images
from diffnca.evaluation.metrics.distances import kid
from diffnca.evaluation.metrics.features import FeatureExtractor, extract
from diffnca.evaluation.selections import Selection, crops

BATCH = 16


@dataclass(frozen=True)
class RealCrops:
    """Which real crops to work on, and to compare with."""

    data: Path
    """Real pictures: a folder or a zip file."""
    reduce: int = 1
    """Reduce them by this factor (Lanczos)."""
    crop: int = 64
    """Side of the crops in px."""
    n: int = 64
    """Crops to work on; as many others are what KID compares with."""
    seed: int = 0
    """Of the first crop; crop i has seed + i."""
    threads: int = 2
    """Threads to compute with."""

    def drawn(self) -> tuple[Selection, Selection]:
        """Return the crops to work on and those to compare with, which alternate."""
        torch.set_num_threads(self.threads)
        images = open_images((self.data,), reduce=self.reduce, channels=3, min_size=self.crop)
        both = crops(images, 2 * self.n, self.crop)
        work, other = (Selection(both.images[start::2], both.pictures[start::2]) for start in (0, 1))
        return work, other


@dataclass(frozen=True)
class Judge:
    """Measures results against the images they were made of.

    Attributes:
        extractor: the network that looks at them.
        reference: real crops for KID.
    """

    extractor: FeatureExtractor
    reference: Selection

    def row(self, name: str, results: Tensor, real: Selection, where: Tensor | None = None) -> str:
        """Return a line of a table: PSNR and SSIM (`where` the images were changed), features, KID.

        Args:
            name: of the method.
            results: uint8.
            real: what they should be.
            where: h w, true where it counts; everywhere if missing.
        """
        a, b = results.double(), real.images.double()
        where = torch.ones(a.shape[-2:], dtype=torch.bool) if where is None else where
        psnr = 10 * torch.log10(255.0**2 / (a - b)[..., where].square().mean())
        _, each = structural_similarity_index_measure(a, b, data_range=255.0, return_full_image=True)
        mine, real_features = extract(self.extractor, results), extract(self.extractor, real.images)
        far = ((mine - real_features).norm(dim=1) / real_features.norm(dim=1)).mean()
        other = extract(self.extractor, self.reference.images)
        distance = kid(mine, other, real.pictures, self.reference.pictures)
        return f"| {name} | {psnr:.1f} | {each[..., where].mean():.3f} | {far:.3f} | {distance.x1000()} |"


HEAD = "| method | PSNR dB | SSIM | feature distance | KID x 1000 |\n|---|---|---|---|---|"


def done(images: Tensor, seed: int, task: Callable[[Tensor, list[int]], Tensor]) -> Tensor:
    """Return what a task makes of images, uint8, some at a time.

    Args:
        images: uint8.
        seed: of the first image; image i has seed + i.
        task: from images in [-1, 1] and their seeds to images.
    """
    results = []
    for first in range(0, len(images), BATCH):
        part = images[first : first + BATCH].float() / 127.5 - 1.0
        seeds = list(range(seed + first, seed + first + len(part)))
        results.append(torch.from_numpy(to_uint8(task(part, seeds))).movedim(-1, 1))
    return torch.cat(results)
