"""The training loop.

Every random choice for batch i is a function of (seed, i, process, player). A step takes one batch or adds
up the gradients of several. A checkpoint holds weights, averages, optimisers and counters after a step. So
a stopped run goes on as if it had never stopped.
"""

import contextlib
import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from diffnca.config.json import to_json
from diffnca.config.model import Config
from diffnca.errors import Interrupted
from diffnca.models.build import Generator, build_model
from diffnca.models.file import MODEL_FILE, write_model
from diffnca.progress import Recent, Report, unseen
from diffnca.training import state
from diffnca.training.averages import Averages
from diffnca.training.objectives import Batch, Objective, ObjectiveOf, OwnLoss, Player, batch_generator
from diffnca.training.pace import batches_of_step, learning_rate, most_batches
from diffnca.training.signals import Stopped, never, stop_requests
from diffnca.training.state import Progress, Run
from diffnca.training.steps import precision_of, prepare_steps
from diffnca.training.transfer import load_start

LOG_EVERY_STEPS = 20
MOST_HELD_OUT, SEEN_PER_HELD_OUT = 64, 64
"""Held-out crops on which averages are compared, at most, and crops of training for each of them.

Noise is equal for all averages, so few crops rank them. The choice takes a few percent of the training."""

DIVERGENCE_FACTOR = 10.0
SUSPICIOUS_FACTOR = 2.0
RENDEZVOUS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Batches = Callable[[int], Tensor]
"""Returns the clean images `b c h w` of a batch, with the planes of their layouts as last channels.

It is a pure function of the number of the batch."""


class DivergedError(ValueError):
    """Training has diverged; the run keeps its last good checkpoint."""


