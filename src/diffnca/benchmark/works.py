"""The works to time: denoiser calls in the engine, as trained, and compiled; a training step; their products.

Of a network of cells, two operations a multiply-add count in perception, hidden layer and the projection of
unprotected channels.
"""

import contextlib
import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffnca.baselines.unet import UNet
from diffnca.benchmark.compiling import compile_by, compiled
from diffnca.benchmark.timing import Measured, Timing, Work, finish, in_turns, memory_of, timed
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.config.recipes import RECIPES, recipe_named
from diffnca.diffusion.denoiser import Denoiser
from diffnca.engine import prepare
from diffnca.engine.machine import device_named, fast_dtype, machine_of
from diffnca.errors import one_line, require
from diffnca.models.build import build_denoiser
from diffnca.models.file import load_denoiser
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid
from diffnca.progress import Report, unseen
from diffnca.training.loop import Care, Trainer

WARM_UP_STEPS = 3

LIMITS = {"--height": 4096, "--width": 4096, "--batch": 4096, "--rounds": 10_000}

COMPILE_SECONDS = 120.0
"""Longest time to compile a network. An idle core takes 20 to 40 s."""


def bench(
    name: str,
    size: tuple[int, int],
    batch: int | None = None,
    rounds: int = 5,
    *,
    against: tuple[str, ...] = (),
    is_training: bool = False,
    is_compiled: bool = False,
    device: str = "auto",
    report: Report = unseen,
) -> Measured:
    """Time a model; return the facts (machine, model, time per image) and all timings.

    `name` is a recipe, with fresh weights, or a trained denoiser of cells; `against` names other models,
    timed in the same turns. `batch` counts images in a call and crops in a training step: `None` is 8, and
    the number of the recipe. `is_training` adds training steps, in its precision and in float32, and
    `is_compiled` what `torch.compile` makes of calls and steps.

    Raises:
        ValueError: a number is out of range, or a model is missing.
        Interrupted: the user asked for a stop.
    """
    for flag, value, most in zip(LIMITS, (*size, batch, rounds), LIMITS.values(), strict=True):
        require(value is None or 1 <= value <= most, flag, value, f"from 1 to {most:,}")
    place, left_out = torch.device(device_named(device)), dict[str, str]()
    denoiser, others = _named(name), _others(against, left_out)
    config, images = denoiser.config, batch or 8
    cells_of(config)
    x_t = torch.randn(images, denoiser.image_channels, *size).to(place)
    works, facts = calls(denoiser, x_t), dict[str, Any]()
    if is_compiled:
        report(f"compile, {COMPILE_SECONDS:.0f} s at most", 0, 0)
        begun = time.perf_counter()
        with _leaving_out("call, compiled", left_out):
            works.append(compiled_call(denoiser, x_t))
            facts["compile_seconds"] = round(time.perf_counter() - begun, 1)
    for other, made in others.items():
        with _leaving_out(other, left_out):
            works += calls_of_other(other, made, x_t)
    timings = timed(works, rounds, place, report)
    seconds, steps = timings[0].seconds / images, config.sampling.steps
    facts = {
        "machine": machine_of(place),
        "model": name,
        "images": f"{images} of {size[0]}x{size[1]} px",
        "diffusion_steps": steps,
        "seconds_an_image": round(seconds * steps, 4),
        "seconds_a_megapixel": round(seconds * steps / (size[0] * size[1]) * 1e6, 2),
        **facts,
    }
    if is_training:
        for each in _trainings(config, batch, "compile_seconds" in facts):
            report("training", 0, 0)
            timings.append(bench_training(each, rounds))
    return Measured(facts, timings, left_out)


def _trainings(config: Config, batch: int | None, is_compiled: bool) -> list[Config]:
    """Return a training as it is by default, perhaps compiled by torch, and eager in float32."""
    training = replace(config.training, batch=batch or config.training.batch)
    by_torch = [replace(training, compile="on")] if is_compiled else []
    eager = replace(training, precision="float32", compile="off")
    return [replace(config, training=each) for each in (training, *by_torch, eager)]


@contextlib.contextmanager
def _leaving_out(name: str, left_out: dict[str, str]) -> Iterator[None]:
    """Note why a row cannot be timed here, and go on."""
    try:
        yield
    except ValueError as error:
        left_out[name] = one_line(error)


def _others(names: tuple[str, ...], left_out: dict[str, str]) -> dict[str, Denoiser]:
    """Return models by name, without those for which a package is missing."""
    others = {}
    for name in names:
        try:
            others[name] = _named(name)
        except ValueError as error:
            if not isinstance(error.__cause__, ModuleNotFoundError):
                raise
            left_out[name] = one_line(error)
    return others


def _named(name: str) -> Denoiser:
    return build_denoiser(recipe_named(name)) if name in RECIPES else load_denoiser(name)


def cells_of(config: Config) -> NCAConfig:
    """Return the network configuration of a model of cells; refuse other models."""
    if not isinstance(config.model, NCAConfig):
        raise ValueError(f"model {config.name}: must be one of cells; time others next to it with --against")
    return config.model


def calls(denoiser: Denoiser, x_t: Tensor) -> list[Work]:
    """Return the ways to call a network of cells; this moves the network to the device of `x_t`."""
    network = denoiser.network.to(x_t.device)
    networks = {("eager", torch.float32): network}
    ready = prepare(network, x_t.device)
    if ready is not network:
        networks = {("engine", fast_dtype(x_t.device)): ready, **networks}
    return [_work(denoiser, f"call, {name}", each, x_t, dtype) for (name, dtype), each in networks.items()]


