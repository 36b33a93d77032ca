"""One tile: what a worker must know, how it moves a tile some steps on, and which jobs a process knows."""

import threading
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Region
from diffnca.config.networks import StageWork
from diffnca.diffusion.denoiser import ImageDenoiser, Query
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.walk import Walk
from diffnca.engine import Engine
from diffnca.engine.machine import device_named
from diffnca.sampling.arguments import undisturbed
from diffnca.sampling.guidance import prepare
from diffnca.sampling.task import Task, check_parts, stage_works
from diffnca.tiles.states import States


@runtime_checkable
class TileWriter(Protocol):
    """Takes the finished pixels of tiles, in any order, possibly twice and from many processes."""

    def write(self, region: Region, pixels: UInt8[np.ndarray, "h w c"]) -> None:
        """Write the pixels of `region`."""

    def is_written(self, region: Region) -> bool:
        """Return whether all pixels of `region` are written."""


@dataclass(frozen=True)
class Job:
    """All that a worker must know to compute any tile of an image; a job can be sent to another machine.

    The denoiser is the model as trained. The states keep the image between sweeps, and the writer takes the
    finished pixels. The device `"auto"` is a GPU if the worker has one.
    """

    denoiser: ImageDenoiser
    task: Task
    sampler: Sampler
    seed: int
    states: States
    writer: TileWriter
    device: str = "auto"
    engine: Engine = "auto"

    @property
    def num_steps(self) -> int:
        """Diffusion steps from noise to image."""
        return len(self.task.levels)

    @property
    def radius(self) -> int:
        """How many pixels one step sees: the radius of the denoiser plus the reach of the constraint."""
        return check_parts(self.denoiser) + self.task.reach

    @property
    def stages(self) -> tuple[StageWork, ...]:
        """What each stage of the denoiser computes in a step, with the reach of the constraint."""
        return tuple(each.beside(self.task.reach) for each in stage_works(self.denoiser, self.task.canvas))

    @cached_property
    def place(self) -> torch.device:
        """The device of this process."""
        return torch.device(device_named(self.device))

    @cached_property
    def walk(self) -> Walk:
        """The walk of the whole image."""
        return self.task.walk(self.sampler, Noise((self.seed,), self.place))

    @cached_property
    def ready(self) -> ImageDenoiser:
        """The prepared model; each process prepares it once."""
        return prepare(self.denoiser, self.place, self.engine)

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @undisturbed()
    def advance(self, tile: Region, steps: range) -> None:
        """Move the pixels of `tile` through some steps; the state must reach `radius` px further per step."""
        around = tile.grow(self.radius * len(steps))
        x = self.before(steps.start, around)
        remembered = self.states.read_estimate(steps.start, around) if steps.start else None
        remembered = None if remembered is None else remembered.to(x)
        estimate = partial(self._estimate, steps.start)
        x, memory = self.walk.run(estimate, x, tile, self.radius, steps, remembered)
        if steps.stop == self.num_steps:
            self.writer.write(tile, to_uint8(x.clamp(-1.0, 1.0))[0])
        else:  # a step that adds noise leaves no estimate, and none is read
            self.states.write(steps.stop, tile, x, x if memory is None else memory.x_0_estimate)

    @undisturbed()
    def context(self, part: Region, step: int) -> Tensor:
        """Return what a part of the canvas adds to the context before `step`."""
        context = self.ready.context(self.walk.query(self.before(step, part), step, part))
        assert context is not None
        return context.cpu()

    def before(self, step: int, region: Region) -> Tensor:
        """Return the image before `step`."""
        if step == 0:
            return self.task.initial(region, self.walk.noise)
        return self.states.read_image(step, region).to(self.place)

    def _estimate(self, step: int, query: Query) -> Tensor:
        context = None
        if self.denoiser.has_context:
            if query.region == query.region.canvas.whole:
                context = self.ready.context(query)
            else:
                context = self.states.read_context(step)  # such a sweep has one step
                assert context is not None, "the context is summed up before the tiles are computed"
                context = context.to(query.x_t.device)
        return self.ready.estimate(replace(query, context=context))


Piece = tuple[str, Region, range]
"""A piece of work: the action, the region and the steps of `work`."""

learnt: dict[str, Job] = {}

_one_at_a_time = threading.Lock()


def do(key: str, action: str, region: Region, steps: range) -> Tensor | None:
    """Do a piece of a job that this process has learnt; pieces wait for each other."""
    with _one_at_a_time:
        return work(learnt[key], action, region, steps)


def work(job: Job, action: str, region: Region, steps: range) -> Tensor | None:
    """Do one piece of work of a sweep."""
    if action == "context":
        return job.context(region, steps.start)
    job.advance(region, steps)
    return None
