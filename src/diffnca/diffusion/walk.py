"""The walk from noise to image: all diffusion steps, and the constraint after each step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.denoiser import Query
from diffnca.diffusion.samplers import Memory, Sampler, Step, add_noise, fresh_variance
from diffnca.diffusion.schedule import CLEAN, Level

Progress = Callable[[int, int], object]
"""Receives, after each step, the number of steps done and the number of all steps."""

Planes = Callable[[Region], Tensor]
"""Returns the given planes (b or 1, k, h, w) on a region."""


@runtime_checkable
class Constraint(Protocol):
    """What is known of an image. The walk imposes it after each step."""

    def reach(self, canvas: Canvas) -> int:
        """Return how many pixels around a pixel `impose` needs."""

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x`, at `level` on `region`, with the constraint; correct up to `reach` px from inner edges.

        `level` may be the clean level. Random numbers are drawn for `step`, the next diffusion step.
        """


@dataclass(frozen=True)
class Walk:
    """The diffusion steps from noise to image. A caller may run only some steps, on some region.

    Attributes:
        levels: all but the clean end; a step to a noisier level adds noise, to draw anew what did not fit.
        noise: the random numbers; the n-th step draws the numbers of diffusion step n.
        constraint: what is known of the image; `None` if nothing is known.
        given: returns the planes that the cells see; `None` for none.
    """

    levels: tuple[Level, ...]
    sampler: Sampler
    noise: Noise
    constraint: Constraint | None = None
    given: Planes | None = None

    def run(
        self,
        estimate: Callable[[Query], Tensor],
        x: Float[Tensor, "b c y x"],
        region: Region,
        radius: int = 0,
        steps: range | None = None,
        remembered: Float[Tensor, "b c v u"] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], Memory | None]:
        """Take some steps; return the image on `region` and the memory of the sampler.

        A step is correct up to `radius` px from an edge inside the canvas. So the regions shrink by `radius`
        with each step: the first step runs on `region.grow(radius * (len(steps) - 1))`.

        Args:
            estimate: estimates the clean image; the queries have no context.
            x: the image before the first step, on `region.grow(radius * len(steps))`.
            region: where the image is wanted.
            radius: radius of the estimate plus the reach of the constraint, in pixels.
            steps: consecutive steps to take; `None` is all steps.
            remembered: the estimate of the previous step, where `x` lies; `None` if there is none.
            progress: receives, after each step, how many of these steps are done.
        """
        path, steps = (*self.levels, CLEAN), steps or range(len(self.levels))
        memory = None
        if remembered is not None and not self.adds_noise(steps.start - 1):
            memory = Memory(remembered, path[steps.start - 1])
        known = region.grow(radius * len(steps))
        for done, step in enumerate(steps, start=1):
            here = region.grow(radius * (len(steps) - done))
            if self.adds_noise(step):
                x, memory = self._noised(here.crop(x, of=known), step, here), None
            else:
                clean = estimate(self.query(x, step, known))
                x, memory = self._step(x, clean, step, here, known, memory)
            known = here
            if progress is not None:
                progress(done, len(steps))
        return x, memory

    def query(self, x_t: Float[Tensor, "b c h w"], step: int, region: Region) -> Query:
        """Return the query to the denoiser before a step."""
        given = None
        if self.given is not None:
            given = self.given(region).to(x_t).expand(len(x_t), -1, -1, -1)
        return Query(x_t, self.levels[step], region, self.noise.at(step), given=given)

    def adds_noise(self, step: int) -> bool:
        """Return whether a step goes back to a noisier level."""
        level_t, level_s = (*self.levels, CLEAN)[step : step + 2]
        return level_s.sigma > level_t.sigma

    def _noised(self, x_t: Tensor, step: int, region: Region) -> Tensor:
        level_t, level_s = self.levels[step : step + 2]
        fresh = self.noise.normal(Stream.STEP, step, region, x_t.shape[1]).to(x_t)
        variance = fresh_variance(level_s, level_t)
        return add_noise((level_s.alpha / level_t.alpha) * x_t, math.sqrt(variance), fresh)

    def _step(
        self, x_t: Tensor, clean: Tensor, step: int, region: Region, known: Region, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        level_t, level_s = (*self.levels, CLEAN)[step : step + 2]
        seen = region if self.constraint is None else region.grow(self.constraint.reach(region.canvas))
        is_noisy = self.sampler.is_stochastic and level_s.sigma > 0.0
        fresh = self.noise.normal(Stream.STEP, step, seen, x_t.shape[1]).to(x_t) if is_noisy else None
        x_t, clean = seen.crop(x_t, of=known), seen.crop(clean, of=known)
        at = Step(x_t, clean, level_t, level_s, fresh, _part(memory, seen, known))
        x, memory = self.sampler.step(at)
        if self.constraint is not None:
            x = self.constraint.impose(x, level_s, step + 1, seen, self.noise)
        return region.crop(x, of=seen), _part(memory, region, seen)


def _part(memory: Memory | None, region: Region, of: Region) -> Memory | None:
    return None if memory is None else Memory(region.crop(memory.x_0_estimate, of), memory.level)
