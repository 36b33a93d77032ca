"""How an image will be made: in memory or in tiles, what that takes, and what cannot be.

Small images are made in memory. While a large one is made, its states lie in the folder OUT.work beside it,
and the pixels of a TIFF or PNG file too, as an OME-Zarr image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config
from diffnca.data.refusals import LARGEST_IMAGE_PX
from diffnca.diffusion.denoiser import estimate_alone
from diffnca.diffusion.walk import Planes
from diffnca.engine.machine import device_named, physical_memory
from diffnca.files import check_target
from diffnca.formats.film import FORMATS, check_film
from diffnca.formats.pyramid import level_shapes
from diffnca.jobs.options import Place
from diffnca.jobs.request import Request
from diffnca.jobs.target import IN_MEMORY_PX, LARGE_FORMATS, Target, check_frames, check_replaced
from diffnca.jobs.tasks import Interpolate, Led, New
from diffnca.models.file import find_model, read_card
from diffnca.sampling.coarse import completing
from diffnca.sampling.growth import grown_seed, planned
from diffnca.sampling.labels import labelled
from diffnca.sampling.starts import start_of
from diffnca.sampling.styles import drawn_styles, styled, styles_of_known
from diffnca.sampling.task import Task, check_parts, check_region, stage_works

if TYPE_CHECKING:
    from diffnca.tiles.crews import Crew
    from diffnca.tiles.job import Job
    from diffnca.tiles.plan import Plan as TilePlan
    from diffnca.tiles.plan import Rates

SMALLEST_SHARD_PX, SHARD_PX, CHUNK_PX = 16, 512, 256
"""Sides of the files of an image, and the largest of the parts that a reader takes from them."""

SHARDS_PER_SIDE = 8
"""An image has at least so many files along its longer side, if they are not too small or too large."""

MEASURED_PX = (64, 256, 512, 1024)
"""Sides of the pieces that are computed to learn how fast the machine is: large ones leave its caches."""

MEASURED_SECONDS = 0.5
"""After a piece that takes so long no larger one is computed."""

BASE_BYTES, BYTES_PER_CHANNEL = 450e6, 12.0
"""Memory of a worker before it computes, and of a cell per channel: state, perception, copies (measured)."""


@dataclass(frozen=True)
class Plan:
    """How an image will be made, and whether a large one is there, or a part of it.

    `tiles` (its sweeps) and `job` (what the workers must know) are `None` for a small image, and for one that
    is finished.
    """

    request: Request
    place: Place
    is_finished: bool = False
    is_begun: bool = False
    tiles: TilePlan | None = None
    job: Job | None = None

    @property
    def worker_bytes(self) -> float:
        """Memory that a worker needs, about."""
        assert self.tiles is not None
        channels: int = self.request.opened().config.model.channels_per_px
        return BASE_BYTES + self.tiles.largest.area * BYTES_PER_CHANNEL * channels

    @property
    def finished_bytes(self) -> int:
        """Room that the finished image takes, at most: no compression makes noise smaller."""
        levels = self._level_bytes
        return levels[0] if Target(self.place.out).is_png else sum(levels)

    @property
    def needed_bytes(self) -> int:
        """Room that the image takes while it is made, at most: states, then a file of what is stored."""
        assert self.tiles is not None
        file_bytes = 0 if Target(self.place.out).is_zarr else self.finished_bytes
        return sum(self._level_bytes) + max(self.tiles.disk_bytes, file_bytes)

    @property
    def _level_bytes(self) -> list[int]:
        """Room of each level of the image, a byte for each pixel and channel."""
        canvas, channels = self.request.canvas, int(self.request.opened().image_channels)
        return [channels * height * width for height, width in level_shapes(canvas.height, canvas.width)]

    @property
    def lacking_memory(self) -> float | None:
        """Memory of this machine, if its workers need more; `None` if it is enough, or theirs is unknown."""
        if self.tiles is None or self.place.scheduler is not None:
            return None
        there = physical_memory()
        return there if self.place.workers * self.worker_bytes > there else None

    @cached_property
    def seconds_left(self) -> float:
        """Time that one worker needs for what is not there yet."""
        from diffnca.tiles.sweeps import missing, remaining

        job, tiles = self.job, self.tiles
        assert job is not None
        assert tiles is not None

        def share(sweep: range) -> float:
            all_tiles = tiles.tiles(sweep)
            return len(missing(job, sweep.stop, all_tiles)) / len(all_tiles)

        return sum((tiles.seconds_of(sweep) * share(sweep) for sweep in remaining(job, tiles)), 0.0)

    @property
    def region_cost(self) -> tuple[int, int, float] | None:
        """Height and width at the first step, and the work in images of this size, of a part of a canvas."""
        region, model = self.request.region, self.request.opened()
        if region == region.canvas.whole or isinstance(model, Autoencoder):
            return None
        radius, steps = check_parts(model), len(self.request.walk()[1])
        first = region.grow(radius * steps)
        stages = stage_works(model, region.canvas)
        works = [each.beside(radius * later) for later in range(steps) for each in stages]
        computed = sum(
            each.share * region.grow(reach).area / 2.0
            for each in works
            for reach in (each.first_px, each.last_px)
        )
        once = sum(each.share for each in stages)
        return first.height, first.width, computed / (once * region.area * steps)


def plan(request: Request, place: Place) -> Plan:
    """Return how an image will be made, and write nothing."""
    check(request, place)
    if not isinstance(request.task, Interpolate):
        Target(place.out).check_place()
        check_replaced(place, request.count)
    if not is_in_tiles(request, place):
        return Plan(request, place)
    from diffnca.formats.stores import facts_of

    target = large_target(place)
    if target.is_finished(request):
        return Plan(request, place, is_finished=True)
    job = job_of(request, place, target)
    is_begun = facts_of(f"{target.work}/states") is not None
    made = Plan(request, place, False, is_begun, tiles_of(job, place.tile), job)
    if not is_begun:
        assert made.tiles is not None
        target.check_room(made.needed_bytes)
    return made


def check(request: Request, place: Place) -> None:
    """Refuse what cannot be made, before any work and whatever lies in the folder."""
    device_named(place.device)
    if isinstance(request.task, Interpolate):
        out = Path(place.out)
        is_film = bool(out.suffix) and not out.is_dir()
        check_film(out) if is_film else check_frames(out, request.task.frames, FORMATS)
        return
    _check_options(request, place)
    Target(place.out).check(request.region.area)
    model = request.opened()
    in_tiles = is_in_tiles(request, place)
    if place.save_layout is not None:
        check_layout_file(request, place)
    if isinstance(model, Autoencoder):
        if in_tiles or place.film is not None:
            raise ValueError(
                f"model {request.model.name}: must make a small .png, without --tile and --film; it is no "
                "denoiser"
            )
        return
    check_region(model, request.region)
    if in_tiles and model.config.layout.made and not place.out.endswith(".ome.zarr"):
        raise ValueError(
            f"out={place.out}: must end in .ome.zarr for a model that makes maps too, as {request.model.name}"
        )
    if in_tiles:
        crew_of(place)  # needs zarr
        check_parts(model)
        check_tile(place.tile, request.canvas)
    task_of(request)
    if not in_tiles and (place.workers > 1 or place.scheduler is not None):
        raise ValueError(
            "--workers and --scheduler: must be left out for a small image, which is made at once; or give "
            "--tile"
        )


def check_layout_file(request: Request, place: Place) -> None:
    """Refuse to write the map of an image that has none, or that no PNG file holds."""
    has_map = request.maker is not None or request.opened().config.layout.made
    has_map = has_map or request.task.layout is not None
    if not has_map:
        raise ValueError(
            f"--save-layout: must be of a model that makes or follows maps, with one; {request.model.name} "
            "has none here"
        )
    if request.region.area > LARGEST_IMAGE_PX:
        there = f"; its map is {Target(place.out).map}" if request.maker is not None else ""
        raise ValueError(
            f"--save-layout: must be of at most {LARGEST_IMAGE_PX:,} pixels, as it is a PNG file, not of "
            f"{request.region.area:,}{there}"
        )
    assert place.save_layout is not None
    check_target(place.save_layout, (".png",))
    for flag, path in (("--out", Path(place.out)), ("--film", place.film)):
        if path is not None and place.save_layout.resolve() == path.resolve():
            raise ValueError(
                f"--save-layout {place.save_layout}: must be another file than {flag}; rename it"
            )


def is_in_tiles(request: Request, place: Place) -> bool:
    """Return whether an image is made in tiles: a large one, or one for which that is asked."""
    if isinstance(request.task, Interpolate) or request.region != request.canvas.whole:
        return False
    if place.out.endswith(LARGE_FORMATS) or place.tile is not None:
        return True
    is_large = request.canvas.whole.area > IN_MEMORY_PX
    return is_large and request.count == 1 and place.film is None


def large_target(place: Place) -> Target:
    """Return the file of a large image, as the workers of a cluster find it."""
    target = Target(place.out)
    is_local = place.scheduler is None or target.is_remote
    return target if is_local else Target(str(Path(place.out).resolve()))


def task_of(request: Request) -> Task:
    """Return the task of a request; of an image that will grow, it is for the plan alone."""
    model, (_, levels) = request.opened(), request.walk()
    config, layout = model.config, request.task.layout
    if isinstance(request.task, New):
        start = start_of(model, request.task.even_px, request.task.tone)
        planes = told(request.task, layout, config, drawn_styles(config, Noise((request.seed,))))
        return completing(planned(model, canvases_of(request), levels, start, planes), layout, config)
    assert not isinstance(request.task, Interpolate)
    _, make = request.task.on(request.canvas.boundary)
    task = make(model, levels)
    own = styles_of_known(task.original, config)
    return replace(task, given=told(request.task, layout, config, own))


def told(task: Led, planes: Planes | None, config: Config, styles: Tensor | None) -> Planes | None:
    """Return the planes of a map with those of label and style: of `styles`, if the task asks for none."""
    own = styles if task.styles is None else task.styles
    return styled(labelled(planes, task.label, config), own, config)


def canvases_of(request: Request) -> tuple[Canvas, ...]:
    """Return the canvases on which a new image grows, its own one last."""
    grown = request.task.grown if isinstance(request.task, New) else None
    return (*(Canvas(*size, request.canvas.boundary) for size in grown or ()), request.canvas)


def crew_of(place: Place) -> Crew:
    """Return who computes."""
    from diffnca.tiles.crews import Alone, DaskCluster, Processes

    if place.scheduler is not None:
        return DaskCluster(place.scheduler)
    return Alone() if place.workers == 1 else Processes(place.workers)


def job_of(request: Request, place: Place, target: Target) -> Job:
    """Return what the workers must know."""
    from diffnca.formats.ome_zarr import OmeZarrWriter
    from diffnca.tiles.job import Job
    from diffnca.tiles.states import States

    model, (sampler, _), shard = request.opened(), request.walk(), shard_of(request.canvas)
    chunk, microns = min(shard, CHUNK_PX), read_card(find_model(request.model.name)).get("microns_per_px")
    layout, size = model.config.layout, None if microns is None else float(microns)
    return Job(
        model,
        task_of(request),
        sampler,
        grown_seed(request.seed, len(canvases_of(request)) - 1),
        States(f"{target.work}/states", request.canvas, model.image_channels, chunk, sampler.is_multistep),
        OmeZarrWriter(target.image, size, shard, chunk, layout.names if layout.made else ()),
        place.device,
        request.engine,
    )


def shard_of(canvas: Canvas) -> int:
    """Return the side of the files of an image: a power of two, whatever its tiles."""
    share = max(1, max(canvas.height, canvas.width) // SHARDS_PER_SIDE)
    largest_power = 1 << (share.bit_length() - 1)
    return min(max(largest_power, SMALLEST_SHARD_PX), SHARD_PX)


def check_tile(tile: int | None, canvas: Canvas) -> None:
    """Refuse a side of the tiles that is no multiple of the chunks of the states."""
    unit = min(shard_of(canvas), CHUNK_PX)
    if tile is not None and (tile < 1 or tile % unit):
        near = unit * max(1, tile // unit)
        raise ValueError(f"tile={tile}: must be a multiple of {unit} px, such as {near}")


def _check_options(request: Request, place: Place) -> None:
    is_large, is_tiled = place.out.endswith(LARGE_FORMATS), place.tile is not None
    if request.count != 1 and is_large:
        raise ValueError(f"out={place.out}: must end in .png for --count {request.count}; rename it")
    if request.count != 1 and (is_tiled or place.film is not None):
        raise ValueError("--tile and --film: must be without --count; make one image at a time")
    if request.region != request.canvas.whole and (is_large or is_tiled or place.film is not None):
        raise ValueError(
            "--region: must be without --tile and --film, and --out end in .png; it is made in memory"
        )
    if place.film is None:
        return
    if is_large or is_tiled:
        raise ValueError("--film: must be without --tile, of a small .png; it is made in memory")
    if place.film.resolve() == Path(place.out).resolve():
        raise ValueError(f"--film {place.film}: must be another file than --out; rename it")
    check_film(place.film)


def tiles_of(job: Job, tile_px: int | None) -> TilePlan:
    """Return the cheapest plan on this machine, after measuring a piece of the image.

    `tile_px` is the side of the tiles; `None` is what is best here.
    """
    from diffnca.tiles.plan import make_plan

    model, canvas = job.denoiser, job.task.canvas
    numbers = model.image_channels * (2 if job.sampler.is_multistep else 1)
    rates, shard_px = _measured(job), shard_of(canvas)
    facts = (job.radius, job.num_steps, numbers, model.has_context, rates, shard_px, job.stages)
    return make_plan(canvas, tile_px, *facts)


def _measured(job: Job) -> Rates:
    """Return how fast this machine is, from pieces of the image, each larger than the one before."""
    from diffnca.tiles.plan import Rates

    canvas, rates = job.task.canvas, Rates()
    for side in MEASURED_PX:
        corner = Region(0, 0, min(side, canvas.height), min(side, canvas.width), canvas)
        draw = _seconds(partial(job.task.initial, corner, job.walk.noise))
        small = Canvas(corner.height, corner.width)
        step = _seconds(partial(_first_step, job, small.whole))
        calls = corner.area * sum(each.share for each in stage_works(job.denoiser, small))
        rates = replace(rates, compute=step / calls, draw=draw / corner.area)
        if step > MEASURED_SECONDS or corner == canvas.whole:
            break
    return rates


def _first_step(job: Job, whole: Region) -> Tensor:
    """Take the first step on a small canvas of its own, without what is known of the image."""
    x = torch.zeros(1, job.denoiser.image_channels, whole.height, whole.width, device=job.place)
    walk = replace(job.walk, constraint=None)
    return walk.run(partial(estimate_alone, job.ready), x, whole, steps=range(1))[0]


def _seconds(work: Callable[[], Tensor]) -> float:
    begun = time.perf_counter()
    with torch.no_grad():
        work().sum().item()  # waits for the device
    return time.perf_counter() - begun
