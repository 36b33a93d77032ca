"""One large image as a user asks for it: plan, tiles, file; the same command goes on after a stop.

While an image is made, its states lie in the folder OUT.work beside it, and the pixels of a TIFF or PNG file
too, as an OME-Zarr image. The folder is removed when the image is finished.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import ImageDenoiser, Query, estimate_alone
from diffnca.diffusion.samplers import Sampler
from diffnca.formats.ome_zarr import OmeZarrWriter
from diffnca.formats.stores import is_of_one_process, is_remote, remove
from diffnca.jobs.making import progress_bar
from diffnca.jobs.target import Target
from diffnca.models.file import find_model, read_card
from diffnca.sampling.denoisers import check_canvas, check_parts
from diffnca.sampling.task import Task
from diffnca.tiles.crews import Alone, Crew, DaskCluster, Processes
from diffnca.tiles.job import Job
from diffnca.tiles.plan import Plan, Rates, default_tile, make_plan
from diffnca.tiles.states import States, noted
from diffnca.tiles.sweeps import missing, remaining, sample_tiled

if TYPE_CHECKING:
    from diffnca.cli.images import Making
    from diffnca.cli.inspections import Verify
    from diffnca.formats.ome_tiff import Compression

SMALLEST_SHARD_PX, SHARD_PX, CHUNK_PX = 16, 512, 256
"""Sides of the files of an image, and the largest of the parts that a reader takes from them."""

SHARDS_PER_SIDE = 8
"""An image has at least so many files along its longer side, if they are not too small or too large."""


MEASURED_PX = 512
"""Side of the piece that is computed to learn how fast the machine is."""

MOST_PROBLEMS = 10
"""So many problems of a damaged image are told one by one."""

BASE_BYTES = 450e6
"""Memory of a worker before it computes: Python, torch, zarr."""

BYTES_PER_CHANNEL = 12.0
"""Memory of a cell per channel of its state: the state, what is seen of it twice, copies (measured)."""


def make(
    command: Making,
    out: str,
    denoiser: ImageDenoiser,
    sampler: Sampler,
    task: Task,
    facts: dict[str, str],
    seed: int,
    complete: Callable[[], Task] | None = None,
) -> int:
    """Make a large image; return the exit code.

    Args:
        command: how to make it.
        out: its file.
        denoiser: the model.
        sampler: how a step is taken.
        task: what is made.
        facts: what tells it from any other image.
        seed: of its random numbers.
        complete: gives the task where its start takes work; `task` is then for the plan alone.
    """
    canvas = task.canvas
    check_canvas(denoiser, canvas)
    is_local = command.scheduler is None or is_remote(out)
    target = Target(out if is_local else str(Path(out).resolve()))
    crew = crew_of(command, out)
    target.check(canvas)
    if target.is_tiff:
        facts = facts | {"diffnca:compression": command.compression or "jpeg"}
    if target.is_finished(facts):
        if not command.dry_run:
            remove(target.work)
        print(f"{out} is finished already; look at it: diffnca view {out}")
        return 0
    is_begun = noted(f"{target.work}/states") is not None
    shard = shard_of(canvas)
    chunk = min(shard, CHUNK_PX)
    tile = tile_of(command.tile, canvas, check_parts(denoiser) + task.reach, shard)
    job = Job(
        denoiser,
        task,
        sampler,
        seed,
        States(f"{target.work}/states", canvas, denoiser.image_channels, chunk, sampler.is_multistep),
        OmeZarrWriter(target.image, microns_of(command.model), shard, chunk),
        command.device,
        command.engine,
    )
    plan = plan_of(job, tile)
    tell(plan, job, command, crew, is_begun)
    if not is_begun:
        check_room(target, plan)
    if command.dry_run:
        return 0
    if isinstance(crew, DaskCluster):
        crew.check()
    if complete is not None:
        job = replace(job, task=complete())
    return carry_out(job, plan, target, facts, crew, command.compression or "jpeg")


def tell(plan: Plan, job: Job, command: Making, crew: Crew, is_begun: bool) -> None:
    """Print the plan, and a warning if it needs more memory than there is."""
    memory = memory_of(plan, job.denoiser.config)
    for line in described(plan, command, memory, seconds_left(job, plan) if is_begun else None):
        print(line)
    warn_of_memory(memory, crew)


def plan_of(job: Job, tile_px: int) -> Plan:
    """Return the cheapest plan on this machine, after measuring a piece of the image."""
    assert isinstance(job.writer, OmeZarrWriter)
    numbers = job.denoiser.image_channels * (2 if job.sampler.is_multistep else 1)
    return make_plan(
        job.task.canvas,
        tile_px,
        job.radius,
        job.num_steps,
        numbers,
        job.denoiser.has_context,
        measured(job),
        job.writer.shard_px,
    )


def seconds_left(job: Job, plan: Plan) -> float:
    """Return the time that one worker needs for what is not there yet."""

    def share(sweep: range) -> float:
        tiles = plan.tiles(sweep)
        return len(missing(job, sweep.stop, tiles)) / len(tiles)

    return sum(plan.seconds_of(sweep) * share(sweep) for sweep in remaining(job, plan))


def carry_out(
    job: Job, plan: Plan, target: Target, facts: dict[str, str], crew: Crew, compression: Compression
) -> int:
    """Make what is left of the image; return the exit code."""
    assert isinstance(job.writer, OmeZarrWriter)
    done = [0.0, 1.0]
    try:
        job.states.begin(facts)
        job.writer.open(plan.canvas, job.denoiser.image_channels, facts)
        with reporting(plan) as report:

            def told(pixels: float, total: float) -> None:
                done[:] = pixels, total
                report(pixels, total)

            sample_tiled(job, plan, crew, told)
        target.finish(job.writer, facts, compression)
    except KeyboardInterrupt:
        share = f"{done[0] / done[1]:.0%}"
        print(f"diffnca: stopped at {share}; the same command goes on from there", file=sys.stderr)
        from diffnca.cli.main import INTERRUPTED

        return INTERRUPTED
    except OSError as error:
        where = "" if target.out in str(error) else f"{target.out}: "
        raise OSError(f"{where}{error}; what is finished is kept, the same command goes on") from error
    print(target.out)
    return 0


def shard_of(canvas: Canvas) -> int:
    """Return the side of the files of an image: a power of two, whatever its tiles."""
    share = max(1, max(canvas.height, canvas.width) // SHARDS_PER_SIDE)
    largest_power = 1 << (share.bit_length() - 1)
    return min(max(largest_power, SMALLEST_SHARD_PX), SHARD_PX)


def tile_of(asked: int | None, canvas: Canvas, radius: int, shard: int) -> int:
    """Return the side of the tiles.

    Raises:
        ValueError: the one asked for is no multiple of the chunks of the states.
    """
    if asked is None:
        return default_tile(canvas, radius, shard)
    unit = min(shard, CHUNK_PX)
    if asked < 1 or asked % unit:
        near = unit * max(1, asked // unit)
        raise ValueError(f"--tile {asked}: must be a multiple of {unit} px, such as {near}")
    return asked


def microns_of(model: str) -> float | None:
    """Return the physical size of a pixel, as the card of the model says it."""
    microns = read_card(find_model(model)).get("microns_per_px")
    return None if microns is None else float(microns)


def measured(job: Job) -> Rates:
    """Return how fast this machine is, from a piece of the image."""
    canvas = job.task.canvas
    own = Canvas(min(MEASURED_PX, canvas.height), min(MEASURED_PX, canvas.width))
    noise, level = job.walk.noise, job.task.levels[0]
    x = torch.zeros(1, job.denoiser.image_channels, own.height, own.width, device=job.place)

    def call() -> float:
        begun = time.perf_counter()
        with torch.no_grad():
            estimate_alone(job.ready, Query(x, level, own.whole, noise.at(0))).sum().item()
        return time.perf_counter() - begun

    call()
    return Rates(compute=call() / own.whole.area)


def memory_of(plan: Plan, config: Config) -> float:
    """Return the bytes of memory that a worker needs, about."""
    return BASE_BYTES + plan.largest.area * BYTES_PER_CHANNEL * config.model.channels_per_px


def warn_of_memory(memory: float, crew: Crew) -> None:
    """Tell the user if the workers of this machine need more memory than it has."""
    if isinstance(crew, DaskCluster) or not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(
        getattr(os, "sysconf_names", ())
    ):
        return
    workers = crew.count if isinstance(crew, Processes) else 1
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if workers * memory > there:
        print(
            f"diffnca: warning: {workers} x {memory / 1e9:.1f} GB are more than the {there / 1e9:.1f} GB of "
            "memory here; take a smaller --tile or fewer --workers",
            file=sys.stderr,
        )


def described(plan: Plan, command: Making, memory: float, left: float | None) -> list[str]:
    """Return the plan, for the user to read.

    Args:
        plan: the plan.
        command: what was asked for.
        memory: of a worker, in bytes.
        left: seconds that an image that was begun still needs; `None` if it was not.
    """
    canvas = plan.canvas
    time_left = "" if left is None else f"{_duration(left)} left of "
    per_step = plan.rates.compute * 1e6
    return [
        f"image    {canvas.height}x{canvas.width} px, {canvas.whole.area / 1e6:,.1f} megapixels; "
        f"{command.model}, {plan.steps} steps, seed {command.seed}",
        f"tiles    {plan.num_tiles:,} of {plan.tile_px} px, {len(plan.sweeps)} sweeps; "
        f"{plan.overhead:.1%} computed twice, as a step sees {plan.radius} px",
        f"memory   about {memory / 1e9:.1f} GB for a worker",
        f"disk     {plan.disk_bytes / 1e9:,.1f} GB while it is made, then at most "
        f"{canvas.whole.area * 4 / 1e9:,.2f} GB",
        f"time     about {time_left}{_duration(plan.seconds)} in all for one worker: {per_step:.2f} s per "
        "megapixel and step, measured on a small tile",
        *([] if left is None else ["begun    goes on with what is there"]),
    ]


def check_room(target: Target, plan: Plan) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        ValueError: it is too small.
    """
    if is_remote(target.out):
        return
    needed = plan.disk_bytes + 4 * plan.canvas.whole.area
    free = shutil.disk_usage(Path(target.out).resolve().parent).free
    if needed > free:
        raise ValueError(
            f"{target.out}: needs {needed / 1e9:.1f} GB while it is made, {free / 1e9:.1f} GB are free; "
            "make room or choose another disk"
        )


