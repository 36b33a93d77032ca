"""One reverse step, by three methods, and the loop that walks from noise to image.

A step goes from the noise level t to a less noisy level s, which may be the clean image (`sigma_s = 0`); they
may be any distance apart. With `log_snr` = 2 lambda:

| symbol | meaning |
|---|---|
| `x_t`, `x_s` | noisy image at t, at s |
| `x_0_estimate` | clean image as estimated from `x_t` |
| `ratio` | `alpha_t / alpha_s`, the image that survives from s to t |
| `h` | `lambda_s - lambda_t`, the length of the step |

Coefficients are Python floats (float64) and meet the image only in `a * x + b * y`: a product and a sum, each
rounded by itself, give every pixel the same bits wherever it lies in memory.

References:
    [1] Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    [2] Song et al., "Denoising Diffusion Implicit Models", 2021.
    [3] Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022.
    [4] Kingma et al., "Variational Diffusion Models", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from diffnca.canvas.noise import CellNoise, Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.schedule import CLEAN, Level

SAMPLERS = ("ddpm", "ddim", "dpmpp2m")
"""The names that `sampler_named` knows."""

Denoise = Callable[[Tensor, Level, Region, CellNoise], Tensor]
"""Estimates the clean image: `(x_t, level_t, region, cell_noise) -> x_0_estimate`."""


Progress = Callable[[int, int], object]
"""Is told after each step how many of how many are done."""


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


class Memory(NamedTuple):
    """What a multistep sampler keeps of the step before."""

    x_0_estimate: Tensor
    level: Level


@runtime_checkable
class Sampler(Protocol):
    """A method to take one reverse step. It holds no state: the same arguments give the same result."""

    @property
    def name(self) -> str:
        """Short name, as `sampler_named` and the command line know it."""
        ...

    @property
    def is_stochastic(self) -> bool:
        """Whether `step` uses fresh noise."""
        ...

    @property
    def is_multistep(self) -> bool:
        """Whether `step` keeps something for the next."""
        ...

    def step(
        self,
        x_t: Float[Tensor, "b c h w"],
        x_0_estimate: Float[Tensor, "b c h w"],
        level_t: Level,
        level_s: Level,
        noise: Float[Tensor, "b c h w"] | None,
        memory: Memory | None,
    ) -> tuple[Float[Tensor, "b c h w"], Memory | None]:
        """Go from level t to the less noisy level s.

        Args:
            x_t: the noisy image.
            x_0_estimate: the clean image as estimated from it.
            level_t: the level of `x_t`.
            level_s: the level to reach.
            noise: standard normal numbers; `None` if the sampler is not stochastic, or s is clean.
            memory: what the step before returned; `None` at the first.

        Returns:
            `x_s`, and the memory for the next step.
        """
        ...


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling with the posterior variance ([1] Algorithm 2; between any levels, [4] appendix A.2).

    Order: 1, in distribution. Calls of the denoiser per step: 1. Stochastic: yes.
    """

    name = "ddpm"
    is_stochastic = True
    is_multistep = False

    def step(
        self,
        x_t: Float[Tensor, "b c h w"],
        x_0_estimate: Float[Tensor, "b c h w"],
        level_t: Level,
        level_s: Level,
        noise: Float[Tensor, "b c h w"] | None,
        memory: Memory | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], None]:
        """Draw `x_s` from its distribution given `x_t` and the estimate."""
        ratio = level_t.alpha / level_s.alpha
        share = _fresh_variance(level_t, level_s) / level_t.sigma**2
        kept = ratio * level_s.sigma**2 / level_t.sigma**2
        mean = kept * x_t + (level_s.alpha * share) * x_0_estimate  # [1] Eq. 7
        return _add_noise(mean, level_s.sigma * math.sqrt(share), noise), None


@dataclass(frozen=True)
class DDIM:
    """Non-Markovian sampling ([2] Eq. 12); with `eta = 0` the Euler method of the probability-flow equation.

    Order: 1. Calls of the denoiser per step: 1. Stochastic: only with `eta > 0`; `eta = 1` is DDPM.

    Attributes:
        eta: fresh noise as a share of what DDPM adds, in [0, 1].
    """

    eta: float = 0.0
    name = "ddim"
    is_multistep = False

    def __post_init__(self) -> None:
        """Refuse shares that leave no noise level."""
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta}: must be from 0 (deterministic) to 1 (as DDPM)")

    @property
    def is_stochastic(self) -> bool:
        """Whether `step` uses fresh noise."""
        return self.eta > 0.0

    def step(
        self,
        x_t: Float[Tensor, "b c h w"],
        x_0_estimate: Float[Tensor, "b c h w"],
        level_t: Level,
        level_s: Level,
        noise: Float[Tensor, "b c h w"] | None,
        memory: Memory | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], None]:
        """Keep the noise that `x_t` holds, up to the share that fresh noise replaces."""
        share = self.eta**2 * _fresh_variance(level_t, level_s) / level_t.sigma**2  # [2] Eq. 16
        kept = level_s.sigma * math.sqrt(max(1.0 - share, 0.0)) / level_t.sigma
        mean = kept * x_t + (level_s.alpha - kept * level_t.alpha) * x_0_estimate
        return _add_noise(mean, level_s.sigma * math.sqrt(share), noise), None


