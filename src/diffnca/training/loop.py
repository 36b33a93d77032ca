"""The training loop.

Every random choice of training step i is a function of (seed, i, process), and a checkpoint holds weights,
average, optimiser and counters, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from diffnca.config.json import from_json, to_json
from diffnca.config.model import Config, TrainingConfig
from diffnca.engine.machine import fast_dtype, has_compiler
from diffnca.models.build import Generator, build_model
from diffnca.models.file import MODEL_FILE, STATE_FILE, load_weights, read_tensors, write_model, write_tensors
from diffnca.training.compatibility import check_same_processes, check_same_run
from diffnca.training.ema import ema_decay, update_ema
from diffnca.training.optimizer import build_optimizer
from diffnca.training.signals import StopRequestedError, stop_requests

LOG_FILE = "log.jsonl"
TRACKER_FOLDER = "diffnca"
LOG_EVERY_STEPS = 20
FINAL_LEARNING_RATE = 0.01
DIVERGENCE_FACTOR = 10.0
SUSPICIOUS_FACTOR = 2.0

Batches = Callable[[int], Tensor]
"""Gives the clean images `b c h w` of a training step; a pure function of its number."""

Objective = Callable[[Any, torch.device], nn.Module]
"""Makes of a model, trained on a device, a module whose `forward(x_0, generator, masks)` is the loss."""


class DivergedError(ValueError):
    """Training has diverged; the last good checkpoint is kept."""


@dataclass
class Progress:
    """How far a run is; stored in its checkpoint."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    """Of these, spent waiting for clean images."""
    loss: float = math.nan
    """Mean loss of recent steps."""
    best_loss: float = math.inf
    """Smallest mean loss so far."""

    def share(self, training: TrainingConfig) -> float:
        """Return the share of the budget that is spent, in [0, 1]."""
        if training.minutes is not None:
            return min(self.seconds / (60.0 * training.minutes), 1.0)
        return min(self.images / training.images, 1.0)


@dataclass(frozen=True)
class RunOptions:
    """How a run is looked after; nothing here changes its numbers.

    Attributes:
        checkpoint_seconds: time between checkpoints.
        sample_seconds: time between sample grids, the last of which comes at the end; 0 makes none.
        report: called after each step.
        sample: makes a sample grid from a model in a file; raises `StopRequestedError` once the
            function it is given says that a stop was asked for.
        trackers: names of accelerate's trackers, for example `tensorboard`.
        card: what is known of the model, stored in its file.
    """

    checkpoint_seconds: float = 60.0
    sample_seconds: float = 600.0
    report: Callable[[Progress, TrainingConfig], None] | None = None
    sample: Callable[[Generator, Path, Callable[[], bool]], None] | None = None
    trackers: tuple[str, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)


def learning_rate(training: TrainingConfig, progress: Progress) -> float:
    """Return the learning rate of the next step: a function of the progress alone."""
    if training.decay == "exponential":
        return training.learning_rate * training.decay_per_batch**progress.step
    share = progress.share(training)
    cosine = FINAL_LEARNING_RATE + (1.0 - FINAL_LEARNING_RATE) * 0.5 * (1.0 + math.cos(math.pi * share))
    warmup = min(1.0, (progress.images + training.batch) / max(training.warmup_images, 1))
    return training.learning_rate * cosine * warmup


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """Return the generator of all noise in a training step."""
    state = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class RandomMasks:
    """Which cells update in one training step, drawn from the generator of the step."""

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        """Draw for so many images from `generator`."""
        self.generator = generator
        self.batch = batch

    def mask(self, cell_step: int, region: Any, probability: float) -> Tensor:
        """Return true where a cell of `region` updates, `b 1 h w`."""
        shape = (self.batch, 1, region.height, region.width)
        return torch.rand(shape, generator=self.generator) < probability


class Trainer:
    """One run of training, in one folder."""

    def __init__(
        self,
        config: Config,
        out: Path,
        batches: Batches,
        options: RunOptions,
        start: Path | None = None,
        data_fingerprint: str = "",
        objective: Objective | None = None,
    ) -> None:
        """Build the model, or take up the run that lies in `out`.

        Args:
            config: the model and its training.
            out: the folder of the run.
            batches: clean images of each step.
            options: checkpoints, samples, reports.
            start: a model file whose weights are fine-tuned, for a new run.
            data_fingerprint: tells the data of this run from other data.
            objective: the loss; `None` is that of the model itself.

        Raises:
            ValueError: the run in `out` is another one.
        """
        self.fingerprint = data_fingerprint
        self.config, self.out, self.batches, self.options = config, out, batches, options
        training = config.training
        self.accelerator = Accelerator(
            mixed_precision="no",  # it holds for the process; ours, below, for the run
            log_with=list(options.trackers) or None,
            project_dir=out,
        )
        torch.manual_seed(training.seed)
        model = build_model(config)
        if start is not None and not (out / STATE_FILE).is_file():
            load_weights(model, start)
        model.network.checkpoint_cells = training.checkpoint_cells
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(training, model.network)
        self._compile(model)
        loss = model if objective is None else objective(model, self.accelerator.device)
        self.trained = model
        self.model, self.optimizer = self.accelerator.prepare(loss, optimizer)
        self.average = {name: weight.clone() for name, weight in self.trained.network.state_dict().items()}
        self.progress = Progress()
        if (out / STATE_FILE).is_file():
            self._restore()
        self._trim_log()

    def run(self) -> Progress:
        """Train until the budget is spent; return how far the run has come."""
        training, options = self.config.training, self.options
        if options.trackers:
            self.accelerator.init_trackers(TRACKER_FOLDER, config={"config": to_json(self.config)})
        saved = sampled = time.monotonic()
        with stop_requests() as stopped, prefetched(self._own_batch, self.progress.step) as batches:
            while self.progress.share(training) < 1.0 and not self._shared(float(stopped())):
                self._step(batches)
                now = time.monotonic()
                if options.report is not None and self.accelerator.is_main_process:
                    options.report(self.progress, training)
                if now - saved >= options.checkpoint_seconds and self._is_learning():
                    self.save()
                    saved = time.monotonic()
                if now - sampled >= options.sample_seconds > 0 and self._is_learning():
                    self.save()
                    self._sample(stopped)
                    sampled = time.monotonic()
            if self._is_learning() or self.progress.share(training) >= 1.0:
                self.save()
            if options.sample_seconds > 0 and self.progress.share(training) >= 1.0:
                self._sample(stopped)
        self.accelerator.end_training()
        return self.progress

    def _own_batch(self, step: int) -> Tensor:
        """Return the clean images of a step for this process: each of several has others."""
        return self.batches(step * self.accelerator.num_processes + self.accelerator.process_index)

    def _shared(self, value: float) -> float:
        """Return the value of the main process, so that several processes stop and slow down together."""
        if self.accelerator.num_processes == 1:
            return value
        values = torch.tensor(value, dtype=torch.float32, device=self.accelerator.device)
        return float(broadcast(values))

    def _is_learning(self) -> bool:
        """Return whether the loss is near its best: a checkpoint of a diverging run helps nobody."""
        return not self.progress.loss > SUSPICIOUS_FACTOR * self.progress.best_loss

    def _step(self, batches: Iterator[Tensor]) -> None:
        """Take one optimiser step on the next clean images; waiting for them counts as training time."""
        started = time.monotonic()
        x_0 = next(batches)
        training, progress = self.config.training, self.progress
        progress.waiting_seconds += time.monotonic() - started
        rate = learning_rate(training, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = step_generator(training.seed, progress.step, self.accelerator.process_index)
        x_0 = x_0.to(self.accelerator.device)
        with torch.autocast(x_0.device.type, torch.bfloat16, enabled=self._precision() == torch.bfloat16):
            loss = self.model(x_0, generator, RandomMasks(generator, len(x_0)))
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        limit = training.max_gradient_norm if training.max_gradient_norm is not None else math.inf
        norm = self.accelerator.clip_grad_norm_(self.trained.parameters(), limit)
        value = float(loss.detach())
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise DivergedError(self._diverged(f"loss {value}, gradient norm {float(norm)}"))
        self.optimizer.step()
        batch = len(x_0) * self.accelerator.num_processes
        decay = ema_decay(training, progress.images, batch)
        update_ema(self.average, self.trained.network.state_dict(), decay)
        self._count(value, batch, self._shared(time.monotonic() - started))
        if progress.step % LOG_EVERY_STEPS == 0 or progress.share(training) >= 1.0:
            self._log(rate)

    def _count(self, loss: float, batch: int, seconds: float) -> None:
        """Add one step to the progress, and watch the mean loss."""
        progress = self.progress
        progress.step += 1
        progress.images += batch
        progress.seconds += seconds
        keep = 0.0 if math.isnan(progress.loss) else min(0.99, 1.0 - 1.0 / progress.step)
        progress.loss = loss if keep == 0.0 else keep * progress.loss + (1.0 - keep) * loss
        if progress.step >= 100:
            progress.best_loss = min(progress.best_loss, progress.loss)
            if progress.loss > DIVERGENCE_FACTOR * progress.best_loss:
                raise DivergedError(
                    self._diverged(f"mean loss {progress.loss:.3g} after {progress.best_loss:.3g}")
                )

    def _diverged(self, what: str) -> str:
        """Return the message for a run that has diverged."""
        rate = self.config.training.learning_rate
        is_kept = (self.out / STATE_FILE).exists()
        kept = (
            f"the last good checkpoint is kept in {self.out}" if is_kept else "no checkpoint was written yet"
        )
        return (
            f"training diverged at step {self.progress.step} ({what}); {kept}; "
            f"start a new run with another --out and a lower --training.learning-rate than {rate:g}"
        )

    def _log(self, rate: float) -> None:
        """Write one line of the log, and to the trackers."""
        progress = self.progress
        speed = progress.images / max(progress.seconds, 1e-9)
        values = {"loss": progress.loss, "learning_rate": rate, "images": progress.images}
        values |= {"seconds": round(progress.seconds, 3), "images_per_second": round(speed, 3)}
        values |= {"waiting_seconds": round(progress.waiting_seconds, 3)}
        if self.accelerator.is_main_process:
            with open(self.out / LOG_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps({"step": progress.step, **values}) + "\n")
        if self.options.trackers:
            self.accelerator.log(values, step=progress.step)

    def save(self) -> None:
        """Write the model and all that training needs to go on; each file is replaced atomically."""
        if not self.accelerator.is_main_process:
            return
        network = self.trained.network.state_dict()
        tensors = {f"network.{name}": weight for name, weight in network.items()}
        tensors |= {f"average.{name}": weight for name, weight in self.average.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
        header = {"config": to_json(self.config), "progress": json.dumps(asdict(self.progress))}
        header |= {"data": self.fingerprint, "processes": str(self.accelerator.num_processes)}
        card = {**self.options.card, "images_seen": self.progress.images, "training_hours": self._hours()}
        write_tensors(self.out / STATE_FILE, tensors, header)  # first: all that the model is written from
        write_model(self.out / MODEL_FILE, self.average, self.config, card)

    def _hours(self) -> float:
        """Return the hours of training so far."""
        return round(self.progress.seconds / 3600.0, 3)

    def _restore(self) -> None:
        """Take up the run of the checkpoint."""
        tensors, header = read_tensors(self.out / STATE_FILE)
        check_same_run(self.out, from_json(header["config"]), self.config)
        if header["data"] != self.fingerprint:
            raise ValueError(
                f"{self.out}: began with other images, weights or another teacher; give a new --out"
            )
        check_same_processes(self.out, header.get("processes"), self.accelerator.num_processes)
        self.progress = Progress(**json.loads(header["progress"]))
        self.trained.network.load_state_dict(_under("network.", tensors))
        for name, value in _under("average.", tensors).items():
            self.average[name].copy_(value)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("adam.", tensors).items():
            index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def _sample(self, stopped: Callable[[], bool]) -> None:
        """Make a grid of samples of the averaged weights, unless a request to stop comes."""
        if not self.accelerator.is_main_process or self.options.sample is None:
            return
        shown = build_model(self.config)
        shown.network.load_state_dict(self.average)
        shown.to(self.accelerator.device)
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.progress.images:09d}.png"
        with contextlib.suppress(StopRequestedError):
            self.options.sample(shown.eval().requires_grad_(False), path, stopped)

    def _trim_log(self) -> None:
        """Drop the lines of steps that were logged after the last checkpoint, and will be taken again."""
        path = self.out / LOG_FILE
        if not path.is_file() or not self.accelerator.is_main_process:
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        kept = [line for line in whole if json.loads(line)["step"] <= self.progress.step]
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        partial.replace(path)

    def _precision(self) -> torch.dtype:
        """Return the precision of the matrix products."""
        if self.config.training.precision == "auto":
            return fast_dtype(self.accelerator.device)
        return torch.bfloat16 if self.config.training.precision == "bfloat16" else torch.float32

    def _compile(self, model: Generator) -> None:
        """Compile what is worth it, where that helps."""
        device = self.accelerator.device
        wanted = self.config.training.compile
        if wanted == "on" and not has_compiler(device):
            raise ValueError(
                "training.compile=on: no C++ compiler or no Python headers here; choose auto or off"
            )
        if wanted == "on" or (
            wanted == "auto" and self._precision() == torch.bfloat16 and has_compiler(device)
        ):
            for part in model.network.compiled_parts():
                part.compile(dynamic=False)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


@contextlib.contextmanager
def prefetched(batches: Batches, first: int) -> Iterator[Iterator[Tensor]]:
    """Within the block, make each batch while the one before is used."""
    with ThreadPoolExecutor(1) as pool:

        def produce() -> Iterator[Tensor]:
            step, coming = first, pool.submit(batches, first)
            while True:
                ready = coming.result()
                step += 1
                coming = pool.submit(batches, step)
                yield ready

        yield produce()
