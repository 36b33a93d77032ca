"""On a GPU tiles may differ from the whole by rounding, and by no more than nobody sees."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas
from diffnca.sampling.generate import generate
from diffnca.sampling.growth import canvases_of, grown
from diffnca.sampling.known import Noised
from diffnca.sampling.starts import start_of
from diffnca.sampling.task import walk_of
from diffnca.sampling.upscale import Enlarged
from diffnca.tiles.job import Job
from diffnca.tiles.sweeps import sample_tiled

from .conftest import plan_of, small_denoiser

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp2m"])
def test_tiles_differ_by_one_level_on_one_pixel_of_a_thousand_at_most(
    make_job: Callable[..., Job], recipe: str, sampler: str
) -> None:
    job = replace(make_job(small_denoiser(recipe), 200, 240, sampler=sampler), device="cuda")
    sample_tiled(job, plan_of(job, tile=64))
    whole = generate(job.denoiser, height=200, width=240, seed=5, steps=3, sampler=sampler, device="cuda")
    difference = np.abs(job.writer.pixels - to_uint8(whole)[0])
    assert difference.max() <= 1 and (difference > 0).any(-1).mean() <= 1e-3


def test_what_is_left_to_do_of_a_grown_image_can_go_to_a_machine_without_a_gpu() -> None:
    model = small_denoiser("fourier_diff_nca").to("cuda")
    sampler, levels = walk_of(model, None, 2)
    canvases = canvases_of(model, Canvas(96, 96))
    task, _ = grown(model, canvases, levels, sampler, Noise((0,), "cuda"), start_of(model))
    start = task.initial
    assert len(canvases) == 2 and isinstance(start, Noised) and isinstance(start.image, Enlarged)
    assert start.image.means.small.device.type == "cpu"
