"""What `diffnca bench` prints: all works of a model, timed in one process."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from diffnca.benchmark.timing import Timing, timed
from diffnca.benchmark.works import bench_training, calls, calls_of_other, cells_of
from diffnca.config.model import Config
from diffnca.config.recipes import RECIPES, recipe_named
from diffnca.diffusion.denoiser import Denoiser
from diffnca.engine.machine import device_named, has_compiler, machine_of
from diffnca.models.build import build_denoiser
from diffnca.models.file import load_denoiser

if TYPE_CHECKING:
    from diffnca.cli.measurements import Bench

CALL_IMAGES = 8
"""Images in a call of the denoiser, unless told otherwise."""


def bench(command: Bench) -> int:
    """Time a model as the command says, and print a table; return the exit code."""
    for name in ("height", "width", "batch", "rounds"):
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be >= 1")
    device = torch.device(device_named(command.device))
    if command.compiled and not has_compiler(device):
        raise ValueError("--compiled: no C++ compiler or no Python headers here; leave it out")
    denoiser, others = _named(command.name), {name: _named(name) for name in command.against}
    cells_of(denoiser.config)
    batch = command.batch or CALL_IMAGES
    x_t = torch.randn(batch, denoiser.image_channels, command.height, command.width).to(device)
    works = calls(denoiser, x_t, command.compiled)
    works += [work for name, other in others.items() for work in calls_of_other(name, other, x_t)]
    timings = timed(works, command.rounds, device)
    facts: dict[str, Any] = {
        "machine": machine_of(device),
        "model": command.name,
        "images": f"{batch} of {command.height}x{command.width} px",
        **_seconds_of_images(timings[0], denoiser.config, batch, command.height * command.width),
    }
    if command.training:
        timings += _timings_of_training(denoiser.config, command)
    print(_as_json(facts, timings) if command.json else _as_table(facts, timings))
    return 0


def _named(name: str) -> Denoiser:
    """Return the denoiser of a recipe, with fresh weights, or a trained one."""
    return build_denoiser(recipe_named(name)) if name in RECIPES else load_denoiser(name)


def _timings_of_training(config: Config, command: Bench) -> list[Timing]:
    """Time a training step as the recipe has it, and as PyTorch runs it in float32."""
    training = replace(config.training, batch=command.batch or config.training.batch)
    plain = replace(training, precision="float32", compile="off")
    return [bench_training(replace(config, training=each), command.rounds) for each in (training, plain)]


def _seconds_of_images(timing: Timing, config: Config, batch: int, pixels: int) -> dict[str, Any]:
    """Return how long images take at the model's own number of steps, by their calls alone."""
    steps = config.sampling.steps
    seconds = timing.seconds / batch * steps
    return {
        "diffusion_steps": steps,
        "seconds_an_image": round(seconds, 4),
        "seconds_a_megapixel": round(seconds / pixels * 1e6, 2),
    }


def _as_json(facts: dict[str, Any], timings: list[Timing]) -> str:
    """Return all numbers, for machines."""
    derived = ("gflops_per_second", "matrix_gflops_per_second", "share")
    rows = [dataclasses.asdict(each) | {name: getattr(each, name) for name in derived} for each in timings]
    return json.dumps({**facts, "timings": rows}, indent=1)


def _as_table(facts: dict[str, Any], timings: list[Timing]) -> str:
    """Return all numbers, for people."""
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()]
    lines.append(f"{'':44}{'seconds':>9}{'GFLOP/s':>9}{'products alone':>16}{'share':>7}{'MiB':>8}")
    for each in timings:
        rate, share, memory = each.matrix_gflops_per_second, each.share, each.memory_bytes
        columns = (
            f"{each.name:44}{each.seconds:9.4f}{each.gflops_per_second:9.1f}",
            f"{'' if rate is None else format(rate, '.1f'):>16}",
            f"{'' if share is None else format(share, '.0%'):>7}",
            f"{'' if memory is None else format(memory / 2**20, '.0f'):>8}",
        )
        lines.append("".join(columns))
    return "\n".join(lines)
