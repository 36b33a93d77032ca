"""One reverse step, by three methods.

A step goes from the noise level t to a less noisy level s, which may be the clean level (`sigma_s = 0`). The
levels may be any distance apart. With `log_snr` = 2 lambda:

| symbol | meaning |
|---|---|
| `x_t`, `x_s` | noisy image at t, at s |
| `x_0_estimate` | estimate of the clean image from `x_t` |
| `ratio` | `alpha_t / alpha_s`, the share of the image that survives from s to t |
| `h` | `lambda_s - lambda_t`, the length of the step |

Coefficients are Python floats (float64) and meet the image only in `a * x + b * y`. The product and the sum
are rounded separately. So each pixel gets equal bits wherever the pixel lies in memory.

References:
    [1] Ho et al., "Denoising Diffusion Probabilistic Models", 2020.
    [2] Song et al., "Denoising Diffusion Implicit Models", 2021.
    [3] Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022.
    [4] Kingma et al., "Variational Diffusion Models", 2021.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from diffnca.config.model import SamplerName
from diffnca.diffusion.schedule import Level
from diffnca.errors import require, require_members

SAMPLERS = get_args(SamplerName)


class Memory(NamedTuple):
    """What a multistep sampler keeps of the previous step."""

    x_0_estimate: Tensor
    level: Level


class Step(NamedTuple):
    """One reverse step, from level t to the less noisy level s.

    `noise` is standard normal; `None` if the sampler is not stochastic, or s is clean. `memory` is what the
    previous step returned; `None` at the first step.
    """

    x_t: Float[Tensor, "b c h w"]
    x_0_estimate: Float[Tensor, "b c h w"]
    level_t: Level
    level_s: Level
    noise: Float[Tensor, "b c h w"] | None = None
    memory: Memory | None = None


@runtime_checkable
class Sampler(Protocol):
    """A method to take one reverse step, without state: any frozen dataclass with these members."""

    @property
    def name(self) -> str:
        """Short name for `sampler_named` and the command line."""

    @property
    def is_stochastic(self) -> bool:
        """Whether `step` uses fresh noise."""

    @property
    def is_multistep(self) -> bool:
        """Whether `step` keeps a memory for the next step."""

    def step(self, at: Step) -> tuple[Float[Tensor, "b c h w"], Memory | None]:
        """Go from level t to the less noisy level s; return `x_s` and the memory for the next step."""


@dataclass(frozen=True)
class DDPM:
    """Ancestral sampling with the posterior variance ([1] Algorithm 2; between any levels, [4] appendix A.2).

    Order: 1, in distribution. Calls of the denoiser per step: 1. Stochastic: yes.
    """

    name = "ddpm"
    is_stochastic = True
    is_multistep = False

    def step(self, at: Step) -> tuple[Float[Tensor, "b c h w"], None]:
        """Draw `x_s` from its distribution, given `x_t` and the estimate."""
        level_t, level_s = at.level_t, at.level_s
        ratio = level_t.alpha / level_s.alpha
        share = fresh_variance(level_t, level_s) / level_t.sigma**2
        kept = ratio * level_s.sigma**2 / level_t.sigma**2
        mean = kept * at.x_t + (level_s.alpha * share) * at.x_0_estimate  # [1] Eq. 7
        return add_noise(mean, level_s.sigma * math.sqrt(share), at.noise), None


@dataclass(frozen=True)
class DDIM:
    """Non-Markovian sampling ([2] Eq. 12); `eta = 0` is the Euler method of the probability-flow equation.

    Order: 1. Calls of the denoiser per step: 1. Stochastic: only with `eta > 0`; `eta = 1` is DDPM.

    Attributes:
        eta: fresh noise as a share of the noise that DDPM adds, in [0, 1].
    """

    eta: float = 0.0
    name = "ddim"
    is_multistep = False

    def __post_init__(self) -> None:
        require(0.0 <= self.eta <= 1.0, "eta", self.eta, "from 0 (deterministic) to 1 (as DDPM)")

    @property
    def is_stochastic(self) -> bool:
        """Whether `step` uses fresh noise."""
        return self.eta > 0.0

    def step(self, at: Step) -> tuple[Float[Tensor, "b c h w"], None]:
        """Keep the noise of `x_t`, except for the share that fresh noise replaces."""
        level_t, level_s = at.level_t, at.level_s
        share = self.eta**2 * fresh_variance(level_t, level_s) / level_t.sigma**2  # [2] Eq. 16
        kept = level_s.sigma * math.sqrt(max(1.0 - share, 0.0)) / level_t.sigma
        mean = kept * at.x_t + (level_s.alpha - kept * level_t.alpha) * at.x_0_estimate
        return add_noise(mean, level_s.sigma * math.sqrt(share), at.noise), None


@dataclass(frozen=True)
class DPMSolverPP2M:
    """DPM-Solver++ with two steps of memory ([3] Algorithm 2): an exponential integrator in lambda.

    Order: 2. Two steps are of order 1: the first step, which has no memory, and the step to the clean image,
    which is infinitely long in lambda. Calls of the denoiser per step: 1. Stochastic: no.
    """

    name = "dpmpp2m"
    is_stochastic = False
    is_multistep = True

    def step(self, at: Step) -> tuple[Float[Tensor, "b c h w"], Memory]:
        """Extend a line through the last two estimates, and integrate the line over the step."""
        level_t, level_s, memory = at.level_t, at.level_s, at.memory
        kept = level_s.sigma / level_t.sigma
        weight = level_s.alpha - kept * level_t.alpha  # alpha_s * (1 - exp(-h))
        if memory is None or level_s.sigma == 0.0:
            x_s = kept * at.x_t + weight * at.x_0_estimate
        else:
            h = level_s.log_snr - level_t.log_snr  # twice h; the divisor is doubled too
            lead = 0.5 * h / (level_t.log_snr - memory.level.log_snr)  # 1 / (2 r)
            mean = kept * at.x_t + (weight * (1.0 + lead)) * at.x_0_estimate
            x_s = mean - (weight * lead) * memory.x_0_estimate
        return x_s, Memory(at.x_0_estimate, level_t)


def sampler_of(choice: str | Sampler) -> Sampler:
    """Return the sampler of this name, or the given sampler itself; refuse a sampler that lacks a member."""
    if isinstance(choice, str):
        return sampler_named(choice)
    require_members("sampler", choice, vars(Sampler))
    return choice


def sampler_named(name: str) -> Sampler:
    """Return the sampler of this name; refuse unknown names."""
    match name:
        case "ddpm":
            return DDPM()
        case "ddim":
            return DDIM()
        case "dpmpp2m":
            return DPMSolverPP2M()
        case _:
            raise ValueError(f"sampler={name!r}: must be one of {', '.join(SAMPLERS)}")


def fresh_variance(level_t: Level, level_s: Level) -> float:
    """Return the variance of the noise that is added from s to t ([4] appendix A.1)."""
    return level_t.sigma**2 - (level_t.alpha / level_s.alpha * level_s.sigma) ** 2


def add_noise(mean: Tensor, deviation: float, noise: Tensor | None) -> Tensor:
    """Return `mean` plus noise of this standard deviation, which may be 0."""
    if deviation == 0.0:
        return mean
    assert noise is not None, "a stochastic step needs noise"
    return mean + deviation * noise
