"""On a GPU tiles may differ from the whole by rounding, and by no more than nobody sees."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnca.giga.sweeps import sample_tiled
from diffnca.giga.tiles import Job
from diffnca.pixels import to_uint8
from diffnca.tasks import generate

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
