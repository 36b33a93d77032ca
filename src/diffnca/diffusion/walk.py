"""The walk from noise to image: a sampler's steps, one after the other, and what is known of the image."""

from __future__ import annotations

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
"""Is told after each step how many of how many are done."""

Planes = Callable[[Region], Tensor]
"""Gives the planes (b or 1, k, h, w) that the cells of a region see."""


@runtime_checkable
class Constraint(Protocol):
    """What is known of an image, and imposed on it after each step."""

    def reach(self, canvas: Canvas) -> int:
        """Return the pixels around a pixel that must be there to impose it."""
        ...

    def impose(
        self, x: Float[Tensor, "b c h w"], level: Level, step: int, region: Region, noise: Noise
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with what is known of it, good up to `reach` px from edges inside the canvas.

        Args:
            x: the image at this noise level.
            level: the level, which may be the clean one.
            step: the diffusion step that comes next; the random numbers are drawn for it.
            region: where `x` lies.
            noise: the random numbers of the images.
        """
        ...


@dataclass(frozen=True)
class Walk:
    """The way from noise to image, which may be gone in parts: some steps, on some region.

    Attributes:
        levels: the levels to visit; the clean end is implied. Where the next one is noisier, the step there
            adds new noise instead of removing some: a jump back, to draw again what did not fit.
        sampler: how to take a step.
        noise: the random numbers; the n-th step draws those of diffusion step n.
        constraint: what is known of the image; `None` if nothing is.
        given: gives the planes that the cells see; `None` for none.
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
        """Take some steps and return the image on `region`, and what the sampler keeps.

        A step is good up to `radius` px from an edge that lies inside the canvas. So the steps are taken on
        regions that shrink by as much: the first one on `region.grow(radius * (len(steps) - 1))`.

        Args:
            estimate: estimates the clean image; the queries have no context.
            x: the image before the first step, on `region.grow(radius * len(steps))`.
            region: where the image is wanted.
            radius: how far one step sees: the estimate, and beyond it what is known.
            steps: which steps to take, consecutive; `None` is all.
            remembered: the estimate of the step before, where `x` lies; `None` if the sampler keeps none or
                the walk begins.
            progress: told after each step how many of these steps are done.
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
        """Return the question to the denoiser before a step."""
        given = None
        if self.given is not None:
            given = self.given(region).to(x_t).expand(len(x_t), -1, -1, -1)
        return Query(x_t, self.levels[step], region, self.noise.at(step), given=given)

    def adds_noise(self, step: int) -> bool:
        """Return whether a step goes back to a noisier level."""
        level_t, level_s = (*self.levels, CLEAN)[step : step + 2]
        return level_s.sigma > level_t.sigma

    def _noised(self, x_t: Tensor, step: int, region: Region) -> Tensor:
        """Go back to the noisier level that follows."""
        level_t, level_s = self.levels[step : step + 2]
        fresh = self.noise.normal(Stream.STEP, step, region, x_t.shape[1]).to(x_t)
        variance = fresh_variance(level_s, level_t)
        return add_noise((level_s.alpha / level_t.alpha) * x_t, math.sqrt(variance), fresh)

    def _step(
        self, x_t: Tensor, clean: Tensor, step: int, region: Region, known: Region, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Take one step from the image on `known` to that on `region`, and impose what is known of it."""
        level_t, level_s = (*self.levels, CLEAN)[step : step + 2]
        seen = region if self.constraint is None else region.grow(self.constraint.reach(region.canvas))
        is_noisy = self.sampler.is_stochastic and level_s.sigma > 0.0
        fresh = self.noise.normal(Stream.STEP, step, seen, x_t.shape[1]).to(x_t) if is_noisy else None
        x_t, clean = seen.crop(x_t, of=known), seen.crop(clean, of=known)
        if memory is not None:
            memory = Memory(seen.crop(memory.x_0_estimate, of=known), memory.level)
        x, memory = self.sampler.step(Step(x_t, clean, level_t, level_s, fresh, memory))
        if self.constraint is None:
            return x, memory
        x = self.constraint.impose(x, level_s, step + 1, seen, self.noise)
        if memory is not None:
            memory = Memory(region.crop(memory.x_0_estimate, of=seen), memory.level)
        return region.crop(x, of=seen), memory
