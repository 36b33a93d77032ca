"""Make images of sizes never trained, and measure them in two ways.

The columns are KID x 1000. The whole image, brought to the size of training (and to its shape: a face is as
wide as its canvas), tells whether the whole holds: a face of 128x128 should be a face, and not four. The
centre, as large as images of training, tells whether the texture does; it is compared with whole real images,
and with the centres of real images enlarged (bicubic), which are cut alike but not sharp. Images smaller than
those of training are compared with real ones reduced as far. The real ones are those that the training held
out; the row "real" compares as many training images with them, the rows "real-HxW" these enlarged. Example:

    python benchmarks/sizes.py faces --data faces/ --sizes 48x48 64x64 96x96 64x128 128x128 --published-law

Images larger than those of training are made a second time without what makes them out of smaller ones
("alone"). With `--published-law` the same weights are used once more, also alone, with coefficients of the
spectrum that change with the size as the published ones do (1/(h*w), [1]); at the size of training both are
one network.

References:
    [1] Kalkhof et al., arXiv 2401.06291.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
import tyro
from comparisons import BATCH
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

from diffnca import generate, load
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.data import open_images
from diffnca.data.held_out import split
from diffnca.diffusion.denoiser import Denoiser
from diffnca.evaluation.metrics.distances import kid
from diffnca.evaluation.metrics.features import efficientnet_lite0, extract
from diffnca.evaluation.selections import crops
from diffnca.formats.png import contact_sheet, write_png
from diffnca.networks.fourier import Window
from diffnca.sampling.growth import canvases_of
from diffnca.sampling.pyramid import half_of

SHOWN = 6

Scale = Callable[[Window], Float64[Tensor, "r c"]]
"""Factors of the coefficients in a window."""


@dataclass(frozen=True)
class Options:
    """Which models, at which sizes."""

    models: tyro.conf.Positional[tuple[str, ...]]
    """Model files, runs' folders or bundled models."""
    data: Path = Path("faces")
    """Real images of the size of training, a part of which it held out."""
    holdout: float = 0.0556
    """Share of them that the training held out."""
    split_seed: int = 0
    """By which it held them out."""
    reduce: int = 1
    """Reduce them by this factor."""
    sizes: tuple[str, ...] = ("48x48", "64x64", "96x96", "128x128", "64x128", "256x256")
    """Heights and widths in px."""
    n: int = 100
    """Images of each model and size."""
    published_law: bool = False
    """Make the images again with coefficients that change with the size as the published ones do."""
    steps: int | None = None
    """Diffusion steps; without it, each model's choice."""
    threads: int = 2
    """Threads to compute with."""
    pictures: Path | None = None
    """Folder, which must exist, for a picture of each model and size."""


class Measure:
    """Compares images with those that were held out."""

    def __init__(self, options: Options, side: int) -> None:
        """Read the real images, of `side` px."""
        images = open_images((options.data,), reduce=options.reduce, min_size=side)
        training, held_out = split(images, options.holdout, options.split_seed, side)
        self.side, self.extractor = side, efficientnet_lite0()
        self.held_out = crops(held_out, len(held_out), side).images
        self.training = crops(training, options.n, side).images

    def row(self, name: str, images: Tensor) -> str:
        """Return a line of the table."""
        smallest, middles = min(images.shape[-2:]), ["-", "-"]
        if smallest >= self.side:
            middle, larger = centre(images, self.side), resized(self.held_out, *images.shape[-2:])
            middles = [self.kid(middle, self.held_out), self.kid(middle, centre(larger, self.side))]
        whole = reduced(images, min(smallest, self.side))
        return f"| {name} | {self.kid(whole, self.held_out)} | {middles[0]} | {middles[1]} |"

    def kid(self, images: Tensor, reference: Tensor) -> str:
        """Return KID x 1000 of square images against real ones reduced to their size, with its error."""
        of_images, of_reference = (
            extract(self.extractor, each) for each in (images, reduced(reference, images.shape[-1]))
        )
        return kid(of_images, of_reference).x1000(0)