def compiled_call(denoiser: Denoiser, x_t: Tensor) -> Work:
    """Return a call of the compiled network; refuse what cannot be compiled in `COMPILE_SECONDS`."""
    device, dtype = x_t.device, fast_dtype(x_t.device)
    work = _work(denoiser, "call, compiled", compiled(denoiser.network, device, dtype), x_t, dtype)
    compile_by(work.call, device, COMPILE_SECONDS)
    return work


def _work(
    denoiser: Denoiser, name: str, network: Callable[..., Tensor], x_t: Tensor, dtype: torch.dtype
) -> Work:
    batch, _, height, width = x_t.shape
    needed = products(cells_of(denoiser.config), height, width, batch)
    operations = sum(product.operations for product in needed)
    floor = floor_of(needed, dtype, x_t.device)
    return Work(f"{name}, {_short(dtype)}", _call(network, x_t), operations, floor)


def calls_of_other(name: str, denoiser: Denoiser, x_t: Tensor) -> list[Work]:
    """Return calls of a model to compare: cells in the engine, a UNet in float32 and in the fast type."""
    network, device = denoiser.network, x_t.device
    if isinstance(denoiser.config.model, NCAConfig):
        work = calls(denoiser, x_t)[0]
        return [replace(work, name=f"{name}, {work.name.removeprefix('call, ')}")]
    assert isinstance(network, UNet)
    works = []
    for dtype in sorted({torch.float32, fast_dtype(device)}, key=str):
        made = copy.deepcopy(network).to(device, dtype)
        made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        call = _call(made, x_t.to(dtype, memory_format=torch.channels_last))
        with FlopCounterMode(display=False) as counter:
            call()
        works.append(Work(f"{name}, {_short(dtype)}", call, counter.get_total_flops()))
    return works


def bench_training(config: Config, rounds: int) -> Timing:
    """Time `rounds` training steps of a recipe as `diffnca train` takes them, on crops of noise."""
    training, side = config.training, config.data.crop
    x_0 = torch.rand(training.batch, config.model.image_channels, side, side) * 2.0 - 1.0
    ends: list[float] = []

    def note(title: str, done: float, total: float) -> None:
        finish(device)
        if done > 0:
            ends.append(time.perf_counter())

    budget = replace(training, images=training.batch * (WARM_UP_STEPS + rounds), minutes=None)
    with tempfile.TemporaryDirectory() as folder:
        options = Care(checkpoint_seconds=3600.0, sample_seconds=0.0, report=note)
        trainer = Trainer(replace(config, training=budget), Path(folder), lambda step: x_0, options)
        device = trainer.accelerator.device
        memory = memory_of(trainer.run, device)
    dtype = fast_dtype(device) if training.precision == "auto" else getattr(torch, training.precision)
    needed = products(cells_of(config), side, side, training.batch)
    steps = [after - before for before, after in itertools.pairwise(ends[WARM_UP_STEPS - 1 :])]
    floor = in_turns({"floor": floor_of(needed, dtype, device)}, rounds, device)["floor"]
    operations = sum(product.operations for product in needed)
    kind = {"off": ", eager", "on": ", compiled"}.get(training.compile, "")
    name = f"training, {training.batch} of {side} px{kind}, {_short(dtype)}"
    # the backward pass has two products for each product of the forward pass
    return Timing(name, statistics.median(steps), 3 * operations, 3.0 * floor, memory)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _call(network: Callable[..., Tensor], x_t: Tensor) -> Callable[[], object]:
    t = torch.full((len(x_t),), 0.5, device=x_t.device, dtype=x_t.dtype)  # each time takes as long
    return torch.no_grad()(lambda: network(x_t, t))


class Product(NamedTuple):
    """A matrix product `rows x inner` by `inner x outputs`, computed `times` times in a call."""

    rows: int
    inner: int
    outputs: int
    times: int

    @property
    def operations(self) -> int:
        """Multiplications and additions of all `times` products."""
        return 2 * self.rows * self.inner * self.outputs * self.times


def products(config: NCAConfig, height: int, width: int, batch: int = 1) -> list[Product]:
    """Return the matrix products of one call of the network on a canvas."""
    canvas = Canvas(height, width)
    cells = PatchGrid(canvas.whole, config.patch).cells
    needed = _of_rule(config.cell, config.channels, config.cell_image_channels, batch * cells.area)
    if config.coarse is not None:
        coarse, squares = config.coarse, PatchGrid(canvas.whole, config.coarse.patch).cells
        needed += _of_rule(coarse.cell, coarse.channels, config.coarse_image_channels, batch * squares.area)
    if config.fourier is not None:
        window = Window(config.fourier, canvas).region
        channels, protected = 2 * config.spectrum_channels, 2 * config.drawn_channels
        needed += _of_rule(config.fourier.cell, channels, protected, batch * window.area)
    return needed


def _of_rule(cell: CellConfig, channels: int, protected: int, rows: int) -> list[Product]:
    seen, steps = channels + cell.embedding_channels * cell.perceive_embedding, cell.num_cell_steps
    return [
        Product(rows, 9 * seen, channels, steps),
        Product(rows, seen + channels, cell.hidden, steps),
        Product(rows, cell.hidden, channels - protected, steps),
    ]


def floor_of(needed: list[Product], dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Return a function that computes the matrix products alone, into preallocated outputs."""

    def filled(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    operands = [
        (filled(rows, inner), filled(inner, outputs), filled(rows, outputs), times)
        for rows, inner, outputs, times in needed
    ]

    def work() -> None:
        for left, right, out, times in operands:
            for _ in range(times):
                torch.mm(left, right, out=out)

    return work
