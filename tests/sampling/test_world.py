"""Worlds: regions made where they are wanted are crops of the whole, whatever was made before."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import diffnca
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, SamplingConfig
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.sampling.world import BLOCK_PX, Blocks, World, rectangles

from .conftest import denoiser_of

CELL = CellConfig(hidden=8, num_cell_steps=2, update_probability=0.5, embedding_width=4, embedding_channels=4)
MODEL = NCAConfig(patch=2, channels=28, cell=CELL, coarse=CoarseConfig(4, 56, 2, CELL))
SIDE = 8 * BLOCK_PX


@cache
def small() -> Denoiser:
    """Return a model of two stages that sees 15 px."""
    return denoiser_of(Config("small", MODEL, sampling=SamplingConfig("ddim", 3)))


def made(boundary: tuple[str, str] = ("circular", "circular"), **choices: Any) -> World:
    return diffnca.world(small(), height=SIDE, width=SIDE, boundary=boundary, seed=3, **choices)


@cache
def whole(boundary: tuple[str, str], sampler: str = "ddim") -> Tensor:
    return diffnca.generate(small(), height=SIDE, width=SIDE, boundary=boundary, seed=3, sampler=sampler)


def crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    rows, columns = (torch.arange(first, first + n) % SIDE for first, n in ((top, height), (left, width)))
    return image[..., rows, :][..., columns]


@pytest.mark.parametrize("boundary", [("circular", "circular"), ("reflect", "reflect")])
def test_neighbouring_regions_are_crops_of_the_whole(boundary: tuple[str, str]) -> None:
    world, image = made(boundary), whole(boundary)
    for part in ((70, 80, 20, 30), (75, 95, 20, 30), (100, 60, 33, 64), (70, 80, 20, 30)):
        assert torch.equal(world.pixels(*part), crop(image, *part))


def test_a_region_may_lie_beyond_the_end_of_a_circular_axis() -> None:
    parts = (-9, SIDE - 5, 20, 40), (SIDE + 3, -SIDE, 10, 10)
    world, image = made(), whole(("circular", "circular"))
    assert all(torch.equal(world.pixels(*part), crop(image, *part)) for part in parts)


def test_parts_that_meet_around_a_small_canvas_are_made_once() -> None:
    sides = {"height": 4 * BLOCK_PX, "width": BLOCK_PX, "boundary": ("circular", "circular"), "seed": 3}
    world, image = (
        diffnca.world(small(), **sides, kept_bytes=BLOCK_PX**2 * 12),
        diffnca.generate(small(), **sides),
    )
    world.pixels(0, 0, BLOCK_PX, BLOCK_PX)  # leaves this block alone, in the middle of the next region
    made_now = world.pixels(-BLOCK_PX, 0, 3 * BLOCK_PX, BLOCK_PX)
    assert torch.equal(made_now, image.roll(BLOCK_PX, -2)[..., : 3 * BLOCK_PX, :])


@pytest.mark.parametrize("sampler", ["dpmpp2m", "ddpm"])
def test_what_a_sampler_remembers_or_draws_is_kept_too(sampler: str) -> None:
    world, image = made(sampler=sampler), whole(("circular", "circular"), sampler)
    for part in ((70, 80, 20, 30), (75, 105, 20, 30)):
        assert torch.equal(world.pixels(*part), crop(image, *part))


def test_what_was_forgotten_is_made_again() -> None:
    world = made(kept_bytes=0)
    before = world.pixels(64, 64, 8, 8)
    assert world.held_bytes == 0
    assert torch.equal(world.pixels(64, 64, 8, 8), before)


def test_a_world_keeps_so_much_memory_at_most() -> None:
    world = made(kept_bytes=100_000)
    for left in range(0, SIDE, 64):
        world.pixels(0, left, 32, 32)
        assert 0 < world.held_bytes <= 100_000


def worked(world: World, part: tuple[int, int, int, int]) -> int:
    """Return for how many pixels the denoiser was called so that a part was finished."""
    areas, estimate = [], world.estimate
    world.estimate = lambda query: (areas.append(query.region.area), estimate(query))[1]
    world.pixels(*part)
    world.estimate = estimate
    return sum(areas)


def test_a_known_region_costs_nothing() -> None:
    world = made()
    world.pixels(40, 40, 64, 64)
    assert worked(world, (64, 64, 32, 32)) == 0


def test_a_pan_needs_the_radius_once_a_step() -> None:
    world = diffnca.world(small(), seed=3)
    first, beside = (64, 64, 64, 64), (64, 128, 64, 32)
    world.pixels(*first)
    heights = [64 + 2 * BLOCK_PX * later for later in range(3)]  # in whole blocks, as the radius is 15 px
    assert worked(world, beside) == sum((height + 30) * (32 + 30) for height in heights)


def test_without_sides_a_world_has_no_end() -> None:
    canvas = Canvas(2**31, 2**31, ("circular", "circular"))
    region = Region(2**30, 2**31 - 8, 16, 16, canvas)
    alone = diffnca.generate(
        small(), height=2**31, width=2**31, boundary=canvas.boundary, region=region, seed=5
    )
    assert torch.equal(diffnca.world(small(), seed=5).pixels(2**30, -8, 16, 16), alone)


def test_each_level_is_reported() -> None:
    told: list[tuple[int, int]] = []
    made().pixels(0, 0, 8, 8, lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_rectangles_cover_each_block_once() -> None:
    places = {(y, x) for y in range(4) for x in range(5)} - {(0, 4), (2, 2)}
    found = list(rectangles(places))
    covered = [(y, x) for each in found for y in each.rows for x in each.columns]
    assert sorted(covered) == sorted(places)
    assert Blocks(1, 0, 1, 5) in found


def test_a_side_that_is_no_number_of_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^64x100 px: circular sides must be multiples of 32 .* 64x128$"):
        diffnca.world(small(), height=64, width=100)


def test_a_model_that_looks_at_the_whole_image_is_refused() -> None:
    config = NCAConfig("fourier_diff_nca", channels=8, cell=CELL, fourier=FourierConfig(3, cell=CELL))
    with pytest.raises(ValueError, match=r"^the model looks at the whole image in each step"):
        diffnca.world(denoiser_of(Config("small", config)))
