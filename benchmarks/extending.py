"""Extend real crops at the right, and compare the new strips with those that were held back.

With the tissue that training held out:

    python benchmarks/extending.py pathology --real.data slides/ --real.reduce 2

The left half of each crop is given. The strips are compared as sets: the spectrum in decibels, the colours in
levels of 8 bits, KID; and the step across the border as a share of the mean step within the real strips (1 is
no seam).
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from comparisons import RealCrops, done
from torch import Tensor

from diffnca import extend, load
from diffnca.evaluation.metrics.distances import kid
from diffnca.evaluation.metrics.features import efficientnet_lite0, extract
from diffnca.evaluation.metrics.textures import colour_error, spectrum_error_db
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
    rounds: tuple[int, ...] = (1, 4)
    """Rounds of RePaint, each a row of its own."""
    picture: Path | None = None
    """Write a picture of the first crops."""


def by_model(options: Options, given: Tensor, width: int, rounds: int) -> Tensor:
    """Return the images extended by the model."""
    model = load(options.model)
    return done(
        given,
        options.real.seed,
        lambda part, seeds: extend(model, part, right=width, rounds=rounds, seed=seeds),
    )


def main(options: Options) -> None:
    """Print the table."""
    work, other = options.real.drawn()
    extractor, half = efficientnet_lite0(), options.real.crop // 2
    given, real = work.images[..., :half], work.images[..., half:]
    others = extract(extractor, other.images[..., half:])
    step = real.double().diff(dim=-1).abs().mean()

    def row(name: str, images: Tensor) -> str:
        strips, border = images[..., half:], images[..., half - 1 : half + 1].double()
        features = extract(extractor, strips)
        distance = kid(features, others, work.pictures, other.pictures)
        return (
            f"| {name} | {spectrum_error_db(strips, real):.1f} | {colour_error(strips, real):.1f} | "
            f"{distance.x1000()} | "
            f"{border.diff(dim=-1).abs().mean() / step:.2f} |"
        )

    print("| method | spectrum dB | colours | KID x 1000 | step at the border |\n|---|---|---|---|---|")
    results = {
        "edge repeated": torch.cat([given, given[..., -1:].expand_as(real)], -1),
        "mirrored": torch.cat([given, given.flip(-1)], -1),
    }
    for name, images in results.items():
        print(row(name, images), flush=True)
    for rounds in options.rounds:
        images = by_model(options, given, half, rounds)
        results[f"{rounds}"] = images
        print(row(f"{rounds} rounds", images), flush=True)
    print(row("real", work.images), flush=True)
    if options.picture is not None:
        shown = torch.cat([images[:SHOWN] for images in (work.images, *results.values())])
        write_png(options.picture, contact_sheet(shown.movedim(1, -1).numpy(), SHOWN), {})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
