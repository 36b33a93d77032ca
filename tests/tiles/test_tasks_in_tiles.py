"""Every task gives in tiles the pixels of the whole, to the bit, with every sampler."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.samplers import SAMPLERS
from diffnca.models.build import build_denoiser
from diffnca.sampling.guidance import prepare
from diffnca.sampling.inpaint import completion, margins
from diffnca.sampling.known import KnownMeans, KnownPixels, Picture
from diffnca.sampling.starts import PureNoise
from diffnca.sampling.task import Task, sample_task, walk_of
from diffnca.sampling.upscale import enlargement
from diffnca.sampling.vary import Between, variation
from diffnca.tiles.job import Job
from diffnca.tiles.states import States
from diffnca.tiles.sweeps import sample_tiled

from .conftest import ArrayWriter, as_pixels, plan_of, small_denoiser

pytestmark = pytest.mark.usefixtures("unrounded")

CANVAS = Canvas(24, 36)
TURNING = Canvas(24, 36, ("circular", "reflect"))


def picture(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def inpainting(canvas: Canvas, method: Any) -> Any:
    holes = torch.zeros(24, 36, dtype=torch.bool)
    holes[5:20, 10:30] = True
    known = KnownPixels(Picture(picture(24, 36)), holes, is_noised=method == "repaint")
    return completion(canvas, known, method, jump=2, rounds=2)


TASKS: dict[str, tuple[Canvas, Any]] = {
    "repaint": (CANVAS, inpainting(CANVAS, "repaint")),
    "paste": (CANVAS, inpainting(CANVAS, "paste")),
    "extend": (
        TURNING,
        completion(*margins(picture(13, 36), (4, 7, 0, 0), TURNING.boundary), "repaint", 2, 2),
    ),
    "upscale by 2": (TURNING, enlargement(TURNING, picture(12, 18), "consistent", 0.9)),
    "upscale by 1.5 and 1.8": (CANVAS, enlargement(CANVAS, picture(16, 20), "consistent", 0.9)),
    "upscale with noise": (CANVAS, enlargement(CANVAS, picture(12, 18), "noise", 0.5)),
    "vary": (CANVAS, variation(CANVAS, picture(24, 36), 0.6)),
    "interpolate": (CANVAS, lambda denoiser, levels: Task(CANVAS, levels, Between(PureNoise(3), 9, (0.4,)))),
}


def job_of(name: str, denoiser: ImageDenoiser, sampler: str, folder: str) -> Job:
    canvas, make = TASKS[name]
    method, levels = walk_of(denoiser, sampler, 4)
    states = States(folder, canvas, 3, 8, method.is_multistep)
    return Job(denoiser, make(denoiser, levels), method, 5, states, ArrayWriter(canvas), "cpu")


def in_memory(job: Job) -> np.ndarray:
    return as_pixels(sample_task(job.task, job.ready, job.sampler, Noise((job.seed,))))[0]


# each task with two samplers, each of them with one and with two steps of a tile at a time
CASES = [
    (name, SAMPLERS[(index + fused) % len(SAMPLERS)], fused)
    for index, name in enumerate(TASKS)
    for fused in (1, 2)
]


@pytest.mark.parametrize(("name", "sampler", "fused"), CASES)
def test_tiles_are_equal_to_the_whole(name: str, sampler: str, fused: int, tmp_path: Any) -> None:
    job = job_of(name, small_denoiser(), sampler, str(tmp_path / "states"))
    sample_tiled(job, plan_of(job, tile=16, fused=fused))
    assert np.array_equal(job.writer.pixels, in_memory(job))


@pytest.mark.parametrize("name", ["repaint", "upscale by 2"])
def test_tiles_are_equal_with_low_frequencies_of_the_whole(name: str, tmp_path: Any) -> None:
    job = job_of(name, small_denoiser("fourier_diff_nca"), "dpmpp2m", str(tmp_path / "states"))
    sample_tiled(job, plan_of(job, tile=16))
    assert np.array_equal(job.writer.pixels, in_memory(job))


@pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca"])
def test_tiles_with_given_planes_are_equal_to_the_whole(recipe: str, tmp_path: Any) -> None:
    config = small_denoiser(recipe).config
    torch.manual_seed(0)
    model = build_denoiser(replace(config, model=replace(config.model, given_channels=1)))
    for parameter in model.requires_grad_(False).parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    job = job_of("vary", model, "dpmpp2m", str(tmp_path / "states"))
    task = replace(job.task, given=waves)
    job = replace(job, task=task)
    sample_tiled(job, plan_of(job, tile=16))
    assert np.array_equal(job.writer.pixels, in_memory(job))
    assert not np.array_equal(job.writer.pixels, in_memory(replace(job, task=replace(task, given=zeros))))


def waves(region: Region) -> Tensor:
    return torch.sin(region.rows()[:, None] * region.columns() / 9.0)[None, None]


def zeros(region: Region) -> Tensor:
    return torch.zeros(1, 1, region.height, region.width)


def test_tiles_must_see_whole_blocks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("upscale by 1.5 and 1.8", small_denoiser(), "ddim", str(tmp_path / "states"))
    expected = in_memory(job)
    monkeypatch.setattr(KnownMeans, "reach", lambda *_: 0)
    sample_tiled(job, plan_of(job, tile=16))
    assert not np.array_equal(job.writer.pixels, expected)


@pytest.mark.parametrize("name", ["repaint", "upscale by 2"])
def test_a_part_in_memory_is_equal_to_the_whole(name: str, tmp_path: Any) -> None:
    job = job_of(name, small_denoiser(), "dpmpp2m", str(tmp_path / "states"))
    part = replace(job.task.canvas.whole, top=5, left=9, height=11, width=13)
    whole = sample_task(job.task, job.ready, job.sampler, Noise((5,)))
    alone = sample_task(job.task, job.ready, job.sampler, Noise((5,)), part)
    assert torch.equal(alone, part.crop(whole, of=job.task.canvas.whole))


@dataclass(frozen=True)
class Turned(Noise):
    """The noise of a canvas that is turned by some columns."""

    columns: int = 0

    def normal(self, stream: Stream, step: int, region: Region, channels: int) -> Tensor:
        return super().normal(stream, step, replace(region, left=region.left - self.columns), channels)


MEETING = Canvas(16, 24, ("reflect", "circular"))


def repainted(columns: int) -> Any:
    holes = torch.ones(16, 24, dtype=torch.bool)
    holes[:, :14] = False
    known = KnownPixels(Picture(picture(16, 24).roll(columns, -1)), holes.roll(columns, -1))
    return completion(MEETING, known, "repaint", jump=2, rounds=2)


TURNS: dict[str, Any] = {
    "inpaint": repainted,
    "upscale": lambda columns: enlargement(MEETING, picture(8, 12).roll(columns // 2, -1), "consistent", 0.9),
    "vary": lambda columns: variation(MEETING, picture(16, 24).roll(columns, -1), 0.6),
}


@pytest.mark.parametrize("name", TURNS)
def test_edges_that_meet_are_like_any_other_place(name: str) -> None:
    denoiser = small_denoiser()
    sampler, levels = walk_of(denoiser, "ddpm", 4)

    def turned(columns: int) -> Tensor:
        task, noise = TURNS[name](columns)(denoiser, levels), Turned((5,), columns=columns)
        return sample_task(task, prepare(denoiser, torch.device("cpu")), sampler, noise)

    assert torch.equal(turned(10), turned(0).roll(10, -1))


def test_a_stopped_walk_with_jumps_goes_on_to_the_same_image(tmp_path: Any) -> None:
    job = job_of("repaint", small_denoiser(), "dpmpp2m", str(tmp_path / "states"))
    expected, told = in_memory(job), []

    def stop_at_half(done: float, total: float) -> None:
        told.append(done)
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_tiled(job, plan_of(job, tile=16), progress=stop_at_half)
    sample_tiled(job, plan_of(job, tile=16))
    assert np.array_equal(job.writer.pixels, expected)
