"""The samplers: on Gaussian data, whose denoiser has a closed form, and against those of diffusers."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.denoiser import Query
from diffnca.diffusion.samplers import (
    DDIM,
    DDPM,
    SAMPLERS,
    DPMSolverPP2M,
    Sampler,
    Step,
    sampler_named,
)
from diffnca.diffusion.schedule import CLEAN, Level, NoiseSchedule
from diffnca.diffusion.walk import Constraint, Walk

MEAN, DEVIATION = 0.3, 0.4  # of the Gaussian data
ALL = [DDPM(), DDIM(), DDIM(eta=0.5), DDIM(eta=1.0), DPMSolverPP2M()]
each_sampler = pytest.mark.parametrize("sampler", ALL, ids=str)
DETERMINISTIC = [sampler for sampler in ALL if not sampler.is_stochastic]


def level_of(log_snr: float) -> Level:
    return Level(0, math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr))))


def evenly(num_steps: int, first: float = -8.0, last: float = 6.0) -> list[Level]:
    return [level_of(first + (last - first) * k / num_steps) for k in range(num_steps + 1)]


def visited(schedule: NoiseSchedule, num_steps: int) -> list[Level]:
    return [*(schedule.level(i) for i in schedule.visited(num_steps)), CLEAN]


def deviation_at(level: Level, deviation: float = DEVIATION) -> float:
    """Return the standard deviation of the noisy Gaussian data."""
    return math.hypot(level.alpha * deviation, level.sigma)


def gaussian_estimate(x_t: Tensor, level: Level, deviation: float = DEVIATION) -> Tensor:
    """Return the mean of the clean image given the noisy one."""
    slope = level.alpha * deviation**2 / deviation_at(level, deviation) ** 2
    return MEAN + slope * (x_t - level.alpha * MEAN)


def moments(sampler: Sampler, levels: Sequence[Level], deviation: float = DEVIATION) -> tuple[float, float]:
    """Return mean and standard deviation of what a sampler makes of Gaussian data, without random numbers.

    Each step is affine in its image and its noise. So walk a batch: image 0 has no noise at all, image 1 only
    the initial one, image k + 2 only that of step k, each of them 1. The squares of the differences add up.
    """
    first, num_steps = levels[0], len(levels) - 1
    x = torch.full((num_steps + 2, 1, 1, 1), first.alpha * MEAN, dtype=torch.float64)
    x[1] += deviation_at(first, deviation)
    memory = None
    for k in range(num_steps):
        noise = torch.zeros_like(x)
        noise[k + 2] = 1.0
        estimate = gaussian_estimate(x, levels[k], deviation)
        fresh = noise if sampler.is_stochastic else None
        x, memory = sampler.step(Step(x, estimate, levels[k], levels[k + 1], fresh, memory))
    return x[0].item(), (x[1:] - x[0]).norm().item()


def order(sampler: Sampler) -> float:
    """Return the slope of the logarithm of the error against that of the number of steps."""
    numbers, errors = [64, 128, 256, 512], []
    for num_steps in numbers:
        levels = evenly(num_steps)
        _, deviation = moments(sampler, levels)
        errors.append(abs(deviation - deviation_at(levels[-1])))
    return -float(np.polyfit(np.log(numbers), np.log(errors), 1)[0])


def some_images(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x_t, x_0, noise = torch.randn(3, 2, 3, 5, 7, generator=generator, dtype=dtype)
    return x_t, x_0, noise


@each_sampler
def test_all_steps_reach_the_mean_of_gaussian_data(sampler: Sampler) -> None:
    mean, _ = moments(sampler, visited(NoiseSchedule.cosine(), 300))
    assert mean == pytest.approx(MEAN, abs=1e-9)


@each_sampler
def test_all_steps_reach_the_deviation_of_gaussian_data(sampler: Sampler) -> None:
    _, deviation = moments(sampler, visited(NoiseSchedule.cosine(), 300))
    assert deviation == pytest.approx(DEVIATION, rel=0.02)


@pytest.mark.parametrize("deviation", [0.05, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0])
def test_twenty_steps_keep_details_of_any_variance(deviation: float) -> None:
    _, reached = moments(DPMSolverPP2M(), visited(NoiseSchedule.cosine(), 20), deviation)
    assert reached == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(DDPM(), 1), (DDIM(), 1), (DDIM(eta=0.5), 1), (DPMSolverPP2M(), 2)],
    ids=str,
)
def test_error_falls_with_the_order_of_the_sampler(sampler: Sampler, expected: int) -> None:
    assert order(sampler) == pytest.approx(expected, abs=0.1)


@each_sampler
@pytest.mark.parametrize("num_steps", [1, 2, 7, 300])
def test_perfect_estimate_leads_to_its_image(sampler: Sampler, num_steps: int) -> None:
    x, x_0, noise = some_images()
    memory = None
    levels = visited(NoiseSchedule.cosine(), num_steps)
    for k in range(num_steps):
        x, memory = sampler.step(Step(x, x_0, levels[k], levels[k + 1], noise, memory))
    torch.testing.assert_close(x, x_0, rtol=0, atol=1e-14)


@each_sampler
@pytest.mark.parametrize(("t", "s"), [(299, 298), (299, 0), (299, 40), (80, 3), (1, 0)])
@pytest.mark.parametrize(
    "schedule", [NoiseSchedule.linear(), NoiseSchedule.cosine()], ids=["linear", "cosine"]
)
def test_perfect_estimate_keeps_the_noise_of_the_level(
    sampler: Sampler, schedule: NoiseSchedule, t: int, s: int
) -> None:
    level_t, level_s = schedule.level(t), schedule.level(s)
    noises = torch.eye(2, dtype=torch.float64)[:, :, None, None, None]  # that of x_t alone, fresh noise alone
    x_s, _ = sampler.step(
        Step(level_t.sigma * noises[0], torch.zeros_like(noises[0]), level_t, level_s, noises[1], None)
    )
    assert x_s.norm().item() == pytest.approx(level_s.sigma, rel=1e-10)


@each_sampler
def test_step_to_the_clean_level_returns_the_estimate(sampler: Sampler) -> None:
    x_t, x_0, _ = some_images(dtype=torch.float32)
    x_s, _ = sampler.step(Step(x_t, x_0, NoiseSchedule.cosine().level(299), CLEAN, None, None))
    assert torch.equal(x_s, x_0)


@each_sampler
@pytest.mark.parametrize("log_snr", [-80.0, -20.0, 0.0, 30.0])
def test_float32_step_between_extreme_levels_is_finite(sampler: Sampler, log_snr: float) -> None:
    x_t, x_0, noise = some_images(dtype=torch.float32)
    _, memory = sampler.step(Step(x_t, x_0, level_of(-90.0), level_of(log_snr), noise, None))
    x_s, _ = sampler.step(Step(x_t, x_0, level_of(log_snr), level_of(log_snr + 1.0), noise, memory))
    assert x_s.isfinite().all()
    assert x_s.dtype == torch.float32


@each_sampler
def test_step_on_a_part_is_the_part_of_the_step(sampler: Sampler) -> None:
    images = some_images(dtype=torch.float32)
    level_t, level_m, level_s = (NoiseSchedule.cosine().level(index) for index in (200, 150, 100))

    def two_steps(x_t: Tensor, x_0: Tensor, noise: Tensor) -> Tensor:
        x_m, memory = sampler.step(Step(x_t, x_0, level_t, level_m, noise, None))
        return sampler.step(Step(x_m, 0.5 * x_0, level_m, level_s, noise, memory))[0]

    part = two_steps(*(image[..., 1:4, 2:5] for image in images))
    assert torch.equal(part, two_steps(*images)[..., 1:4, 2:5])


@each_sampler
def test_step_leaves_its_arguments_as_they_are(sampler: Sampler) -> None:
    given, before = some_images(1), some_images(1)
    _, memory = sampler.step(Step(*given[:2], level_of(-2.0), level_of(-1.0), given[2], None))
    sampler.step(Step(*given[:2], level_of(-1.0), level_of(0.0), given[2], memory))
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))


@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=str)
def test_deterministic_sampler_needs_no_noise(sampler: Sampler) -> None:
    x_t, x_0, noise = some_images()
    with_noise, _ = sampler.step(Step(x_t, x_0, level_of(-1.0), level_of(1.0), noise, None))
    without, _ = sampler.step(Step(x_t, x_0, level_of(-1.0), level_of(1.0), None, None))
    assert torch.equal(with_noise, without)


def test_ddim_with_all_noise_fresh_is_ddpm() -> None:
    arguments = (*some_images()[:2], level_of(-2.0), level_of(1.0), some_images()[2], None)
    torch.testing.assert_close(
        DDIM(eta=1.0).step(Step(*arguments))[0], DDPM().step(Step(*arguments))[0], rtol=0, atol=1e-14
    )


def test_first_step_of_dpmpp2m_is_a_ddim_step() -> None:
    arguments = (*some_images()[:2], level_of(-2.0), level_of(1.0), None, None)
    torch.testing.assert_close(
        DPMSolverPP2M().step(Step(*arguments))[0], DDIM().step(Step(*arguments))[0], rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampler_of_a_name_has_that_name(name: str) -> None:
    assert sampler_named(name).name == name


@pytest.mark.parametrize("name", ["euler", "DDPM", ""])
def test_unknown_name_is_one_line_that_lists_the_known(name: str) -> None:
    with pytest.raises(ValueError, match=f"^sampler={name!r}: must be one of ddpm, ddim, dpmpp2m$"):
        sampler_named(name)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_outside_zero_to_one_is_refused(eta: float) -> None:
    with pytest.raises(ValueError, match=r"^eta=.*: must be from 0"):
        DDIM(eta)


@each_sampler
def test_docstring_tells_order_calls_and_randomness(sampler: Sampler) -> None:
    text = type(sampler).__doc__ or ""
    assert all(word in text for word in ("Order: ", "Calls of the denoiser per step: ", "Stochastic: ", "["))


# The loop


def walk(
    num_steps: int, constraint: Constraint | None = None, **options: object
) -> tuple[Tensor, list[tuple[int, int, int]]]:
    """Sample with an estimate of zero, and record the shape, step and level of each call."""
    calls = []

    def estimate(query: Query) -> Tensor:
        calls.append((query.region.height, query.cell_noise.step, query.level.index))
        return torch.zeros_like(query.x_t)

    schedule, region, noise = NoiseSchedule.cosine(10), Canvas(4, 3).whole, Noise((0,))
    levels = tuple(schedule.level(index) for index in schedule.visited(num_steps))
    there = Walk(levels, DDPM(), noise, constraint)
    return there.run(estimate, torch.ones(1, 2, 4, 3), region, **options)[0], calls


def test_loop_calls_the_denoiser_once_per_level_with_the_noise_of_that_step() -> None:
    assert walk(4)[1] == [(4, 0, 9), (4, 1, 8), (4, 2, 6), (4, 3, 0)]


def test_loop_ends_at_the_last_estimate() -> None:
    assert torch.equal(walk(4)[0], torch.zeros(1, 2, 4, 3))


class OneMore:
    """What is known: nothing, but it adds one; remembers what it is asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def reach(self, canvas: Canvas) -> int:
        return 0

    def impose(self, x: Tensor, level: Level, step: int, region: Region, noise: Noise) -> Tensor:
        self.seen.append((level.index, step))
        return x + 1.0


