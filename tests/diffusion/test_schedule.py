"""The noise schedule: its tables, their inverses, and the steps that sampling visits."""

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffnca.config.model import ScheduleConfig
from diffnca.diffusion.schedule import CLEAN, Level, NoiseSchedule

SCHEDULES = {"linear": NoiseSchedule.linear(), "cosine": NoiseSchedule.cosine()}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def betas(schedule: NoiseSchedule) -> np.ndarray:
    table = np.array((1.0, *schedule.alphas_cumprod))
    return 1.0 - table[1:] / table[:-1]


def test_linear_betas_rise_evenly_between_their_ends() -> None:
    expected = [1e-4 + (0.02 - 1e-4) * i / 299 for i in range(300)]
    np.testing.assert_allclose(betas(NoiseSchedule.linear()), expected, rtol=0, atol=1e-14)


def test_published_linear_schedule_never_reaches_pure_noise() -> None:
    assert round(NoiseSchedule.linear().level(299).alpha, 2) == 0.22


def test_cosine_without_clipping_is_a_squared_cosine() -> None:
    def squared_cosine(progress: float) -> float:
        return math.cos((progress + 0.008) / 1.008 * math.pi / 2) ** 2

    schedule = NoiseSchedule.cosine(50, min_beta=0.0)
    expected = [squared_cosine((i + 1) / 50) / squared_cosine(0.0) for i in range(49)]
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], expected, rtol=1e-12)


def test_cosine_betas_are_clipped_at_both_ends() -> None:
    of_long_schedule = betas(NoiseSchedule.cosine(4000))
    assert (of_long_schedule.min(), of_long_schedule.max()) == pytest.approx((1e-4, 0.9999), rel=1e-9)


def test_schedule_of_a_config_is_the_one_it_describes() -> None:
    config = ScheduleConfig("linear", 17, beta_start=1e-3, beta_end=0.1)
    assert NoiseSchedule.from_config(config) == NoiseSchedule.linear(17, 1e-3, 0.1)


@each_schedule
def test_every_level_keeps_unit_variance(schedule: NoiseSchedule) -> None:
    levels = [schedule.level(i) for i in range(-1, 300)]
    assert all(level.alpha**2 + level.sigma**2 == pytest.approx(1.0, abs=1e-15) for level in levels)


@each_schedule
def test_alpha_is_positive_at_every_level(schedule: NoiseSchedule) -> None:
    assert min(schedule.level(i).alpha for i in range(300)) > 0.0


@each_schedule
def test_noise_grows_with_the_step(schedule: NoiseSchedule) -> None:
    log_snrs = [schedule.level(i).log_snr for i in range(-1, 300)]
    assert all(after < before for before, after in pairwise(log_snrs))


@each_schedule
def test_training_tables_hold_the_levels(schedule: NoiseSchedule) -> None:
    levels = [schedule.level(i) for i in range(300)]
    assert schedule.alphas().tolist() == [level.alpha for level in levels]
    assert schedule.sigmas().tolist() == [level.sigma for level in levels]


def test_training_tables_come_in_float32_too() -> None:
    schedule = NoiseSchedule.cosine(8)
    assert torch.equal(schedule.alphas(torch.float32), schedule.alphas().float())


@each_schedule
def test_index_and_log_snr_are_inverse(schedule: NoiseSchedule) -> None:
    assert [schedule.index_of_log_snr(schedule.level(i).log_snr) for i in range(-1, 300)] == list(
        range(-1, 300)
    )


@each_schedule
def test_time_leads_to_its_snr_and_back(schedule: NoiseSchedule) -> None:
    times = [i / 300 for i in range(300)]
    log_snrs = [schedule.level(index).log_snr for index in range(300)]
    assert [schedule.time(schedule.index_of_log_snr(log_snr)) for log_snr in log_snrs] == times


@each_schedule
def test_the_time_of_a_level_between_two_steps_lies_between_theirs(schedule: NoiseSchedule) -> None:
    for index in (0, 7, 150, 298):
        ends = [schedule.level(step).log_snr for step in (index, index + 1)]
        for share in (0.0, 0.25, 0.5, 1.0):
            level = Level.of_log_snr(ends[0] + share * (ends[1] - ends[0]))
            assert schedule.time_of(level) == pytest.approx((index + share) / 300, abs=1e-9)


