"""How much memory does a training step take: all stored, cell steps recomputed by torch, native code?

The peak is that of the tensors alive at the same time, beyond those that were there before the step. What
libraries take inside an operation is not in it. Example:

    python benchmarks/training_memory.py --recipe diff_nca --crop 128
"""

import itertools
from dataclasses import dataclass

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from diffnca.config.recipes import recipe_named
from diffnca.engine.learning import learn_natively
from diffnca.engine.machine import device_named, fast_dtype, machine_of
from diffnca.models.build import build_denoiser


@dataclass(frozen=True)
class Options:
    """What to measure."""

    recipe: str = "diff_nca"
    """The recipe."""
    batch: int = 8
    """Crops in the step."""
    crop: int = 128
    """Height and width of a crop in px."""
    device: str = "auto"
    """Where to compute."""


def peak_of_step(options: Options, checkpoint_cells: bool, is_native: bool = False) -> int:
    """Return the bytes that one step, forward and backward, takes at most."""
    device = torch.device(device_named(options.device))
    denoiser = build_denoiser(recipe_named(options.recipe)).to(device, memory_format=torch.channels_last)
    denoiser.network.checkpoint_cells = checkpoint_cells
    if is_native:
        learn_natively(denoiser.network.compiled_parts(), fast_dtype(device))
    x_0 = torch.zeros(options.batch, denoiser.image_channels, options.crop, options.crop, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_dtype(device) == torch.bfloat16):
            loss = denoiser.loss(x_0, torch.Generator().manual_seed(0))
        loss.backward()

    step()  # the gradients are there from now on
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    changes = sorted((each.time_range.start, each.self_cpu_memory_usage) for each in profiler.events())
    return max(itertools.accumulate(change for _, change in changes))


def main(options: Options) -> None:
    """Measure all cases and print them."""
    stored, recomputed = (peak_of_step(options, kept) for kept in (False, True))
    print(machine_of(torch.device(device_named(options.device))))
    print(f"all stored: {stored / 2**20:.0f} MiB; recomputed: {recomputed / 2**20:.0f} MiB", end="; ")
    print(f"ratio {recomputed / stored:.2f}")
    if device_named(options.device) == "cpu":
        native = peak_of_step(options, False, is_native=True)
        print(f"native code: {native / 2**20:.0f} MiB; ratio {native / stored:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Options))
