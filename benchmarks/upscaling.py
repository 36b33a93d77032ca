"""Enlarge reduced real crops with a model and with simple methods, and measure how far the result is off.

Crops are reduced by taking means over blocks, so the real crop itself reduces to what is given. Example:

    python benchmarks/upscaling.py pathology --real.data slides/ --real.reduce 2

The last columns are the power of the highest third of the frequencies, in decibels above that of the real
crops (0 is right, negative is blur), and how far the result, reduced again, is from what was given, at most,
in levels of 8 bits.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from comparisons import HEAD, Judge, RealCrops, done
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffnca import load, upscale
from diffnca.evaluation.metrics.features import efficientnet_lite0
from diffnca.evaluation.metrics.textures import radial_spectrum
from diffnca.formats.png import contact_sheet, write_png

SHOWN = 6
"""Crops in the picture."""


@dataclass(frozen=True)
class Options:
    """Which model, on which crops."""

    model: tyro.conf.Positional[str]
    """A model file, a run's folder or a bundled model."""
    real: RealCrops = field(default_factory=lambda: RealCrops(Path("slides")))
    """The crops."""
    factors: tuple[int, ...] = (2, 4)
    """How many times as large."""
    strengths: tuple[float, ...] = (0.7,)
    """Of the consistent method, each a row of its own."""
    noise_strengths: tuple[float, ...] = (0.1,)
    """Of the published method, each a row of its own."""
    picture: Path | None = None
    """Write a picture of the first crops and their enlargements."""


def by_pillow(small: Tensor, factor: int, method: Image.Resampling) -> Tensor:
    """Return the images enlarged by Pillow."""
    enlarged = []
    for image in small:
        picture = Image.fromarray(image.movedim(0, -1).numpy())
        size = (picture.width * factor, picture.height * factor)
        enlarged.append(
            torch.frombuffer(bytearray(picture.resize(size, method).tobytes()), dtype=torch.uint8)
        )
    shape = (len(small), small.shape[-2] * factor, small.shape[-1] * factor, 3)
    return torch.stack(enlarged).reshape(shape).movedim(-1, 1)


def by_model(options: Options, small: Tensor, factor: int, method: str, strength: float) -> Tensor:
    """Return the images enlarged by the model."""
    model = load(options.model)
    return done(
        small,
        options.real.seed,
        lambda part, seeds: upscale(model, part, float(factor), method=method, strength=strength, seed=seeds),
    )


def reduced(images: Tensor, factor: int) -> Tensor:
    """Return the means over blocks."""
    return F.avg_pool2d(images.double(), factor)


def main(options: Options) -> None:
    """Print a table for each factor."""
    work, reference = options.real.drawn()
    judge = Judge(efficientnet_lite0(), reference)
    sheet: list[Tensor] = []
    for factor in options.factors:
        small = (reduced(work.images, factor) + 0.5).floor().byte()
        results = {
            "nearest": by_pillow(small, factor, Image.Resampling.NEAREST),
            "bicubic": by_pillow(small, factor, Image.Resampling.BICUBIC),
            "Lanczos": by_pillow(small, factor, Image.Resampling.LANCZOS),
        }
        for method, strengths in (("noise", options.noise_strengths), ("consistent", options.strengths)):
            for strength in strengths:
                name = f"{method}, strength {strength}"
                results[name] = by_model(options, small, factor, method, strength)
        results["real"] = work.images
        names, line = HEAD.splitlines()
        print(f"\nx{factor}\n\n{names} highest third dB | off, levels |\n{line}---|---|", flush=True)
        for name, result in results.items():
            high, far = fine_power_db(result, work.images), off(result, small, factor)
            print(f"{judge.row(name, result, work)} {high:.1f} | {far:.1f} |", flush=True)
        del results["real"]
        sheet += work.images[:SHOWN]
        for result in results.values():
            sheet += result[:SHOWN]
    if options.picture is not None:
        write_png(options.picture, contact_sheet(torch.stack(sheet).movedim(1, -1).numpy(), SHOWN), {})


def fine_power_db(result: Tensor, real: Tensor) -> float:
    """Return the power in the highest third of the frequencies, in decibels above that of the real images."""
    mine, theirs = (radial_spectrum(images) for images in (result, real))
    third = len(theirs) // 3
    return float(10 * (mine[-third:].sum() / theirs[-third:].sum()).log10())


def off(result: Tensor, small: Tensor, factor: int) -> float:
    """Return how far the reduced result is from what was given, at most, in levels."""
    return float((reduced(result, factor) - small).abs().max())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
