"""How fast a model runs on the machine at hand, next to the matrix products that it cannot do without.

All is timed in one process, in turns, and the median taken, because other work on a machine comes and goes:
the shares mean more than the seconds. Operations are the useful ones alone, two per multiply-add of the
perception, the hidden layer and the projection.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from diffnca.config import CellConfig, Config, NCAConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.engine import prepare
from diffnca.engine.precision import device_named, fast_dtype, has_triton
from diffnca.geometry import Canvas
from diffnca.models.fourier import Window
from diffnca.models.patches import PatchGrid
from diffnca.recipes import RECIPES, recipe_named
from diffnca.training.checkpoint import build_denoiser, load_denoiser
from diffnca.training.loop import Progress, RunOptions, Trainer

if TYPE_CHECKING:
    from diffnca.cli import Bench

WARM_UP_STEPS = 3
"""Training steps before the clock starts: the first one compiles."""


def bench(command: Bench) -> int:
    """Time a model as the command says, and print a table; return the exit code."""
    for name in ("height", "width", "batch", "rounds"):
        if getattr(command, name) < 1:
            raise ValueError(f"--{name} {getattr(command, name)}: must be >= 1")
    device = torch.device(device_named(command.device))
    is_recipe = command.name in RECIPES
    denoiser = build_denoiser(recipe_named(command.name)) if is_recipe else load_denoiser(command.name)
    _cells_of(denoiser.config)
    sides = (command.height, command.width)
    timings = bench_denoiser(denoiser, *sides, command.batch, command.rounds, device)
    if command.training:
        plain = replace(denoiser.config.training, precision="float32", compile="off")
        timings.append(bench_training(denoiser.config, command.rounds))
        timings.append(bench_training(replace(denoiser.config, training=plain), command.rounds))
    facts: dict[str, Any] = {
        "machine": machine(device),
        "model": command.name,
        "images": f"{command.batch} of {command.height}x{command.width} px",
        "peak_memory_bytes": peak_memory_bytes(device),
    }
    print(_as_json(facts, timings) if command.json else _as_table(facts, timings))
    return 0


def _cells_of(config: Config) -> NCAConfig:
    """Return the network of a model of cells.

    Raises:
        ValueError: it is of another kind.
    """
    if not isinstance(config.model, NCAConfig):
        raise ValueError(f"model {config.name}: must be one of cells; benchmarks/unets.py times UNets")
    return config.model


def _as_json(facts: dict[str, Any], timings: list[Timing]) -> str:
    """Return all numbers, for machines."""
    rows = [
        dataclasses.asdict(each) | {"gflops_per_second": each.gflops_per_second, "share": each.share}
        for each in timings
    ]
    return json.dumps({**facts, "timings": rows}, indent=1)


def _as_table(facts: dict[str, Any], timings: list[Timing]) -> str:
    """Return all numbers, for people."""
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()]
    lines.append(f"{'':30}{'seconds':>10}{'GFLOP/s':>10}{'of the matrix rate':>20}")
    lines += [
        f"{each.name:30}{each.seconds:10.4f}{each.gflops_per_second:10.1f}{each.share:20.0%}"
        for each in timings
    ]
    return "\n".join(lines)


class Product(NamedTuple):
    """A matrix product `rows x inner` by `inner x outputs`, done so many times in a call."""

    rows: int
    inner: int
    outputs: int
    times: int

    @property
    def operations(self) -> int:
        """Operations of all of them."""
        return 2 * self.rows * self.inner * self.outputs * self.times


@dataclass(frozen=True)
class Timing:
    """What was timed.

    Attributes:
        name: of the work.
        seconds: median of one call, or of one training step.
        operations: useful ones in it.
        floor_seconds: median of its matrix products alone, in their type, with preallocated outputs.
    """

    name: str
    seconds: float
    operations: int
    floor_seconds: float

    @property
    def gflops_per_second(self) -> float:
        """Useful operations per second, in billions."""
        return self.operations / self.seconds / 1e9

    @property
    def share(self) -> float:
        """Share of the rate that the matrix products alone reach here."""
        return self.floor_seconds / self.seconds


def products(config: NCAConfig, height: int, width: int, batch: int = 1) -> list[Product]:
    """Return the matrix products of one call of the network on a canvas, without embeddings and gates."""
    canvas = Canvas(height, width)
    cells = PatchGrid(canvas.whole, config.patch).cells
    needed = _of_rule(config.cell, config.channels, config.cell_image_channels, batch * cells.area)
    if config.fourier is not None:
        window = Window(config.fourier, canvas).region
        protected = 2 * config.image_channels
        needed += _of_rule(config.fourier.cell, 2 * config.channels, protected, batch * window.area)
    return needed


def _of_rule(cell: CellConfig, channels: int, protected: int, rows: int) -> list[Product]:
    """Return the products of one cell rule on so many cells."""
    seen, steps = channels + cell.embedding_channels * cell.perceive_embedding, cell.num_cell_steps
    return [
        Product(rows, 9 * seen, channels, steps),
        Product(rows, seen + channels, cell.hidden, steps),
        Product(rows, cell.hidden, channels - protected, steps),
    ]


def bench_denoiser(
    denoiser: Denoiser, height: int, width: int, batch: int, rounds: int, device: torch.device
) -> list[Timing]:
    """Time one call of the denoiser: as the engine runs it, and eager as it was trained, in float32.

    Args:
        denoiser: the model; it is moved to the device.
        height: rows in pixels.
        width: columns in pixels.
        batch: images in a call.
        rounds: how often each is timed, >= 1.
        device: where.
    """
    denoiser = denoiser.to(device)
    region = Canvas(height, width).whole
    x_t = torch.randn(batch, denoiser.image_channels, height, width).to(device)
    level = denoiser.schedule.level(denoiser.schedule.num_diffusion_steps // 2)
    needed = products(_cells_of(denoiser.config), height, width, batch)

    def call_of(network: torch.nn.Module) -> Callable[[], object]:
        made = Denoiser(network, denoiser.schedule, denoiser.config)
        return torch.no_grad()(lambda: made.x_0_estimate(x_t, level, region))

    engine, float32 = prepare(denoiser.network, device), torch.float32
    works = {
        "engine": (call_of(engine), fast_dtype(device)),
        "eager": (call_of(denoiser.network), float32),
    }
    if device.type == "cuda" and has_triton() and denoiser.network.radius is not None:
        fused = prepare(denoiser.network, device, engine="fused")
        works["fused"] = (call_of(fused), fast_dtype(device))
    seconds = in_turns(
        {name: work for name, (work, _) in works.items()}
        | {f"floor of {name}": _floor(needed, dtype, device) for name, (_, dtype) in works.items()},
        rounds,
        device,
    )
    return [
        Timing(
            f"call, {name}, {_short(dtype)}",
            seconds[name],
            sum(product.operations for product in needed),
            seconds[f"floor of {name}"],
        )
        for name, (_, dtype) in works.items()
    ]


def bench_training(config: Config, rounds: int) -> Timing:
    """Time one training step, as and where `diffnca train` takes it, on crops of noise.

    Args:
        config: the recipe; its crop, batch, precision and compilation are used.
        rounds: steps that are timed, >= 1.
    """
    training, side = config.training, config.data.crop
    x_0 = torch.rand(training.batch, config.model.image_channels, side, side) * 2.0 - 1.0
    ends: list[float] = []

    def note(progress: Progress, _: object) -> None:
        _finish(device)
        ends.append(time.perf_counter())

    budget = replace(training, images=training.batch * (WARM_UP_STEPS + rounds), minutes=None)
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(checkpoint_seconds=3600.0, sample_seconds=0.0, report=note)
        trainer = Trainer(replace(config, training=budget), Path(folder), lambda step: x_0, options)
        device = trainer.accelerator.device
        trainer.run()
    dtype = fast_dtype(device) if training.precision == "auto" else getattr(torch, training.precision)
    needed = products(_cells_of(config), side, side, training.batch)
    steps = [after - before for before, after in itertools.pairwise(ends[WARM_UP_STEPS - 1 :])]
    floor = in_turns({"floor": _floor(needed, dtype, device)}, rounds, device)["floor"]
    operations = sum(product.operations for product in needed)
    kind = ", eager" if training.compile == "off" else ""
    return Timing(  # a backward pass has two products for each of the forward pass
        f"training step{kind}, {_short(dtype)}", statistics.median(steps), 3 * operations, 3.0 * floor
    )


def in_turns(works: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each work, timed in turns after one call each to warm up."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            _finish(device)
            started = time.perf_counter()
            work()
            _finish(device)
            if turn > 0:
                taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _floor(needed: list[Product], dtype: torch.dtype, device: torch.device) -> Callable[[], None]:
    """Return work that does the matrix products alone, into outputs that are there already."""
    operands = [_operands(product, dtype, device) for product in needed]

    def work() -> None:
        for product, (left, right, out) in zip(needed, operands, strict=True):
            for _ in range(product.times):
                torch.mm(left, right, out=out)

    return work


def _operands(product: Product, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return both factors of a product and room for its result."""
    left = torch.randn(product.rows, product.inner, device=device).to(dtype)
    right = torch.randn(product.inner, product.outputs, device=device).to(dtype)
    return left, right, torch.empty(product.rows, product.outputs, dtype=dtype, device=device)


def _finish(device: torch.device) -> None:
    """Wait until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _short(dtype: torch.dtype) -> str:
    """Return the name of a type without its module."""
    return str(dtype).removeprefix("torch.")


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most memory that this process has held on the device; `None` if it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def machine(device: torch.device) -> str:
    """Return what the numbers were measured on, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _processor() -> str:
    """Return the name of the processor."""
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file, none if it is not there."""
    if path.is_file():
        yield from path.read_text(encoding="utf-8", errors="replace").splitlines()
