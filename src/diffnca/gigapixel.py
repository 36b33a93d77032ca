"""One large image as a user asks for it: plan, tiles, file; the same command goes on after a stop.

While an image is made, its states lie in the folder OUT.work beside it, and the pixels of a TIFF or PNG file
too, as an OME-Zarr image. The folder is removed when the image is finished.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffnca.config import Config
from diffnca.diffusion.samplers import Sampler
from diffnca.geometry import Canvas
from diffnca.giga.crews import Alone, Crew, DaskCluster, Processes
from diffnca.giga.plan import Plan, Rates, default_tile, make_plan
from diffnca.giga.states import States, noted
from diffnca.giga.sweeps import sample_tiled
from diffnca.giga.tiles import Job
from diffnca.making import progress_bar
from diffnca.stores import is_remote, remove
from diffnca.tasks import ImageDenoiser, Task, check_parts
from diffnca.training.checkpoint import find_model, read_card
from diffnca.writers.ome_zarr import OmeZarrWriter, read_pixels
from diffnca.writers.png import read_png_text, write_png

if TYPE_CHECKING:
    from diffnca.cli import Making, Verify

SHARD_PX, CHUNK_PX = 512, 256
"""Sides of the files of an image in the making, and of the parts that a reader takes from them."""

SMALLEST_TILE_PX = 16
LARGE_PX = 4096
"""A longer side asks for tiles of whole chunks; odd ones would make millions of tiny files."""
LARGEST_PNG_PX = 178_956_970  # Pillow reads no larger one

MEASURED_PX = 512
"""Side of the piece that is computed to learn how fast the machine is."""

MOST_PROBLEMS = 10
"""So many problems of a damaged image are told one by one."""

BASE_BYTES = 450e6
"""Memory of a worker before it computes: Python, torch, zarr."""

BYTES_PER_CHANNEL = 12.0
"""Memory of a cell per channel of its state: the state, what is seen of it twice, copies (measured)."""


@dataclass(frozen=True)
class Target:
    """The file that is asked for, and where it is made.

    Attributes:
        out: its path; an OME-Zarr image may also have an address of fsspec.
    """

    out: str

    @property
    def is_zarr(self) -> bool:
        """Whether the pixels are made right there."""
        return self.out.endswith(".ome.zarr")

    @property
    def work(self) -> str:
        """Where all else is kept until it is finished."""
        return f"{self.out}.work"

    @property
    def image(self) -> str:
        """Where the pixels are kept until it is finished."""
        return self.out if self.is_zarr else f"{self.work}/image.ome.zarr"

    def check(self, canvas: Canvas) -> None:
        """Refuse a file that cannot be written.

        Raises:
            ValueError: its folder does not exist, or it holds too many pixels.
        """
        if not is_remote(self.out) and not Path(self.out).resolve().parent.is_dir():
            raise ValueError(
                f"{self.out}: the folder {Path(self.out).parent} does not exist; create it first"
            )
        if is_remote(self.out) and not self.is_zarr:
            raise ValueError(f"{self.out}: must end in .ome.zarr, only such images can be made at an address")
        if self.out.endswith((".tif", ".tiff")):
            import diffnca.writers.ome_tiff  # noqa: F401  what is missing is told before the work
        if self.out.endswith(".png") and canvas.whole.area > LARGEST_PNG_PX:
            raise ValueError(
                f"{self.out}: {canvas.height}x{canvas.width} px are too many for a PNG file; "
                "end its name in .ome.zarr or .ome.tif"
            )

    def text(self) -> Mapping[str, str] | None:
        """Return what the finished file says of itself; `None` if there is none."""
        if self.is_zarr:
            return OmeZarrWriter(self.out).read_text() if OmeZarrWriter(self.out).is_finished else None
        if not Path(self.out).exists():
            return None
        if self.out.endswith(".png"):
            return read_png_text(Path(self.out))
        from diffnca.writers.ome_tiff import read_ome_tiff_text

        return read_ome_tiff_text(Path(self.out))

    def is_finished(self, facts: Mapping[str, str]) -> bool:
        """Return whether the file is there.

        Raises:
            ValueError: it is there, or was begun, and is of another image.
        """
        finished = self.text()
        if OmeZarrWriter(self.image).is_foreign:
            raise ValueError(f"{self.image}: holds something else; give another --out")
        for there in (finished, noted(f"{self.work}/states"), OmeZarrWriter(self.image).read_text()):
            if there is not None:
                check_same(self.out, there, facts)
        return finished is not None

    def finish(self, writer: OmeZarrWriter, facts: Mapping[str, str]) -> None:
        """Make the file of the pixels, and remove what was needed for that."""
        with progress_bar("levels") as progress:
            writer.close(progress)
        if self.out.endswith(".png"):
            write_png(Path(self.out), read_pixels(self.image), facts)
        elif not self.is_zarr:
            from diffnca.writers.ome_tiff import write_ome_tiff

            with progress_bar("file") as progress:
                write_ome_tiff(self.image, Path(self.out), progress=progress)
        remove(self.work)


def make(
    command: Making, out: str, denoiser: ImageDenoiser, sampler: Sampler, task: Task, facts: dict[str, str]
) -> int:
    """Make a large image; return the exit code.

    Args:
        command: how to make it.
        out: its file.
        denoiser: the model.
        sampler: how a step is taken.
        task: what is made.
        facts: what tells it from any other image.
    """
    canvas = task.canvas
    is_local = command.scheduler is None or is_remote(out)
    target = Target(out if is_local else str(Path(out).resolve()))
    crew = crew_of(command)
    target.check(canvas)
    if target.is_finished(facts):
        remove(target.work)
        print(f"{out} is finished already; look at it: diffnca view {out}")
        return 0
    begun = noted(f"{target.work}/states")
    tile, shard = tile_and_shard(command.tile, canvas, check_parts(denoiser) + task.reach, begun)
    chunk = math.gcd(shard, CHUNK_PX)
    job = Job(
        denoiser,
        task,
        sampler,
        command.seed,
        States(f"{target.work}/states", canvas, denoiser.image_channels, chunk, sampler.is_multistep),
        OmeZarrWriter(target.image, microns_of(command.model), shard, chunk),
        command.device,
        command.engine,
    )
    plan = plan_of(job, tile)
    for line in described(plan, command, denoiser.config, begun is not None):
        print(line)
    if command.dry_run:
        return 0
    if begun is None:
        check_room(target, plan)
    return carry_out(job, plan, target, facts | {"diffnca:shard": str(shard)}, crew)


def plan_of(job: Job, tile_px: int) -> Plan:
    """Return the cheapest plan on this machine, after measuring a piece of the image."""
    numbers = job.denoiser.image_channels * (2 if job.sampler.is_multistep else 1)
    return make_plan(
        job.task.canvas,
        tile_px,
        job.radius,
        job.num_steps,
        numbers,
        job.denoiser.has_context,
        measured(job),
    )


def carry_out(job: Job, plan: Plan, target: Target, facts: dict[str, str], crew: Crew) -> int:
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
        target.finish(job.writer, facts)
    except KeyboardInterrupt:
        share = f"{done[0] / done[1]:.0%}"
        print(f"diffnca: stopped at {share}; the same command goes on from there", file=sys.stderr)
        from diffnca.cli import INTERRUPTED

        return INTERRUPTED
    except OSError as error:
        raise OSError(f"{target.out}: {error}; what is finished is kept, the same command goes on") from error
    print(target.out)
    return 0


def check_same(out: str, there: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Refuse to go on with another image.

    Raises:
        ValueError: what is there was made with another model, size, seed, sampler or number of steps.
    """
    for key, value in facts.items():
        if key not in ("Software", "diffnca:model") and there.get(key) != value:
            name = key.removeprefix("diffnca:")
            raise ValueError(
                f"{out}: holds an image of {name} {there.get(key, 'unknown')}, this command says {value}; "
                f"give another --out, or delete it (and {out}.work)"
            )