def centre(images: Tensor, side: int) -> Tensor:
    """Return the square of this side in the middle."""
    top, left = ((size - side) // 2 for size in images.shape[-2:])
    return images[..., top : top + side, left : left + side]


def reduced(images: Tensor, side: int) -> Tensor:
    """Return images as squares of this side."""
    return images if images.shape[-2:] == (side, side) else resized(images, side, side)


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Return images of another size."""
    size = (height, width)
    changed = F.interpolate(images.float(), size, mode="bicubic", antialias=True, align_corners=False)
    return changed.round().clamp(0, 255).byte()


def made_by(name: str, size: str, options: Options, alone: bool = False) -> Tensor:
    """Return images of a model; `alone`, of its network on the large canvas only."""
    model, made = load(name), []
    if alone:
        sampling = replace(model.config.sampling, grown=False)
        model = Denoiser(model.network, model.schedule, replace(model.config, sampling=sampling))
    choice = {**size_of(size), "steps": options.steps}
    for seeds in torch.arange(options.n).split(BATCH):
        images = generate(model, seed=seeds.tolist(), **choice)
        made.append(torch.from_numpy(to_uint8(images)).movedim(-1, 1))
    return torch.cat(made)


def size_of(size: str) -> dict[str, int]:
    """Return the height and width that are written as 64x128."""
    height, width = map(int, size.split("x"))
    return {"height": height, "width": width}


@contextmanager
def published_law(side: int) -> Iterator[None]:
    """Within the block, scale spectra as at the size of training, times what 1/(h*w) changes elsewhere."""
    analysis, synthesis = Window.analysis_scale, Window.synthesis_scale

    def at_side(window: Window, scale: Scale) -> Float64[Tensor, "r c"]:
        trained = Window(window.config, Canvas(side, side))
        rows = [trained.rows.index(row) for row in window.rows]
        return scale(trained)[rows][:, [trained.columns.index(column) for column in window.columns]]

    def published_analysis(window: Window) -> Float64[Tensor, "r c"]:
        return at_side(window, analysis) * (side * side / (window.canvas.height * window.canvas.width))

    def published_synthesis(window: Window) -> Float64[Tensor, "r c"]:
        return at_side(window, synthesis)

    with (
        patch.object(Window, "analysis_scale", published_analysis),
        patch.object(Window, "synthesis_scale", published_synthesis),
    ):
        yield


def main(options: Options) -> None:
    """Print a row for each model and size."""
    torch.set_num_threads(options.threads)
    measure = Measure(options, load(options.models[0]).config.data.crop)
    print("| model, size | whole | centre | centre, against that of enlarged real ones |\n|---|---|---|---|")
    print(measure.row("real", measure.training), flush=True)
    for size in options.sizes:
        if min(size_of(size).values()) > measure.side:
            larger = resized(measure.training, **size_of(size))
            print(measure.row(f"real-{size}", larger), flush=True)
    for name, size in itertools.product(options.models, options.sizes):
        report(measure, f"{Path(name).stem}-{size}", made_by(name, size, options), options)
        model, canvas = load(name), Canvas(**size_of(size))
        if half_of(canvas, model.config) is not None or len(canvases_of(model, canvas)) > 1:
            report(measure, f"{Path(name).stem}-{size}-alone", made_by(name, size, options, True), options)
        if options.published_law:
            with published_law(measure.side):
                images = made_by(name, size, options, True)
            report(measure, f"{Path(name).stem}-{size}-published", images, options)


def report(measure: Measure, title: str, images: Tensor, options: Options) -> None:
    """Print a row, and draw the first images."""
    print(measure.row(title, images), flush=True)
    if options.pictures is not None:
        sheet = contact_sheet(images[:SHOWN].movedim(1, -1).numpy(), SHOWN)
        write_png(options.pictures / f"{title}.png", sheet, {})


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
