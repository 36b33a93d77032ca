"""Fill holes of real crops with a model and with simple methods, and measure how far the fill is off.

Needs OpenCV (`pip install opencv-python-headless`). Example, for the tissue that training held out:

    python benchmarks/inpainting.py pathology --real.data slides/ --real.reduce 2

PSNR and SSIM are those of the hole; the feature distance and KID those of whole crops. A simple method that
blurs wins PSNR and loses KID: the mean of all fills that could be is the best guess, and no image.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from comparisons import HEAD, Judge, RealCrops, done
from torch import Tensor

from diffnca import inpaint, load
from diffnca.evaluation.metrics.features import efficientnet_lite0
from diffnca.formats.png import contact_sheet, write_png

try:
    import cv2
except ImportError:
    raise SystemExit("benchmarks/inpainting.py needs OpenCV: pip install opencv-python-headless") from None

SHOWN = 6
"""Crops in the picture."""


@dataclass(frozen=True)
class Options:
    """Which model, on which crops."""

    model: tyro.conf.Positional[str]
    """A model file, a run's folder or a bundled model."""
    real: RealCrops = field(default_factory=lambda: RealCrops(Path("slides")))
    """The crops."""
    rounds: tuple[int, ...] = (4,)
    """Rounds of RePaint, each a row of its own."""
    jump: int = 5
    """Steps of a jump."""
    masks: tuple[str, ...] = ("centre", "half", "lines", "random")
    """Which holes."""
    picture: Path | None = None
    """Write a picture of the first crops and their fills."""


def mask_named(name: str, side: int) -> Tensor:
    """Return a hole: the centre of half the side, the right half, lines 2 px wide, or 80% of all pixels."""
    mask = torch.zeros(side, side, dtype=torch.bool)
    match name:
        case "centre":
            mask[side // 4 : -(side // 4), side // 4 : -(side // 4)] = True
        case "half":
            mask[:, side // 2 :] = True
        case "lines":
            for first in range(side // 8, side, side // 4):
                mask[first : first + 2], mask[:, first : first + 2] = True, True
        case "random":
            mask = torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 0.8
        case _:
            raise ValueError(f"mask {name!r}: must be centre, half, lines or random")
    return mask


def by_opencv(images: Tensor, mask: Tensor, flag: int) -> Tensor:
    """Return the images filled by OpenCV, with a radius of 3 px."""
    holes = mask.numpy().astype(np.uint8)
    filled = [cv2.inpaint(image.movedim(0, -1).numpy().copy(), holes, 3, flag) for image in images]
    return torch.from_numpy(np.stack(filled)).movedim(-1, 1)


def by_mean(images: Tensor, mask: Tensor) -> Tensor:
    """Return the images with the mean colour of what is known in the hole."""
    mean = images[..., ~mask].double().mean(-1).round().byte()
    return torch.where(mask, mean[..., None, None], images)


def by_model(options: Options, images: Tensor, mask: Tensor, method: str, rounds: int) -> Tensor:
    """Return the images filled by the model."""
    model = load(options.model)
    return done(
        images,
        options.real.seed,
        lambda part, seeds: inpaint(
            model, part, mask, method=method, jump=options.jump, rounds=rounds, seed=seeds
        ),
    )


def main(options: Options) -> None:
    """Print a table for each kind of hole."""
    work, reference = options.real.drawn()
    judge = Judge(efficientnet_lite0(), reference)
    rows: dict[str, Callable[[Tensor], Tensor]] = {
        "mean colour": lambda mask: by_mean(work.images, mask),
        "OpenCV Telea": lambda mask: by_opencv(work.images, mask, cv2.INPAINT_TELEA),
        "OpenCV Navier-Stokes": lambda mask: by_opencv(work.images, mask, cv2.INPAINT_NS),
        "paste": lambda mask: by_model(options, work.images, mask, "paste", 1),
    }
    for rounds in options.rounds:
        rows[f"RePaint, {rounds} rounds"] = lambda mask, rounds=rounds: by_model(
            options, work.images, mask, "repaint", rounds
        )
    sheet: list[Tensor] = []
    for name in options.masks:
        mask = mask_named(name, options.real.crop)
        print(f"\n{name} ({mask.float().mean():.0%} of the pixels)\n\n{HEAD}", flush=True)
        holes = torch.where(mask, torch.tensor(255, dtype=torch.uint8), work.images)
        sheet += [*work.images[:SHOWN], *holes[:SHOWN]]
        for row, fill in rows.items():
            filled = fill(mask)
            print(judge.row(row, filled, work, mask), flush=True)
            sheet += filled[:SHOWN]
        print(judge.row("real", work.images, work, mask), flush=True)
    if options.picture is not None:
        write_png(options.picture, contact_sheet(torch.stack(sheet).movedim(1, -1).numpy(), SHOWN), {})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
