"""`diffnca sample`: small images in memory, to PNG files; `gigapixel` makes the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.engine.machine import device_named
from diffnca.formats.film import check_film
from diffnca.formats.png import write_png
from diffnca.jobs.film import write_filmed
from diffnca.jobs.making import (
    SEAMLESS,
    check_in_memory,
    check_out,
    is_in_tiles,
    model_of,
    numbered,
    of_place,
    of_walk,
    progress_bar,
    provenance,
)
from diffnca.sampling.arguments import seeds_of
from diffnca.sampling.denoisers import check_parts, later_levels, walk_of
from diffnca.sampling.filmed import Filmed
from diffnca.sampling.generate import generate
from diffnca.sampling.growth import STRENGTH, canvases_of, grown, grown_seed, planned
from diffnca.sampling.guidance import prepare
from diffnca.sampling.starts import start_of
from diffnca.sampling.task import Task
from diffnca.sampling.windows import Blended

if TYPE_CHECKING:
    from diffnca.cli.images import Sample


def sample(command: Sample) -> int:
    """Make images as the command says; return the exit code."""
    command = replace(command, out=command.out.rstrip("/"))
    check(command)
    device = device_named(command.device)
    model = model_of(command)
    canvas = canvas_of(command, model.config)
    in_tiles = command.region is None and is_in_tiles(command, command.out, command.count, canvas)
    if isinstance(model, Autoencoder):
        if in_tiles or command.windows is not None or command.film is not None:
            raise ValueError(
                f"model {command.model}: must make a small .png, without --tile, --windows, --film and "
                "--dry-run; it is no denoiser"
            )
        return _in_memory(command, model, canvas, device)
    if command.windows is not None:
        model = Blended(model, command.windows)
    if not in_tiles:
        return _in_memory(command, model, canvas, device)
    from diffnca.jobs.large import make

    method, levels = walk_of(model, command.sampler, command.steps)
    canvases = canvases_of(model, canvas, command.direct)
    facts = (
        provenance(command, command.seamless) | of_place(canvas, command.seed) | of_walk(method, len(levels))
    )
    facts |= of_growth(canvases) | of_tone(command)
    place, start = torch.device(device), start_of(model, command.even_px, command.tone)

    def task() -> Task:
        with progress_bar("the smaller images") as progress:
            denoiser, first = prepare(model, place, command.engine), Noise((command.seed,), place)
            return grown(denoiser, canvases, levels, method, first, start, progress)[0]

    plan, seed = planned(model, canvases, levels, start), grown_seed(command.seed, len(canvases) - 1)
    complete = task if len(canvases) > 1 else None
    return make(command, command.out, model, method, plan, facts, seed, complete)


def check(command: Sample) -> None:
    """Refuse what cannot be made together.

    Raises:
        ValueError: options exclude each other, or the file cannot be written.
    """
    check_out(command, command.out, command.count)
    if command.batch < 1:
        raise ValueError(f"--batch {command.batch}: must be >= 1")
    if command.region is None:
        return
    if not command.out.endswith(".png"):
        raise ValueError(f"--out {command.out}: must end in .png with --region; rename it")
    if command.tile is not None or command.dry_run or command.film is not None:
        raise ValueError("--tile, --dry-run and --film: must be without --region, which is made in memory")


def canvas_of(command: Sample, config: Config) -> Canvas:
    """Return the canvas of the images, by default of the size of the training crops."""
    crop = config.data.crop
    height = crop if command.height is None else command.height
    width = crop if command.width is None else command.width
    return Canvas(height, width, SEAMLESS[command.seamless])


def _in_memory(command: Sample, model: ImageDenoiser | Autoencoder, canvas: Canvas, device: str) -> int:
    """Make images and write each to its file."""
    region = canvas.whole if command.region is None else Region(*command.region, canvas)
    check_in_memory(command)
    Noise(seeds_of(command.seed, command.count))  # all of them, before the first image
    facts = provenance(command, command.seamless) | of_region(region)
    if not isinstance(model, Autoencoder):
        method, levels = walk_of(model, command.sampler, command.steps)
        facts |= of_walk(method, len(levels)) | of_tone(command)
        facts |= of_growth(canvases_of(model, canvas, command.direct))
        if region != canvas.whole:
            print(cost_of_region(region, check_parts(model), len(levels)))
        if command.film is not None:
            walks = len(canvases_of(model, canvas, command.direct)) - 1
            calls = len(levels) + walks * len(later_levels(model, levels, STRENGTH))
            check_film(command.film)
            model = Filmed(model, calls)
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
                direct=command.direct,
                even_px=command.even_px,
                tone=command.tone,
                progress=progress,
                device=device,
                engine=command.engine,
            )
        for index, (seed, pixels) in enumerate(zip(seeds, to_uint8(images), strict=True), start=first):
            path = numbered(Path(command.out), index, command.count)
            write_png(path, pixels, facts | of_place(canvas, seed))
            print(path)
    if isinstance(model, Filmed) and command.film is not None:
        write_filmed(model, command.film)
        print(command.film)
    return 0


def of_growth(canvases: tuple[Canvas, ...]) -> dict[str, str]:
    """Return the metadata of the images out of which one has grown, if it has."""
    smaller = ", ".join(f"{canvas.height}x{canvas.width}" for canvas in canvases[:-1])
    return {"diffnca:grown": smaller} if smaller else {}


def of_region(region: Region) -> dict[str, str]:
    """Return the metadata of a part of a canvas; none of a whole one."""
    if region == region.canvas.whole:
        return {}
    return {"diffnca:region": f"{region.top},{region.left},{region.height},{region.width}"}


def of_tone(command: Sample) -> dict[str, str]:
    """Return the metadata of the noise that an image starts from, if it is not the model's choice."""
    told = {"even_px": command.even_px, "tone": command.tone}
    return {f"diffnca:{name}": str(value) for name, value in told.items() if value is not None}


def cost_of_region(region: Region, radius: int, steps: int) -> str:
    """Return what it takes to make a part of a canvas, as text."""
    first = region.grow(radius * steps)
    computed = sum(region.grow(radius * step).area for step in range(1, steps + 1))
    times = computed / (region.area * steps)
    return (
        f"region   {region.height}x{region.width} px of {region.canvas.height}x{region.canvas.width}: begins "
        f"with {first.height}x{first.width} px, {times:,.1f} times the work of an image of its size"
    )
