"""The cost of an image in tiles: exact counts, and the cheapest number of steps in a sweep."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffnca.canvas.region import Canvas
from diffnca.config.networks import StageWork
from diffnca.tiles.plan import (
    MOST_OVERHEAD,
    PATIENCE_SECONDS,
    TILE_OVERHEAD,
    Plan,
    Rates,
    default_tile,
    make_plan,
    parts_of,
)

CHEAP_TRANSFER, DEAR_TRANSFER = Rates(1e-6, 1e-9), Rates(1e-9, 1e-3)


def plan(canvas: Canvas, tile: int = 16, radius: int = 3, steps: int = 6, fused: int = 1) -> Plan:
    return Plan(canvas, tile, radius, steps, fused, 6, Rates())


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([("reflect", "reflect"), ("circular", "reflect"), ("circular", "circular")]),
    st.integers(1, 40),
    st.integers(0, 9),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_computed_pixels_are_those_of_the_regions_that_are_walked(
    height: int, width: int, boundary: tuple, tile: int, radius: int, fused: int, shard: int
) -> None:
    made = replace(plan(Canvas(height, width, boundary), tile, radius, 7, fused), shard_px=shard)
    regions = [
        tile.grow(radius * (len(sweep) - step))
        for sweep in made.sweeps
        for tile in made.tiles(sweep)
        for step in range(len(sweep))
    ]
    assert made.pixels == sum(region.area for region in regions)


def test_a_stage_is_computed_as_far_as_it_reaches_on_average() -> None:
    canvas, stages = Canvas(48, 48), (StageWork(0.75, 1, 0), StageWork(0.25, 3, 2))
    made = replace(plan(canvas, fused=2), stages=stages)
    grown = [
        each.share
        * (tile.grow(3 * later + each.first_px).area + tile.grow(3 * later + each.last_px).area)
        / 2
        for sweep in made.sweeps
        for tile in made.tiles(sweep)
        for later in range(2)
        for each in stages
    ]
    assert made.pixels == pytest.approx(sum(grown))
    assert made.overhead < plan(canvas, fused=2).overhead


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 30))
def test_tiles_of_the_last_sweep_are_unions_of_shards(height: int, width: int, tile: int, shard: int) -> None:
    made = replace(plan(Canvas(height, width), tile), shard_px=shard)
    tiles = made.tiles(made.sweeps[-1])
    assert all(part.top % shard == part.left % shard == 0 for part in tiles)
    assert sum(part.area for part in tiles) == height * width


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_tiles_are_counted_without_making_them(height: int, width: int, tile: int) -> None:
    made = plan(Canvas(height, width), tile)
    assert made.num_tiles == len(made.tiles(made.sweeps[0]))


@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 50))
def test_sweeps_hold_each_step_once_and_are_even(start: int, length: int, fused: int) -> None:
    parts = parts_of(range(start, start + length), fused)
    assert [step for part in parts for step in part] == list(range(start, start + length))
    assert not parts or max(map(len, parts)) <= fused
    assert not parts or max(map(len, parts)) - min(map(len, parts)) <= 1


def test_canvas_of_one_tile_computes_nothing_twice() -> None:
    assert plan(Canvas(16, 16), fused=6).overhead == 0.0


def test_the_time_counts_drawing_steps_states_and_finishing() -> None:
    canvas, rates = Canvas(32, 16), Rates(compute=1.0, transfer=10.0, draw=100.0, finish=1000.0)
    made = Plan(canvas, 16, 3, 2, 1, 6, rates)
    around = 2 * 19 * 16  # of two tiles, which see 3 px beside them
    moved = 10.0 * canvas.whole.area + 10.0 * around
    finished = 1000.0 * canvas.whole.area
    assert made.seconds == 2 * around + 100.0 * around + moved + finished


def test_steps_are_fused_where_transfer_is_dear() -> None:
    made = make_plan(Canvas(256, 256), 64, 1, 12, 6, has_context=False, rates=DEAR_TRANSFER)
    assert made.fused == 12


def test_steps_are_not_fused_where_computing_is_dear() -> None:
    made = make_plan(Canvas(256, 256), 64, 16, 12, 6, has_context=False, rates=CHEAP_TRANSFER)
    assert made.fused == 1


def test_network_with_a_context_takes_one_step_a_sweep() -> None:
    made = make_plan(Canvas(256, 256), 64, 1, 12, 6, has_context=True, rates=DEAR_TRANSFER)
    assert made.fused == 1


def test_small_canvas_of_one_tile_is_made_in_one_sweep() -> None:
    made = make_plan(Canvas(64, 50), 64, 16, 12, 6, has_context=True, rates=CHEAP_TRANSFER)
    assert (len(made.sweeps), made.disk_bytes) == (1, 0)


def test_no_tile_works_longer_than_anyone_would_lose() -> None:
    slow = Rates(compute=PATIENCE_SECONDS / (3 * 64 * 64), transfer=1.0)
    assert make_plan(Canvas(64, 64), 64, 16, 12, 6, has_context=False, rates=slow).fused == 3


@pytest.mark.parametrize("radius", [5, 16, 33, 65])
def test_default_tile_is_the_smallest_with_little_overhead(radius: int) -> None:
    side = default_tile(Canvas(2**20, 2**18), radius, 256)
    assert ((side + 2 * radius) / side) ** 2 - 1.0 <= TILE_OVERHEAD
    assert ((side - 256 + 2 * radius) / max(side - 256, 1)) ** 2 - 1.0 > TILE_OVERHEAD


def test_default_tiles_cover_the_canvas_evenly() -> None:
    assert default_tile(Canvas(4096, 3000), 65, 512) == 2048  # two instead of one of 3584 and a strip


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.integers(1, 70))
def test_default_tiles_are_whole_units(height: int, width: int, radius: int) -> None:
    side = default_tile(Canvas(height, width), radius, 256)
    assert side % 256 == 0 and side <= 4096


@pytest.mark.parametrize("megapixels_per_second", [10.0, 0.7, 0.2])
def test_a_large_image_is_kept_every_half_a_minute_on_fast_and_slow_machines(
    megapixels_per_second: float,
) -> None:
    rates = Rates(compute=1e-6 / megapixels_per_second)
    made = make_plan(Canvas(4096, 4096), None, 65, 20, 6, has_context=False, rates=rates, shard_px=512)
    assert made.seconds_of_tile <= PATIENCE_SECONDS and made.overhead < MOST_OVERHEAD


def test_tiles_asked_for_are_taken_on_slow_machines_too() -> None:
    slow = Rates(compute=1.0)
    assert make_plan(Canvas(4096, 4096), 2048, 65, 20, 6, False, slow, 512).tile_px == 2048


def test_states_take_room_for_two() -> None:
    assert plan(Canvas(100, 100)).disk_bytes == 2 * 100 * 100 * 6 * 4