def test_loop_imposes_what_is_known_after_each_step_and_last_at_the_clean_level() -> None:
    known = OneMore()
    x, _ = walk(4, constraint=known)
    assert known.seen == [(8, 1), (6, 2), (0, 3), (-1, 4)]
    assert torch.equal(x, torch.ones(1, 2, 4, 3))


def test_a_step_to_a_noisier_level_adds_the_noise_between_them() -> None:
    schedule, canvas = NoiseSchedule.cosine(10), Canvas(64, 64)
    levels = (schedule.level(3), schedule.level(8))
    x = torch.full((1, 1, 64, 64), levels[0].alpha)
    walk_there = Walk(levels, DDIM(), Noise((0,)))
    noised, memory = walk_there.run(lambda _: x, x, canvas.whole, steps=range(1))
    assert memory is None
    variance = levels[1].sigma ** 2 - (levels[1].alpha / levels[0].alpha * levels[0].sigma) ** 2
    assert float(noised.mean()) == pytest.approx(levels[1].alpha, abs=4 * math.sqrt(variance) / 64)
    assert float(noised.var()) == pytest.approx(variance, rel=0.1)


@each_sampler
def test_jumps_back_leave_the_distribution_as_it_is(sampler: Sampler) -> None:
    schedule = NoiseSchedule.cosine(300)
    down = tuple(schedule.level(index) for index in schedule.visited(300))
    path = (*down, CLEAN, *down[150:])
    canvas, deviation = Canvas(64, 64), 0.5

    def estimate(query: Query) -> Tensor:
        level = query.level
        return level.alpha * deviation**2 / ((level.alpha * deviation) ** 2 + level.sigma**2) * query.x_t

    x = Noise((1,)).normal(Stream.INITIAL, 0, canvas.whole, 1)
    images, _ = Walk(path, sampler, Noise((1,))).run(estimate, x, canvas.whole)
    assert float(images.std()) == pytest.approx(deviation, rel=0.05)


