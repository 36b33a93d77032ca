"""At which noise levels does a model lose a texture?

Crops of training pictures are noised to a level, brought back to the clean image, and scored against crops
of held-out pictures: the level at which KID rises is the one that the model has learnt too little. Example:

    python benchmarks/noise_levels.py pathology --data held-out --train training

The errors count four crops as one draw.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from diffnca import load, vary
from diffnca.canvas.pixels import to_uint8
from diffnca.data import open_images
from diffnca.evaluation.metrics.features import efficientnet_lite0
from diffnca.evaluation.scores import score
from diffnca.evaluation.selections import Selection, crops
from diffnca.sampling.guidance import guided
from diffnca.sampling.task import later_levels, walk_of

CROPS_PER_DRAW = 4


@dataclass(frozen=True)
class Options:
    """What to noise, and how far."""

    model: tyro.conf.Positional[str]
    """A model file, or the name of a bundled model."""
    data: Path
    """Held-out pictures: a folder or a zip file."""
    train: Path
    """Pictures of training."""
    strengths: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    """How far to noise the crops, as a share of the way; 1 is pure noise, so new pictures."""
    n: int = 240
    """Crops on each side."""
    crop: int = 64
    """Height and width of a crop in px."""
    batch: int = 24
    """Crops at a time."""
    sampler: str | None = None
    """Sampler; the model's own by default."""
    steps: int | None = None
    """Diffusion steps of the whole way; the model's own number by default."""
    guidance: float | None = None
    """Guidance by the model itself; the model's own by default, 1 for none."""
    threads: int = 1
    """Processor threads."""


def main(options: Options) -> None:
    """Noise, bring back, measure and print."""
    torch.set_num_threads(options.threads)
    extractor = efficientnet_lite0()
    reference = crops(open_images([options.data]), options.n, options.crop)
    real = crops(open_images([options.train]), options.n, options.crop, seed=1).images
    model = guided(load(options.model), options.guidance)
    levels = walk_of(model, options.sampler, options.steps)[1]
    draws = torch.arange(options.n) // CROPS_PER_DRAW

    def report(name: str, images: Tensor) -> None:
        result = score(Selection(images, draws), reference, extractor)
        print(f"{name:30} KID x1000 {result.kid_x1000:7.1f} +- {result.error:5.1f}", flush=True)

    report("real", real)
    for strength in options.strengths:
        first = later_levels(model, levels, strength)[0]
        back = [
            vary(
                model,
                part.float() / 127.5 - 1.0,
                strength,
                seed=start * options.batch,
                sampler=options.sampler,
                steps=options.steps,
            )
            for start, part in enumerate(real.split(options.batch))
        ]
        made = torch.from_numpy(to_uint8(torch.cat(back))).movedim(3, 1)
        report(f"{strength:.0%}: sigma {first.sigma:.2f}, log-SNR {first.log_snr:.1f}", made)


if __name__ == "__main__":
    main(tyro.cli(Options))