@dataclass(frozen=True)
class DPMSolverPP2M:
    """DPM-Solver++ with two steps of memory ([3] Algorithm 2): an exponential integrator in lambda.

    Order: 2; the first step, which has no memory, and the one to the clean image, which is infinitely long in
    lambda, are of order 1. Calls of the denoiser per step: 1. Stochastic: no.
    """

    name = "dpmpp2m"
    is_stochastic = False
    is_multistep = True

    def step(
        self,
        x_t: Float[Tensor, "b c h w"],
        x_0_estimate: Float[Tensor, "b c h w"],
        level_t: Level,
        level_s: Level,
        noise: Float[Tensor, "b c h w"] | None = None,
        memory: Memory | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], Memory]:
        """Integrate the estimate, drawn as a line through the last two, over the step."""
        kept = level_s.sigma / level_t.sigma
        weight = level_s.alpha - kept * level_t.alpha  # alpha_s * (1 - exp(-h))
        if memory is None or level_s.sigma == 0.0:
            x_s = kept * x_t + weight * x_0_estimate
        else:
            h = level_s.log_snr - level_t.log_snr  # twice, like the one it is divided by
            lead = 0.5 * h / (level_t.log_snr - memory.level.log_snr)  # 1 / (2 r)
            mean = kept * x_t + (weight * (1.0 + lead)) * x_0_estimate
            x_s = mean - (weight * lead) * memory.x_0_estimate
        return x_s, Memory(x_0_estimate, level_t)


def sampler_named(name: str) -> Sampler:
    """Return a sampler by its name.

    Raises:
        ValueError: there is none of this name.
    """
    match name:
        case "ddpm":
            return DDPM()
        case "ddim":
            return DDIM()
        case "dpmpp2m":
            return DPMSolverPP2M()
        case _:
            raise ValueError(f"sampler={name!r}: must be one of {', '.join(SAMPLERS)}")


def sample(
    denoise: Denoise,
    x: Float[Tensor, "b c h w"],
    levels: Sequence[Level],
    region: Region,
    sampler: Sampler,
    noise: Noise,
    constraint: Constraint | None = None,
    progress: Progress | None = None,
) -> Float[Tensor, "b c h w"]:
    """Walk from `x`, which is at `levels[0]`, through all levels to the clean image.

    Args:
        denoise: estimates the clean image.
        x: where to start.
        levels: the levels to visit, without the clean one that ends them; where the next one is noisier, new
            noise is added.
        region: where `x` lies, usually the whole canvas.
        sampler: how to take a step.
        noise: the random numbers; the n-th step draws those of diffusion step n.
        constraint: what is known of the image; `None` if nothing is.
        progress: told after each step how many are done.
    """
    walk = Walk(tuple(levels), sampler, noise, constraint)
    return walk.run(denoise, x, region, progress=progress)[0]


@dataclass(frozen=True)
class Walk:
    """The way from noise to image, which may be gone in parts: some steps, on some region.

    Attributes:
        levels: the levels to visit; the clean end is implied. Where the next one is noisier, the step there
            adds new noise instead of removing some: a jump back, to draw again what did not fit.
        sampler: how to take a step.
        noise: the random numbers; the n-th step draws those of diffusion step n.
        constraint: what is known of the image; `None` if nothing is.
    """

    levels: tuple[Level, ...]
    sampler: Sampler
    noise: Noise
    constraint: Constraint | None = None

    def run(
        self,
        denoise: Denoise,
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
            denoise: estimates the clean image.
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
                estimate = denoise(x, path[step], known, self.noise.at(step))
                x, memory = self._step(x, estimate, step, here, known, memory)
            known = here
            if progress is not None:
                progress(done, len(steps))
        return x, memory

    def adds_noise(self, step: int) -> bool:
        """Return whether a step goes back to a noisier level."""
        level_t, level_s = (*self.levels, CLEAN)[step : step + 2]
        return level_s.sigma > level_t.sigma

    def _noised(self, x_t: Tensor, step: int, region: Region) -> Tensor:
        """Go back to the noisier level that follows."""
        level_t, level_s = self.levels[step : step + 2]
        fresh = self.noise.normal(Stream.STEP, step, region, x_t.shape[1]).to(x_t)
        variance = _fresh_variance(level_s, level_t)
        return _add_noise((level_s.alpha / level_t.alpha) * x_t, math.sqrt(variance), fresh)

    def _step(
        self, x_t: Tensor, estimate: Tensor, step: int, region: Region, known: Region, memory: Memory | None
    ) -> tuple[Tensor, Memory | None]:
        """Take one step from the image on `known` to that on `region`, and impose what is known of it."""
        level_t, level_s = (*self.levels, CLEAN)[step : step + 2]
        seen = region if self.constraint is None else region.grow(self.constraint.reach(region.canvas))
        is_noisy = self.sampler.is_stochastic and level_s.sigma > 0.0
        fresh = self.noise.normal(Stream.STEP, step, seen, x_t.shape[1]).to(x_t) if is_noisy else None
        x_t, estimate = seen.crop(x_t, of=known), seen.crop(estimate, of=known)
        if memory is not None:
            memory = Memory(seen.crop(memory.x_0_estimate, of=known), memory.level)
        x, memory = self.sampler.step(x_t, estimate, level_t, level_s, fresh, memory)
        if self.constraint is None:
            return x, memory
        x = self.constraint.impose(x, level_s, step + 1, seen, self.noise)
        if memory is not None:
            memory = Memory(region.crop(memory.x_0_estimate, of=seen), memory.level)
        return region.crop(x, of=seen), memory


def _fresh_variance(level_t: Level, level_s: Level) -> float:
    """Return the variance of the noise that comes in between s and t ([4] appendix A.1)."""
    return level_t.sigma**2 - (level_t.alpha / level_s.alpha * level_s.sigma) ** 2


def _add_noise(mean: Tensor, deviation: float, noise: Tensor | None) -> Tensor:
    """Return `mean` with noise of this standard deviation, which may be none."""
    if deviation == 0.0:
        return mean
    assert noise is not None, "a stochastic step needs noise"
    return mean + deviation * noise