def tile_and_shard(
    asked: int | None, canvas: Canvas, radius: int, begun: Mapping[str, Any] | None
) -> tuple[int, int]:
    """Return the sides of the tiles and of the files; those of an image that was begun stay.

    Raises:
        ValueError: the tiles asked for are no unions of such files.
    """
    if begun is not None:
        shard = int(begun["diffnca:shard"])
    else:
        shard = SHARD_PX if asked is None else math.gcd(asked, SHARD_PX)
    tile = default_tile(canvas, radius, shard) if asked is None else asked
    is_large = max(canvas.height, canvas.width) > LARGE_PX
    unit = shard if begun is not None else CHUNK_PX if is_large else SMALLEST_TILE_PX
    if tile < 1 or tile % unit:
        near = unit * max(1, tile // unit)
        raise ValueError(f"--tile {tile}: must be a multiple of {unit} px, such as {near}")
    return tile, shard


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
            context = job.ready.context(x, level, own.whole)
            job.ready.x_0_estimate(x, level, own.whole, noise.at(0), context).sum().item()
        return time.perf_counter() - begun

    call()
    return Rates(compute=call() / own.whole.area)


def described(plan: Plan, command: Making, config: Config, is_begun: bool) -> list[str]:
    """Return the plan, for the user to read."""
    canvas, largest = plan.canvas, plan.largest
    memory = BASE_BYTES + largest.area * BYTES_PER_CHANNEL * config.model.channels_per_px
    per_step = plan.rates.compute * 1e6
    return [
        f"image    {canvas.height}x{canvas.width} px, {canvas.whole.area / 1e6:,.1f} megapixels; "
        f"{command.model}, {plan.steps} steps, seed {command.seed}",
        f"tiles    {len(plan.tiles):,} of {plan.tile_px} px, {len(plan.sweeps)} sweeps; "
        f"{plan.overhead:.1%} computed twice, as a step sees {plan.radius} px",
        f"memory   about {memory / 1e9:.1f} GB for a worker",
        f"disk     {plan.disk_bytes / 1e9:,.1f} GB while it is made, then at most "
        f"{canvas.whole.area * 4 / 1e9:,.2f} GB",
        f"time     about {_duration(plan.seconds)} in all for one worker: {per_step:.2f} s per megapixel and "
        "step, measured on a small tile",
        *(["begun    goes on with what is there"] if is_begun else []),
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


def crew_of(command: Making) -> Crew:
    """Return who computes."""
    if command.scheduler is not None:
        return DaskCluster(command.scheduler)
    if command.workers < 1:
        raise ValueError(f"--workers {command.workers}: must be >= 1")
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
    from diffnca.writers.ome_zarr import verify

    with progress_bar("verify") as progress:
        problems = verify(command.image, progress)
    if problems:
        more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
        raise ValueError(f"{command.image}: {'; '.join(problems[:MOST_PROBLEMS])}{more}")
    print(f"{command.image}: whole")
    return 0
