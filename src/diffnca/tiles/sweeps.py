"""The order of the work: sweep after sweep over all tiles, resumed where it stopped."""

from collections.abc import Callable
from typing import Any

from diffnca.networks.fourier import BLOCK_PX
from diffnca.tiles.crews import Alone, Crew
from diffnca.tiles.job import Job
from diffnca.tiles.plan import Plan, parts_of
from diffnca.tiles.states import States

Progress = Callable[[float, float], object]
"""Called with the pixels times steps that are done, and with their total."""


def sample_tiled(job: Job, plan: Plan, crew: Crew | None = None, progress: Progress | None = None) -> None:
    """Make an image in tiles; all tiles, orders and crews give the pixels of an image made in memory.

    The work resumes an earlier run, which may have had other tiles, another crew or another device. The
    caller makes sure that both runs make the same image.

    Args:
        job: what to make, and where.
        plan: the tiles and sweeps.
        crew: who computes; `None` is this process.
        progress: called after each tile.

    Raises:
        ValueError: a tile is no union of chunks, or the model must see the whole image.
        OSError: the store cannot be read or written; finished tiles are kept.
        ChildProcessError: a worker died; finished tiles are kept.
    """
    states = job.states
    if plan.tile_px % states.chunk_px:
        allowed = f"a multiple of {states.chunk_px} px, the chunks of the states"
        raise ValueError(f"tile={plan.tile_px} px: must be {allowed}")
    with (crew or Alone()).hired(job) as done:
        for steps in remaining(job, plan):
            tiles = plan.tiles(steps)
            _keep(states, steps.start, steps.stop)
            if job.denoiser.has_context and len(tiles) > 1 and not job.walk.adds_noise(steps.start):
                _sum_context(job, plan, steps.start, done)
            pending = missing(job, steps.stop, tiles)
            if steps.stop < job.num_steps:
                states.create(steps.stop)
            _report(progress, job, steps, len(pending) / len(tiles))
            for count, _ in enumerate(done(("advance", tile, steps) for tile in pending), start=1):
                _report(progress, job, steps, (len(pending) - count) / len(tiles))
            if missing(job, steps.stop, tiles):
                raise OSError("the store has lost tiles that were finished")
            _keep(states, steps.stop, steps.stop)


def missing(job: Job, step: int, tiles: list[Any]) -> list[Any]:
    """Return the tiles that are not finished up to `step`."""
    if step == job.num_steps:
        return [tile for tile in tiles if not job.writer.is_written(tile)]
    return job.states.missing(step, tiles)


def remaining(job: Job, plan: Plan) -> list[range]:
    """Return the remaining sweeps: first the sweep that was begun, then sweeps of the plan."""
    if not missing(job, job.num_steps, plan.tiles(range(job.num_steps))):
        return []
    there, begun = job.states.steps(), []
    start = there[-1] if there else 0
    if there and job.states.missing(start, plan.tiles(range(start))):
        start = there[-2] if len(there) > 1 else 0
        was_one_tile = job.denoiser.has_context and there[-1] - start > 1  # which saw the whole canvas
        if not was_one_tile:
            begun, start = [range(start, there[-1])], there[-1]
    return [*begun, *parts_of(range(start, job.num_steps), plan.fused)]


def _keep(states: States, first: int, last: int) -> None:
    for step in states.steps():
        if not first <= step <= last:
            states.delete(step)


def _sum_context(job: Job, plan: Plan, step: int, done: Any) -> None:
    """Sum up the context before `step`, unless it exists; parts are unions of blocks, so no bit changes."""
    if job.states.read_context(step) is None:
        side = BLOCK_PX * max(1, plan.tile_px // BLOCK_PX)
        parts = plan.canvas.whole.tiles(side, side)
        shares = done(("context", part, range(step, step + 1)) for part in parts)
        job.states.write_context(step, sum(share for _, share in shares))


def _report(progress: Progress | None, job: Job, steps: range, pending: float) -> None:
    if progress is not None:
        area = float(job.task.canvas.whole.area)
        progress((steps.start + len(steps) * (1.0 - pending)) * area, job.num_steps * area)
