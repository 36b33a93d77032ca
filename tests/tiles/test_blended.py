"""Blended windows: any network on any canvas, the same for any tiles."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import Query
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.sampling.generate import generate
from diffnca.sampling.windows import Blended
from diffnca.tiles.job import Job
from diffnca.tiles.sweeps import sample_tiled

from .conftest import as_pixels, plan_of, small_denoiser

MakeJob = Callable[..., Job]
LEVEL = NoiseSchedule.cosine().level(150)


class PositionDenoiser:
    """Says where in its own image each pixel lies."""

    image_channels, radius, has_context = 3, None, False
    schedule, config = NoiseSchedule.cosine(), Config()

    def context(self, query: Query) -> None:
        return None

    def estimate(self, query: Query) -> Tensor:
        return query.region.rows().float()[:, None].expand_as(query.x_t).clone()


class ConstantDenoiser(PositionDenoiser):
    def estimate(self, query: Query) -> Tensor:
        return torch.full_like(query.x_t, 0.25)


def estimate(denoiser: Any, canvas: Canvas, window_px: int) -> Tensor:
    x = torch.zeros(1, 3, canvas.height, canvas.width)
    return Blended(denoiser, window_px).estimate(Query(x, LEVEL, canvas.whole))


@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "reflect"), ("circular",) * 2])
@pytest.mark.parametrize(("height", "width"), [(5, 40), (16, 16), (37, 19)])
def test_weights_add_up_to_one_everywhere(boundary: Any, height: int, width: int) -> None:
    x = estimate(ConstantDenoiser(), Canvas(height, width, boundary), 16)
    assert torch.allclose(x, torch.tensor(0.25), atol=1e-6)


def test_canvas_of_one_window_is_left_to_the_network() -> None:
    x = estimate(PositionDenoiser(), Canvas(16, 16), 16)
    assert torch.allclose(x, torch.arange(16.0)[:, None].expand_as(x))


def test_a_window_as_large_as_a_seamless_canvas_is_seamless() -> None:
    seen = []

    class Watching(ConstantDenoiser):
        def estimate(self, query: Query) -> Tensor:
            seen.append(query.region.canvas.boundary)
            return query.x_t

    estimate(Watching(), Canvas(16, 40, ("circular", "circular")), 16)
    assert set(seen) == {("circular", "reflect")}


def test_where_two_windows_overlap_the_nearer_one_counts_more() -> None:
    x = estimate(PositionDenoiser(), Canvas(24, 16), 16)[0, 0, :, 0]
    row = 10  # third row of the window that begins at 8, 6 from the end of the other
    assert x[row].item() == pytest.approx((6 * 10 + 3 * 2) / 9)


@pytest.mark.usefixtures("unrounded")
@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "reflect"), ("circular",) * 2])
def test_tiles_give_the_pixels_of_the_whole(make_job: MakeJob, boundary: Any) -> None:
    blended = Blended(small_denoiser(normalisation="group"), 16)
    job = make_job(blended, 40, 56, boundary=boundary)
    sample_tiled(job, plan_of(job, tile=24))
    whole = generate(blended, height=40, width=56, boundary=boundary, seed=5, steps=3, sampler="dpmpp2m")
    assert np.array_equal(job.writer.pixels, as_pixels(whole)[0])


def test_masks_of_a_window_are_those_of_the_canvas_at_its_place() -> None:
    seen = []

    class Watching(ConstantDenoiser):
        def estimate(self, query: Query) -> Tensor:
            seen.append(query.cell_noise.mask(0, query.region, 0.5))
            return query.x_t

    canvas, noise = Canvas(24, 16), Noise((3,)).at(1)
    x = torch.zeros(1, 3, 24, 16)
    Blended(Watching(), 16).estimate(Query(x, LEVEL, canvas.whole, noise))
    whole = noise.mask(0, canvas.whole, 0.5)
    assert torch.equal(seen[0], whole[:, :, :16]) and torch.equal(seen[1], whole[:, :, 8:])


def test_window_of_one_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="^window=1 px: must be >= 2"):
        Blended(small_denoiser(), 1)


def test_network_that_sees_everything_can_be_blended(make_job: MakeJob) -> None:
    job = make_job(small_denoiser(normalisation="group"))
    assert replace(job, denoiser=Blended(job.denoiser, 16)).radius == 15
