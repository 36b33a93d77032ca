"""Images as a user asks for them: small ones in memory, to PNG files; `gigapixel` makes the others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnca.config import Config
from diffnca.diffusion.samplers import Sampler
from diffnca.engine.precision import device_named
from diffnca.geometry import Boundary, Canvas, Region
from diffnca.giga.blended import Blended
from diffnca.pixels import to_uint8
from diffnca.tasks import ImageDenoiser, check_parts, generate, walk_of
from diffnca.training.checkpoint import find_model, load
from diffnca.variational.autoencoder import Autoencoder
from diffnca.writers.png import check_target, write_png

if TYPE_CHECKING:
    from diffnca.cli import Sample

SEAMLESS: dict[str, tuple[Boundary, Boundary]] = {
    "none": ("reflect", "reflect"),
    "x": ("reflect", "circular"),
    "y": ("circular", "reflect"),
    "both": ("circular", "circular"),
}

LARGE_FORMATS = (".ome.zarr", ".ome.tif", ".ome.tiff")
"""Endings of files that are made in tiles, of any size."""

IN_MEMORY_PX = 2048**2
"""Largest PNG that is made at once."""


def sample(command: Sample) -> int:
    """Make images as the command says; return the exit code."""
    command = replace(command, out=command.out.rstrip("/"))
    if command.out.endswith(LARGE_FORMATS):
        if command.count != 1 or command.region is not None:
            raise ValueError(f"--out {command.out}: must end in .png with --count or --region; rename it")
    else:
        check_target(Path(command.out))
    if (command.count != 1 or command.region is not None) and (command.tile is not None or command.dry_run):
        raise ValueError(
            "--tile and --dry-run: must be without --count and --region, which are made in memory"
        )
    if command.count < 1 or command.batch < 1:
        raise ValueError(f"--count {command.count} --batch {command.batch}: both must be >= 1")
    device = device_named(command.device)
    model: Any = load(command.model)  # on the CPU: workers may have other devices
    canvas = canvas_of(command, model.config)
    is_small = canvas.whole.area <= IN_MEMORY_PX or command.count > 1 or command.region is not None
    is_large = command.out.endswith(LARGE_FORMATS) or not is_small
    wants_tiles = command.tile is not None or command.dry_run or command.windows is not None
    if isinstance(model, Autoencoder) and (is_large or wants_tiles):
        raise ValueError(
            f"model {command.model}: must make a small .png, without --tile, --windows and --dry-run; "
            "it is no denoiser"
        )
    if command.windows is not None:
        model = Blended(model, command.windows)
    if is_large or command.tile is not None or command.dry_run:
        from diffnca.gigapixel import make

        return make(command, model, canvas)
    return _sample_in_memory(command, model, canvas, device)


def canvas_of(command: Sample, config: Config) -> Canvas:
    """Return the canvas of the images, by default of the size of the training crops."""
    crop = config.data.crop
    height = crop if command.height is None else command.height
    width = crop if command.width is None else command.width
    return Canvas(height, width, SEAMLESS[command.seamless])


def _sample_in_memory(
    command: Sample, model: ImageDenoiser | Autoencoder, canvas: Canvas, device: str
) -> int:
    """Make images and write each to its file."""
    region = canvas.whole if command.region is None else Region(*command.region, canvas)
    facts: dict[str, str] = {}
    if not isinstance(model, Autoencoder):
        method, levels = walk_of(model, command.sampler, command.steps)
        facts = of_walk(method, len(levels))
        if region != canvas.whole:
            print(cost_of_region(region, check_parts(model), len(levels)))
    for first in range(0, command.count, command.batch):
        seeds = [command.seed + i for i in range(first, min(first + command.batch, command.count))]
        with progress_bar(f"image {first + 1} of {command.count}") as progress:
            images = generate(
                model,
                height=canvas.height,
                width=canvas.width,
                region=region,
                batch=len(seeds),
                seed=seeds,
                sampler=command.sampler,
                steps=command.steps,
                boundary=canvas.boundary,
                progress=progress,
                device=device,
                engine=command.engine,
            )
        for index, (seed, pixels) in enumerate(zip(seeds, to_uint8(images), strict=True), start=first):
            path = numbered(Path(command.out), index, command.count)
            write_png(path, pixels, provenance(command, canvas, seed) | facts)
            print(path)
    return 0


def cost_of_region(region: Region, radius: int, steps: int) -> str:
    """Return what it takes to make a part of a canvas, as text."""
    first = region.grow(radius * steps)
    computed = sum(region.grow(radius * step).area for step in range(1, steps + 1))
    times = computed / (region.area * steps)
    return (
        f"region   {region.height}x{region.width} px of {region.canvas.height}x{region.canvas.width}: begins "
        f"with {first.height}x{first.width} px, {times:,.1f} times the work of an image of its size"
    )


def numbered(path: Path, index: int, count: int) -> Path:
    """Return the path of image `index` of `count`: `path` itself if it is the only one."""
    digits = max(3, len(str(count - 1)))
    return path if count == 1 else path.with_name(f"{path.stem}-{index:0{digits}d}{path.suffix}")


def of_walk(sampler: Sampler, steps: int) -> dict[str, str]:
    """Return the metadata of the way from noise to image."""
    return {"diffnca:sampler": sampler.name, "diffnca:steps": str(steps)}


def provenance(command: Sample, canvas: Canvas, seed: int) -> dict[str, str]:
    """Return the metadata of a generated image: what, with the way it was made, tells it from any other."""
    from hashlib import sha256

    from diffnca import __version__

    facts = {
        "Software": f"diffnca {__version__}",
        "diffnca:model": command.model,
        "diffnca:weights": sha256(find_model(command.model).read_bytes()).hexdigest()[:16],
        "diffnca:seed": str(seed),
        "diffnca:seamless": command.seamless,
        "diffnca:height": str(canvas.height),
        "diffnca:width": str(canvas.width),
    }
    return facts | ({} if command.windows is None else {"diffnca:windows": str(command.windows)})


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """Within the block, a function that shows steps done; `None` where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)
