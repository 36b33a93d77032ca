"""Time and memory of images in tiles, by size; each size in a process of its own.

    python benchmarks/giga.py                          # the machinery: a tiny network, 1 to 256 megapixels
    python benchmarks/giga.py --model pathology --megapixels 4 16 --steps 2 --tile 3584
    python benchmarks/giga.py --scheduler              # what a Dask scheduler costs: tiles that do nothing

Peak memory is that of the process, all of it; predicted is the time that the plan says beforehand.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

TINY = {"channels": 24, "hidden": 32, "num_cell_steps": 2}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a model; without it, a tiny network with fresh weights")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where states go")
    parser.add_argument("--scheduler", action="store_true")
    parser.add_argument("--one", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(arguments)))
    elif arguments.scheduler:
        scheduler_overhead()
    else:
        table(arguments)


def table(arguments: argparse.Namespace) -> None:
    columns = ("megapixels", "tiles", "computed twice", "s/Mpx/step", "predicted", "levels s/Mpx", "peak MB")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for megapixels in arguments.megapixels:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(megapixels)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {row['megapixels']:.0f} | {row['tiles']:,} | {row['overhead']:.1%} | {row['seconds']:.3f} | "
            f"{row['predicted']:.3f} | {row['pyramid']:.3f} | {row['peak_mb']:.0f} |",
            flush=True,
        )


def one(arguments: argparse.Namespace) -> dict[str, float]:
    import torch

    from diffnca.canvas.region import Canvas
    from diffnca.formats.ome_zarr import OmeZarrWriter
    from diffnca.jobs.plan import CHUNK_PX, shard_of, tiles_of
    from diffnca.models.file import load
    from diffnca.sampling.starts import start_of
    from diffnca.sampling.task import Task, walk_of
    from diffnca.tiles.job import Job
    from diffnca.tiles.states import States
    from diffnca.tiles.sweeps import sample_tiled

    denoiser = load(arguments.model) if arguments.model else tiny()
    side = round(math.sqrt(arguments.one) * 1024)
    canvas = Canvas(side, side)
    sampler, levels = walk_of(denoiser, None, arguments.steps)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        shard = shard_of(canvas)
        chunk = min(shard, CHUNK_PX)
        states = States(f"{folder}/states", canvas, 3, chunk, sampler.is_multistep)
        writer = OmeZarrWriter(f"{folder}/image.ome.zarr", 1.25, shard, chunk)
        job = Job(denoiser, Task(canvas, levels, start_of(denoiser)), sampler, 0, states, writer, "cpu")
        plan = replace(tiles_of(job, arguments.tile), fused=1)  # every size in the same way
        writer.open(canvas, 3, {})
        begun = time.perf_counter()
        sample_tiled(job, plan)
        sampled = time.perf_counter()
        writer.close()
        closed = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    area = canvas.whole.area / 1e6
    return {
        "megapixels": area,
        "tiles": plan.num_tiles,
        "overhead": plan.overhead,
        "seconds": (sampled - begun) / area / len(levels),
        "predicted": plan.seconds / area / len(levels),
        "pyramid": (closed - sampled) / area,
        "peak_mb": peak / 1e6,
        "threads": torch.get_num_threads(),
    }


def tiny():
    """Return a denoiser so small that what is around it shows."""
    from diffnca.config.recipes import recipe_named
    from diffnca.models.build import build_denoiser

    config = recipe_named("diff_nca")
    cell = replace(config.model.cell, hidden=TINY["hidden"], num_cell_steps=TINY["num_cell_steps"])
    config = replace(config, model=replace(config.model, channels=TINY["channels"], cell=cell))
    return build_denoiser(config).eval().requires_grad_(False)


def scheduler_overhead(count: int = 2000) -> None:
    """Print the time of a tile that does nothing, on a Dask cluster of this machine."""
    from distributed import Client, LocalCluster

    from diffnca.tiles.crews import given_out

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        executor = client.get_executor(pure=False)
        pieces = [("nothing", None, range(0))] * count
        begun = time.perf_counter()
        for _ in given_out(executor, nothing, pieces, lambda: 2):
            pass
        seconds = (time.perf_counter() - begun) / count
    print(f"{seconds * 1e3:.1f} ms for a tile that does nothing; {count} tiles, two workers, four at a time")


def nothing(*arguments: object) -> None:
    """Do nothing."""


if __name__ == "__main__":
    main()