@dataclass(frozen=True)
class Care:
    """Checkpoints, sample grids and reports of a run; nothing here changes the trained weights.

    Attributes:
        held_out: clean images that training does not see, by the number of a batch; a finished run takes the
            average with the smallest loss on them.
        sample_seconds: time between sample grids; a finished run makes a last grid; 0 makes none.
        sample: writes a sample grid of a model to a file; raises `Interrupted` after a request to stop.
        trackers: names of accelerate's trackers, for example `tensorboard`.
        cancelled: whether the run should stop after the current step, as a signal can ask too.
        card: facts about the model, stored in its file.
    """

    checkpoint_seconds: float = 60.0
    sample_seconds: float = 600.0
    report: Report = unseen
    sample: Callable[[Generator, Path, Stopped], None] | None = None
    held_out: Batches | None = None
    trackers: tuple[str, ...] = ()
    cancelled: Stopped = never
    card: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def own_rank() -> Iterator[None]:
    """Hide a LOCAL_RANK that no launcher set: accelerate would wait for other processes."""
    by_mpi = any(name in os.environ for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"))
    is_stray = not by_mpi and not all(name in os.environ for name in RENDEZVOUS)
    rank = os.environ.pop("LOCAL_RANK", None) if is_stray else None
    try:
        yield
    finally:
        if rank is not None:
            os.environ["LOCAL_RANK"] = rank


def has_only_processors() -> bool:
    """Return whether this machine has no GPU: accelerate must know, or it joins no processes."""
    return not torch.accelerator.is_available()


class Turn(nn.Module):
    """The loss of one player as a module: accelerate shares its gradients between processes."""

    def __init__(self, objective: Objective, player: Player) -> None:
        """Register only the network of `player` as a submodule."""
        super().__init__()
        self.module, self.objective, self.player = player.module, objective, player

    def forward(self, batch: Batch) -> Tensor:
        """Return the loss."""
        return self.objective.loss(self.player.name, batch)


class Trainer:
    """One run of training, in one folder."""

    def __init__(
        self,
        config: Config,
        out: Path,
        batches: Batches,
        care: Care | None = None,
        start: Path | None = None,
        data_fingerprint: str = "",
        objective: ObjectiveOf = OwnLoss,
    ) -> None:
        """Build the model, or load the run in `out`; a new run fine-tunes the model file `start`, if given.

        Refuse an `out` with another run; runs on other data have another `data_fingerprint`.
        """
        stored, self.speed = state.stored_run(out), Recent()
        config = config if stored is None else state.with_spent_budget(config, stored)
        self.config, self.out, self.batches, self.care = config, out, batches, care or Care()
        with own_rank():  # accelerate's precision would hold for the process; `_turn` sets it for the run
            self.accelerator = Accelerator(
                mixed_precision="no",
                log_with=list(self.care.trackers) or None,
                project_dir=out,
                cpu=has_only_processors(),
            )
        self.progress = Progress() if stored is None else stored.progress
        self.facts = Run(config, self.progress, data_fingerprint, str(self.accelerator.num_processes))
        if stored is not None:
            state.check_goes_on(out, stored, self.facts)
        self._build(objective, start if stored is None else None)
        if stored is not None:
            state.restore(out, self.players, self.averages)
        if self.accelerator.is_main_process:
            state.trim_log(out, self.progress.step)

    def _build(self, objective: ObjectiveOf, start: Path | None) -> None:
        training, device = self.config.training, self.accelerator.device
        torch.manual_seed(training.seed)
        self.model = build_model(self.config)
        if start is not None:
            load_start(self.model, start)
        self.model.network.checkpoint_cells = training.checkpoint_cells
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.is_compiling = self._compile()  # true until the end of the first step
        self.objective = objective(self.model, device)
        self.players = tuple(self.objective.players())
        made = [(Turn(self.objective, player), player.optimizer) for player in self.players]
        pairs = [self.accelerator.prepare(*each) for each in made]
        self.turns = list(zip(self.players, *zip(*pairs, strict=True), strict=True))
        self.averages = Averages(training, self.players[0].module.state_dict())

    def run(self) -> Progress:
        """Train until the budget is spent; return the progress.

        Raises:
            Interrupted: the user asked for a stop; the run is saved.
            DivergedError: the loss or a weight is not finite, or the loss has grown much.
        """
        if self.care.trackers:
            self.accelerator.init_trackers(state.TRACKER_FOLDER, config={"config": to_json(self.config)})
        with stop_requests(self.care.cancelled) as stopped, ThreadPoolExecutor(1) as pool:
            self._take_steps(self._own_batches(pool), stopped)
            pool.shutdown(cancel_futures=True)  # nobody takes the batches that it would prepare
            if self.is_finished or self._is_learning():
                self.save()
            if self.is_finished:
                self.finish()  # after a checkpoint: a kill during the choice loses no step
            if self.care.sample_seconds > 0 and self.is_finished:
                self._sample(stopped)
        self.accelerator.end_training()
        if not self.is_finished:
            raise Interrupted(f"stopped after {self.progress}", "goes on")
        return self.progress

    @property
    def is_finished(self) -> bool:
        """Whether the budget is spent."""
        return self.progress.share(self.config.training) >= 1.0

    def _take_steps(self, batches: Iterator[Tensor], stopped: Stopped) -> None:
        care = self.care
        report = care.report if self.accelerator.is_main_process else unseen
        if self.is_compiling and not self.is_finished:
            report("compiling", 0.0, 0.0)
        saved = sampled = time.monotonic()
        while not self.is_finished and not self._shared(float(stopped())):
            self._step(batches)
            now = time.monotonic()
            speed = self.speed.of(now, self.progress.images)
            title = f"training, loss {self.progress.loss:.4f}" + (f", {speed:.1f} images/s" if speed else "")
            report(title, *self.progress.budget(self.config.training))
            is_due = (now - saved >= care.checkpoint_seconds, now - sampled >= care.sample_seconds > 0)
            if any(is_due) and self._is_learning():
                self.save()
                saved = now
                if is_due[1]:
                    self._sample(stopped)
                    sampled = time.monotonic()

    def _own_batches(self, pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        """Yield the clean images of this process alone; `pool` prepares those of the next step meanwhile."""
        processes, own = self.accelerator.num_processes, self.accelerator.process_index
        numbers = (number * processes + own for number in itertools.count(self._num_batches))
        coming = deque[Future[Tensor]]()
        while True:
            while len(coming) <= most_batches(self.config.training):
                coming.append(pool.submit(self.batches, next(numbers)))
            yield coming.popleft().result()

    @property
    def _num_batches(self) -> int:
        """Number of batches that each process has taken."""
        images_at_once: int = self.config.training.batch * self.accelerator.num_processes
        return self.progress.images // images_at_once

    def _shared(self, value: float) -> float:
        if self.accelerator.num_processes == 1:
            return value
        values = torch.tensor(value, dtype=torch.float32, device=self.accelerator.device)
        return float(broadcast(values))

    def _is_learning(self) -> bool:
        """Return whether the loss is near its best; a diverging run keeps its older checkpoint."""
        return self._is_game or not self.progress.loss > SUSPICIOUS_FACTOR * self.progress.best_loss

    @property
    def _is_game(self) -> bool:
        """Whether several players learn: a loss then rises and falls with the others, also below 0."""
        return len(self.players) > 1

    def _step(self, batches: Iterator[Tensor]) -> None:
        """Let each player take a turn on the next clean images; the wait for images counts as training."""
        started = time.monotonic()
        count = batches_of_step(self.config.training, self.progress)
        taken = list(itertools.islice(batches, count))
        waited = time.monotonic() - started
        progress, rate = self.progress, learning_rate(self.config.training, self.progress)
        taken = [x_0.to(self.accelerator.device) for x_0 in taken]
        losses = [self._turns(number, taken, rate) for number in range(len(self.players))]
        batch = sum(map(len, taken)) * self.accelerator.num_processes
        weights = self.players[0].module.state_dict()
        self.averages.update(weights, progress.images, batch)
        seconds = self._shared(time.monotonic() - started)
        if self.is_compiling:  # only the first step compiles; its time does not count
            seconds, waited, self.is_compiling = 0.0, 0.0, False
        progress.waiting_seconds += waited
        self._count(losses[0], batch, seconds)
        if progress.step % LOG_EVERY_STEPS == 0 or self.is_finished:
            self._log(rate, losses[1:])

    def _turns(self, number: int, taken: list[Tensor], rate: float) -> float:
        """Let a player take its turns; return its mean loss."""
        player, _, optimizer = self.turns[number]
        self._require_gradients(player)
        for group in optimizer.param_groups:
            group["lr"] = rate * player.rate
        return float(sum(self._turn(number, taken, turn) for turn in range(player.turns)) / player.turns)

    def _turn(self, number: int, taken: list[Tensor], turn: int) -> float:
        """Let a player take one optimiser step by the mean gradient of some batches; return the mean loss."""
        player, _, optimizer = self.turns[number]
        optimizer.zero_grad()
        losses = [self._add_gradient(number, index, taken, turn) for index in range(len(taken))]
        limit = self.config.training.max_gradient_norm or math.inf
        norm = float(self.accelerator.clip_grad_norm_(player.module.parameters(), limit))
        value = sum(losses) / len(losses)
        if not math.isfinite(value + norm):
            raise self._diverged(f"loss {value}, gradient norm {norm}")
        optimizer.step()
        return value

    def _add_gradient(self, number: int, index: int, taken: list[Tensor], turn: int) -> float:
        """Add the gradient of one of the batches of a step; return the loss."""
        batch = self._batch(taken[index], self._num_batches + index, number, turn)
        loss = self._loss(self.turns[number][1], batch)
        self.accelerator.backward(loss / len(taken))
        return float(loss.detach())

    def _batch(self, x_0: Tensor, index: int, player: int = 0, turn: int = 0) -> Batch:
        """Return clean images as batch `index` of a player, with the random numbers of its turn."""
        process, seed = self.accelerator.process_index, self.config.training.seed
        generator = batch_generator(seed, index, process, player, turn)
        return replace(Batch.of(x_0, self.config, generator), turn=turn)

    def _loss(self, losses: Callable[[Batch], Tensor], batch: Batch) -> Tensor:
        """Return the loss of a batch, in the precision of the training."""
        device = batch.x_0.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self._precision() == torch.bfloat16):
            return losses(batch)

    def _require_gradients(self, player: Player) -> None:
        if self._is_game:
            for each in self.players:
                for group in each.optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.requires_grad_(each is player)

    def _count(self, loss: float, batch: int, seconds: float) -> None:
        progress = self.progress
        progress.step += 1
        progress.images += batch
        progress.seconds += seconds
        keep = 0.0 if math.isnan(progress.loss) else min(0.99, 1.0 - 1.0 / progress.step)
        progress.loss = loss if keep == 0.0 else keep * progress.loss + (1.0 - keep) * loss
        if progress.step >= 100:
            progress.best_loss = min(progress.best_loss, progress.loss)
            if progress.loss > DIVERGENCE_FACTOR * progress.best_loss and not self._is_game:
                raise self._diverged(f"mean loss {progress.loss:.3g} after {progress.best_loss:.3g}")

    def _diverged(self, what: str) -> DivergedError:
        kept = "no checkpoint was written yet"
        if state.stored_run(self.out) is not None:
            kept = f"the last good checkpoint is kept in {self.out}"
        return DivergedError(
            f"training diverged at step {self.progress.step} ({what}); {kept}; start a new run with another "
            f"--out and a lower --training.learning-rate than {self.config.training.learning_rate:g}"
        )

    def _log(self, rate: float, others: list[float]) -> None:
        """Log the progress, and the `others`' losses in this step: those of all players but the first."""
        progress = self.progress
        speed = round(progress.images / max(progress.seconds, 1e-9), 3)
        values = {"loss": progress.loss, "learning_rate": rate, "images": progress.images}
        values |= {"seconds": round(progress.seconds, 3), "images_per_second": speed}
        values |= {"waiting_seconds": round(progress.waiting_seconds, 3)}
        values |= {f"loss_{each.name}": loss for each, loss in zip(self.players[1:], others, strict=True)}
        if self.accelerator.is_main_process:
            state.log(self.out, {"step": progress.step, **values})
        if self.care.trackers:
            self.accelerator.log(values, step=progress.step)

    def save(self) -> None:
        """Replace model file and state, each atomically; raise `DivergedError` if a weight is not finite."""
        for weights in (self.averages.recent, *(player.module.state_dict() for player in self.players)):
            for name, weight in weights.items():
                if not torch.isfinite(weight).all():
                    raise self._diverged(f"{name} is no finite number")
        if not self.accelerator.is_main_process:
            return
        hours = round(self.progress.seconds / 3600.0, 3)
        facts = {"images_seen": self.progress.images, "training_hours": hours}
        chosen, card = self.averages.chosen, {**self.care.card, **facts, **self.averages.told}
        state.write_state(self.out, self.players, self.averages, self.facts)
        write_model(self.out / MODEL_FILE, chosen, self.config, card)  # last: the state holds it too

    def finish(self) -> None:
        """Choose among the averages by their loss on held-out images, and save."""
        held_out = self.care.held_out
        if held_out is not None and self.averages.powers and self.accelerator.is_main_process:
            crops = min(MOST_HELD_OUT, self.progress.images // SEEN_PER_HELD_OUT)
            numbers = range(max(1, crops // self.config.training.batch))
            seen = [held_out(number)[:MOST_HELD_OUT].to(self.accelerator.device) for number in numbers]
            for each in self.players:
                each.module.eval()  # a choice changes nothing that is stored
            self.averages.choose(self.players[0].module, lambda: self._mean_loss(seen), self.care.report)
        self.save()

    @torch.no_grad()
    def _mean_loss(self, seen: list[Tensor]) -> float:
        """Return the mean loss of the first player; compiling would take longer than it would save."""
        turn = partial(self.objective.loss, self.players[0].name)
        batches = (self._batch(x_0, number) for number, x_0 in enumerate(seen))
        with torch.compiler.set_stance("force_eager"):
            return sum(float(self._loss(turn, batch)) for batch in batches) / len(seen)

    def _sample(self, stopped: Stopped) -> None:
        if not self.accelerator.is_main_process or self.care.sample is None:
            return
        shown = build_model(self.config)
        shown.network.load_state_dict(self.averages.chosen)
        shown.to(self.accelerator.device)
        path = self.out / state.SAMPLE_FOLDER / f"{self.progress.images:09d}.png"
        path.parent.mkdir(exist_ok=True)
        with contextlib.suppress(Interrupted):
            self.care.sample(shown.eval().requires_grad_(False), path, stopped)

    def _precision(self) -> torch.dtype:
        return precision_of(self.config.training, self.accelerator.device)

    def _compile(self) -> bool:
        """Prepare the network for fast steps; return whether torch compiles a part of it."""
        parts, choice = self.model.network.compiled_parts(), self.config.training.compile
        return prepare_steps(parts, choice, self._precision(), self.accelerator.device)