def crew_of(command: Making, out: str) -> Crew:
    """Return who computes.

    Raises:
        ValueError: there must be workers, and they must reach the image.
    """
    if is_of_one_process(out) and (command.workers > 1 or command.scheduler is not None):
        raise ValueError(
            f"--out {out}: is in the memory of this process alone, which no worker reaches; give a folder, "
            "or leave out --workers and --scheduler"
        )
    if command.scheduler is not None:
        return DaskCluster(command.scheduler)
    return Alone() if command.workers == 1 else Processes(command.workers)


@contextlib.contextmanager
def reporting(plan: Plan) -> Iterator[Callable[[float, float], None]]:
    """Within the block, a function that shows progress: a bar for people, a line a minute for logs."""
    begun, first, shown = time.monotonic(), [-1.0], [0.0]

    def status(done: float, total: float) -> str:
        if first[0] < 0.0:
            first[0] = done
        seconds = max(time.monotonic() - begun, 1e-3)
        speed = (done - first[0]) / seconds
        left = _duration((total - done) / speed) if speed else "?"
        return f"{done / total:4.0%}, {speed / plan.steps / 1e6:.3f} megapixels/s, {left} left"

    if not sys.stderr.isatty():

        def report_line(done: float, total: float) -> None:
            text = status(done, total)
            if time.monotonic() - shown[0] >= 60.0 or done >= total:
                shown[0] = time.monotonic()
                print(f"diffnca: {text}", file=sys.stderr)

        yield report_line
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done, total: bar.update(task, completed=done / total, description=status(done, total))


def _duration(seconds: float) -> str:
    """Return a time as text."""
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 7200.0 else f"{seconds / 3600.0:.1f} h"


def verify(command: Verify) -> int:
    """Check a finished image and say what is wrong with it; return the exit code."""
    from diffnca.formats.ome_zarr import verify

    with progress_bar("verify") as progress:
        problems = verify(command.image, progress)
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise ValueError(f"{command.image}: {'; '.join(problems[:MOST_PROBLEMS])}{more}")
    print(f"{command.image}: whole")
    return 0
