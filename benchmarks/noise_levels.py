"""At which noise levels does a model lose a texture?

Crops of training pictures are noised to a level, brought back to the clean image, and scored against crops
of held-out pictures: the level at which KID rises is the one that the model has learnt too little. Example:

    python benchmarks/noise_levels.py pathology --data held-out --train training

The errors count four crops as one draw.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from diffnca import load
from diffnca.data import open_images
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.samplers import Sampler, sample, sampler_named
from diffnca.diffusion.schedule import Level
from diffnca.engine import prepare
from diffnca.evaluation import Selection, crops, score
from diffnca.geometry import Canvas, Region
from diffnca.metrics import efficientnet_lite0
from diffnca.noise import CellNoise, Noise, Stream
from diffnca.pixels import to_uint8
from diffnca.tasks import guided

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
    first: tuple[int, ...] = (30, 75, 120, 165, 210, 255, 299)
    """Diffusion steps to noise the crops to."""
    n: int = 240
    """Crops on each side."""
    crop: int = 64
    """Height and width of a crop in px."""
    batch: int = 24
    """Crops at a time."""
    sampler: str | None = None
    """Sampler; the model's own by default."""
    steps: int | None = None
    """Diffusion steps from the level to the clean image; the model's own number by default."""
    guidance: float | None = None
    """Guidance by the model itself; the model's own by default, 1 for none."""
    threads: int = 1
    """Processor threads."""


@torch.no_grad()
def main(options: Options) -> None:
    """Noise, bring back, measure and print."""
    torch.set_num_threads(options.threads)
    extractor = efficientnet_lite0()
    reference = crops(open_images([options.data]), options.n, options.crop)
    real = crops(open_images([options.train]), options.n, options.crop, seed=1).images
    model = guided(load(options.model), options.guidance)
    assert isinstance(model, Denoiser)  # without a guide
    model = Denoiser(prepare(model.network, torch.device("cpu")), model.schedule, model.config)
    sampler = sampler_named(options.sampler or model.config.sampling.sampler)
    draws = torch.arange(options.n) // CROPS_PER_DRAW

    def report(name: str, images: Tensor) -> None:
        result = score(Selection(images, draws), reference, extractor)
        print(f"{name:10} KID x1000 {result.kid_x1000:7.1f} +- {result.error:5.1f}", flush=True)

    report("real", real)
    for first in options.first:
        visited = model.schedule.visited(options.steps or model.config.sampling.steps, first)
        levels = [model.schedule.level(index) for index in visited]
        back = torch.cat(list(bring_back(model, sampler, levels, real, options.batch)))
        report(f"sigma {levels[0].sigma:.2f}", back)


def bring_back(
    model: Denoiser, sampler: Sampler, levels: list[Level], images: Tensor, batch: int
) -> Iterator[Tensor]:
    """Noise 8-bit images to the first of the levels and sample from there; image i has seed i."""
    region = Canvas(*images.shape[2:]).whole

    def denoise(x_t: Tensor, level: Level, region: Region, cell_noise: CellNoise) -> Tensor:
        return model.x_0_estimate(x_t, level, region, cell_noise)

    for start in range(0, len(images), batch):
        x_0 = images[start : start + batch].float() / 127.5 - 1.0
        noise = Noise(tuple(range(start, start + len(x_0))), torch.device("cpu"))
        drawn = noise.normal(Stream.INITIAL, 0, region, x_0.shape[1])
        x_t = levels[0].alpha * x_0 + levels[0].sigma * drawn
        x_0_estimate = sample(denoise, x_t, levels, region, sampler, noise)
        yield torch.from_numpy(to_uint8(x_0_estimate.clamp(-1.0, 1.0))).movedim(3, 1)


if __name__ == "__main__":
    main(tyro.cli(Options))