def test_loop_reports_each_step_when_it_is_done() -> None:
    told = []
    walk(3, progress=lambda step, total: told.append((step, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


# Parity with diffusers, given float64 tables


def curved_estimate(x_t: Tensor) -> Tensor:
    return torch.tanh(0.7 * x_t + 0.2)


def follow(sampler: Sampler, x: Tensor, levels: Sequence[Level], noises: Sequence[Tensor]) -> list[Tensor]:
    """Return the image after each step."""
    memory, path = None, []
    for k, noise in enumerate(noises):
        x, memory = sampler.step(Step(x, curved_estimate(x), levels[k], levels[k + 1], noise, memory))
        path.append(x)
    return path


def with_float64_tables(scheduler: object, schedule: NoiseSchedule) -> object:
    scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


PARITY = [
    pytest.param(schedule, num_steps, id=f"{name}-{num_steps}")
    for name, schedule in (("linear", NoiseSchedule.linear()), ("cosine", NoiseSchedule.cosine()))
    for num_steps in (1, 3, 20, 300)
]


@pytest.mark.parametrize(("schedule", "num_steps"), PARITY)
def test_ddpm_agrees_with_diffusers(schedule: NoiseSchedule, num_steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = with_float64_tables(
        diffusers.DDPMScheduler(
            300, prediction_type="sample", clip_sample=False, variance_type="fixed_small"
        ),
        schedule,
    )
    indices = list(schedule.visited(num_steps)) if num_steps > 1 else [0]
    theirs.set_timesteps(timesteps=indices)
    levels = [*(schedule.level(index) for index in indices), CLEAN]
    x, _, _ = some_images()
    generator = torch.Generator().manual_seed(5)
    noises = [torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in indices]
    generator.manual_seed(5)
    for ours, index in zip(follow(DDPM(), x, levels, noises), indices, strict=True):
        x = theirs.step(curved_estimate(x), index, x, generator=generator).prev_sample
        torch.testing.assert_close(ours, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("schedule", "num_steps"), PARITY)
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_agrees_with_diffusers(schedule: NoiseSchedule, num_steps: int, eta: float) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = with_float64_tables(
        diffusers.DDIMScheduler(300, prediction_type="sample", clip_sample=False), schedule
    )
    theirs.set_timesteps(num_steps)
    indices = range(299, -1, -300 // num_steps)  # diffusers takes the step before to be this far
    levels = [*(schedule.level(index) for index in indices), CLEAN]
    x, _, _ = some_images()
    noises = [some_images(seed)[2] for seed in range(len(indices))]
    for ours, noise, index in zip(follow(DDIM(eta), x, levels, noises), noises, indices, strict=True):
        x = theirs.step(
            curved_estimate(x), index, x, eta=eta, variance_noise=noise if eta else None
        ).prev_sample
        torch.testing.assert_close(ours, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("schedule", "num_steps"), PARITY)
def test_dpmpp2m_agrees_with_diffusers(schedule: NoiseSchedule, num_steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DPMSolverMultistepScheduler(300, prediction_type="sample")
    indices = schedule.visited(num_steps)
    theirs.set_timesteps(timesteps=list(indices))
    levels = [*(schedule.level(index) for index in indices), CLEAN]
    theirs.sigmas = torch.tensor([level.sigma / level.alpha for level in levels], dtype=torch.float64)
    (x, _, _), memory = some_images(), None
    for k, index in enumerate(
        indices
    ):  # theirs rounds the image to float32 before each step: compare step by step
        x_0 = curved_estimate(x)
        ours, memory = DPMSolverPP2M().step(Step(x, x_0, levels[k], levels[k + 1], None, memory))
        x = theirs.step(x_0, index, x).prev_sample
        torch.testing.assert_close(ours, x, rtol=0, atol=1e-6)