@pytest.mark.parametrize("log_snr", [-9.0, 0.0, 4.0])
def test_a_level_of_a_log_snr_has_it(log_snr: float) -> None:
    level = Level.of_log_snr(log_snr)
    assert level.log_snr == pytest.approx(log_snr, abs=1e-12)
    assert math.hypot(level.alpha, level.sigma) == pytest.approx(1.0)


@pytest.mark.parametrize(("log_snr", "index"), [(1e3, 0), (-1e3, 299), (-math.inf, 299)])
def test_log_snr_beyond_the_schedule_gives_its_end(log_snr: float, index: int) -> None:
    assert NoiseSchedule.cosine().index_of_log_snr(log_snr) == index


def test_clean_level_has_no_noise() -> None:
    assert NoiseSchedule.cosine().level(-1) == CLEAN
    assert (CLEAN.alpha, CLEAN.sigma, CLEAN.log_snr) == (1.0, 0.0, math.inf)


@settings(max_examples=25)
@given(first=st.integers(1, 299), data=st.data())
def test_visited_steps_fall_from_the_first_to_zero(first: int, data: st.DataObject) -> None:
    num_steps = data.draw(st.integers(2, first + 1))
    visited = NoiseSchedule.cosine().visited(num_steps, first)
    assert (len(visited), visited[0], visited[-1]) == (num_steps, first, 0)
    assert list(visited) == sorted(set(visited), reverse=True)


@pytest.mark.parametrize(
    "schedule", [NoiseSchedule.linear(), NoiseSchedule.cosine(1000)], ids=["linear", "cosine"]
)
def test_visited_steps_are_even_in_log_snr(schedule: NoiseSchedule) -> None:
    log_snrs = [schedule.level(index).log_snr for index in schedule.visited(12)]
    start, end = max(log_snrs[0], -11.0), log_snrs[-1]
    even = [end + (start - end) * k / 11 for k in range(11, -1, -1)]
    assert log_snrs[1:] == pytest.approx(even[1:], abs=0.5)


def test_as_many_steps_as_there_are_visit_all() -> None:
    assert NoiseSchedule.cosine().visited(300) == tuple(range(299, -1, -1))


def test_single_step_visits_the_noisiest() -> None:
    assert NoiseSchedule.cosine().visited(1) == (299,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.visited(301), "steps=301: must be 1 to 300, the number of noise levels"),
        (lambda s: s.visited(0), "steps=0: must be 1 to 300, the number of noise levels"),
        (lambda s: s.visited(-1), "steps=-1: must be 1 to 300, the number of noise levels"),
        (lambda s: s.visited(11, first=9), "steps=11: must be 1 to 10, the number of noise levels"),
        (lambda s: s.visited(2, first=300), "step 300: this schedule has the steps 0 to 299"),
        (lambda s: s.level(300), "step 300: this schedule has the steps 0 to 299"),
        (lambda s: s.level(-2), "step -2: this schedule has the steps 0 to 299"),
        (lambda s: s.time(-1), "step -1: this schedule has the steps 0 to 299"),
        (lambda s: s.index_of_log_snr(math.nan), "log_snr=nan: must be a number"),
        (lambda s: s.linear(0), "num_diffusion_steps=0: must be >= 1"),
        (lambda s: s.cosine(-3), "num_diffusion_steps=-3: must be >= 1"),
    ],
)
def test_what_does_not_exist_is_one_clear_line(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call(NoiseSchedule.cosine())


@pytest.mark.parametrize("table", [(), (1.0,), (0.5, 0.5), (0.5, 0.6), (0.5, 0.0), (0.5, math.nan)])
def test_table_that_is_no_schedule_is_refused(table: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must fall strictly") as error:
        NoiseSchedule(table)
    assert "\n" not in str(error.value)


def test_schedule_of_a_single_step_exists() -> None:
    assert NoiseSchedule.linear(1).visited(1) == (0,)
