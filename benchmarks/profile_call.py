"""Where does the time of a call go, and that of a training step?

Operators of PyTorch are timed by its profiler, on one thread, and summed up by kind. Example:

    python benchmarks/profile_call.py fourier_diff_nca_npj --batch 8
    python benchmarks/profile_call.py diff_nca --training
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile, record_function

from diffnca.config.recipes import recipe_named
from diffnca.engine import prepare
from diffnca.engine.machine import machine_of
from diffnca.engine.native import Native
from diffnca.models.build import build_denoiser
from diffnca.training.loop import Trainer

KINDS = {
    "native cell steps": ("native cell step",),
    "matrix products": ("mm", "addmm", "bmm", "linear", "convolution", "mkldnn"),
    "normalisation": ("norm",),
    "gathering neighbours": ("index", "gather", "embedding"),
    "copies and casts": ("copy", "cat", "pad", "clone", "fill", "zero", "empty"),
    "compiled loops": ("cpp_fused", "Torch-Compiled", "CompiledF"),
    "activations, sums, factors": ("leaky_relu", "silu", "add", "mul", "sub", "lerp", "sigmoid", "div"),
    "random numbers": ("random", "uniform", "normal_", "bitwise", "randn", "rand"),
}
"""Kinds of operators, by a part of their names; the first that fits."""


@dataclass(frozen=True)
class Options:
    """What to profile."""

    recipe: tyro.conf.Positional[str]
    """The recipe."""
    batch: int = 8
    """Images in a call, or crops in a training step."""
    size: int = 64
    """Height and width in px."""
    training: bool = False
    """Profile a training step instead of a call."""


def call(options: Options) -> Callable[[], object]:
    """Return a call of the network in the engine."""
    denoiser = build_denoiser(recipe_named(options.recipe))
    ready = prepare(denoiser.network, "cpu")
    x_t = torch.randn(options.batch, 3, options.size, options.size)
    t = torch.full((options.batch,), 0.5)
    return torch.no_grad()(lambda: ready(x_t, t))


def training_step(options: Options) -> Callable[[], object]:
    """Return a step of training."""
    config = recipe_named(options.recipe)
    training = replace(config.training, batch=options.batch)
    x_0 = torch.rand(options.batch, 3, options.size, options.size) * 2.0 - 1.0
    trainer = Trainer(replace(config, training=training), Path(tempfile.mkdtemp()), lambda step: x_0)
    return lambda: trainer._step(iter([x_0]))


def seconds_by_kind(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of each kind of operator in one call of `work`."""
    work()
    every_thread = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[ProfilerActivity.CPU], experimental_config=every_thread) as profiler:
        work()
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    return seconds


def kind_of(name: str) -> str:
    """Return the kind of an operator."""
    fits = (kind for kind, parts in KINDS.items() if any(part in name for part in parts))
    return next(fits, "all else")


def main(options: Options) -> None:
    """Profile and print a table."""
    torch.set_num_threads(1)
    Native.step = record_function("native cell step")(Native.step)  # type: ignore[method-assign]
    seconds = seconds_by_kind(training_step(options) if options.training else call(options))
    total = sum(seconds.values())
    print(machine_of(torch.device("cpu")))
    for kind, taken in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"{kind:30}{taken:9.4f} s{taken / total:7.0%}")
    print(f"{'in all':30}{total:9.4f} s")


if __name__ == "__main__":
    main(tyro.cli(Options))
