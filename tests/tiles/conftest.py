"""Jobs of small tiles that stand for big ones, on a network whose pixels stay away from black and white."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import CellConfig, CoarseConfig
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Denoiser
from diffnca.models.build import build_denoiser
from diffnca.sampling.starts import start_of
from diffnca.sampling.task import Task, walk_of
from diffnca.tiles.job import Job
from diffnca.tiles.plan import Plan, Rates
from diffnca.tiles.states import States

CHUNK = 8


class ArrayWriter:
    """Keeps pixels in memory, in a type that also holds what is not rounded."""

    def __init__(self, canvas: Canvas) -> None:
        self.pixels = np.zeros((canvas.height, canvas.width, 3), np.float32)
        self.there = np.zeros((canvas.height, canvas.width), bool)
        self.calls: list[Region] = []

    def write(self, region: Region, pixels: np.ndarray) -> None:
        self.calls.append(region)
        place = np.s_[region.top : region.top + region.height, region.left : region.left + region.width]
        self.pixels[place], self.there[place] = pixels, True

    def is_written(self, region: Region) -> bool:
        return bool(
            self.there[
                region.top : region.top + region.height, region.left : region.left + region.width
            ].all()
        )


COARSE = CoarseConfig(4, 56, 2, CellConfig(hidden=16, num_cell_steps=2, dilations=(1, 2)))
"""A small coarse stage."""


def small_denoiser(
    recipe: str = "diff_nca", patch: int | None = None, coarse: CoarseConfig | None = None, **cell: Any
) -> Denoiser:
    """Return a denoiser with fresh weights, disturbed so that it does something, of few cell steps."""
    from dataclasses import replace

    config = recipe_named(recipe)
    model = replace(
        config.model,
        patch=min(config.model.patch, 2) if patch is None else patch,
        channels=24 if coarse is None else 24 + coarse.handed,
        coarse=coarse,
        cell=replace(config.model.cell, num_cell_steps=2, hidden=24, **cell),
    )
    if model.fourier is not None:
        small = replace(model.fourier.cell, num_cell_steps=2, hidden=24)
        model = replace(model, fourier=replace(model.fourier, cell=small, window=4))
    torch.manual_seed(0)
    denoiser = build_denoiser(replace(config, model=model)).eval().requires_grad_(False)
    for parameter in denoiser.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return denoiser


@pytest.fixture
def unrounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let writers take the float32 values of the pixels: 8 bits would hide a difference in the last one."""
    monkeypatch.setattr("diffnca.tiles.job.to_uint8", as_pixels)


def as_pixels(images: Tensor) -> np.ndarray:
    """Return images as a writer takes them, but not rounded."""
    return images.movedim(1, -1).numpy()


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Return a function that makes a job, whose states lie in the test's folder."""

    def make(
        denoiser: Any,
        height: int = 24,
        width: int = 36,
        boundary: tuple[Boundary, Boundary] = ("reflect", "reflect"),
        sampler: Any = "dpmpp2m",
        steps: int = 3,
        seed: int = 5,
        folder: str = "states",
    ) -> Job:
        canvas = Canvas(height, width, boundary)
        method, levels = walk_of(denoiser, sampler, steps)
        states = States(str(tmp_path / folder), canvas, 3, CHUNK, method.is_multistep)
        return Job(
            denoiser,
            Task(canvas, levels, start_of(denoiser)),
            method,
            seed,
            states,
            ArrayWriter(canvas),
            "cpu",
        )

    return make


def plan_of(job: Job, tile: int = 16, fused: int = 1) -> Plan:
    """Return a plan of these tiles and sweeps."""
    return Plan(job.task.canvas, tile, job.radius, job.num_steps, fused, 6, Rates())
