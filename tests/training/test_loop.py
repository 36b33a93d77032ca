"""The training loop: learning, resuming to the bit, stopping, divergence, the clock."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffnca.errors import Interrupted
from diffnca.models.file import MODEL_FILE, STATE_FILE, load, read_tensors, write_tensors
from diffnca.training.loop import RENDEZVOUS, DivergedError, Trainer, own_rank
from diffnca.training.objectives import Batch, OwnLoss
from diffnca.training.state import LOG_FILE, TRACKER_FOLDER

from .conftest import BATCH, QUIET, is_equal, small_config, state_of, stripes, train

Hook = Callable[[Trainer], object]


def watched(out: Path, images: int, hooks: dict[int, Hook], **changes: object) -> Trainer:
    """Return a trainer that calls hooks after some of its steps."""
    out.mkdir(exist_ok=True)
    trainer = Trainer(small_config(images, **changes), out, stripes, QUIET)

    def report(title: str, done: float, total: float) -> None:
        hooks.get(trainer.progress.step, lambda trainer: None)(trainer)

    trainer.care = replace(QUIET, report=report)
    return trainer


def die(trainer: Trainer) -> None:
    raise SystemExit("killed")


def interrupt(trainer: Trainer) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def logged(out: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (out / LOG_FILE).read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_loss_falls(tmp_path: Path, optimizer: str) -> None:
    train(tmp_path, small_config(600, optimizer=optimizer, learning_rate=1e-2))
    losses = logged(tmp_path, "loss")
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    train(tmp_path / "whole", small_config(48, optimizer=optimizer))
    hooks: dict[int, Hook] = {5: Trainer.save, 8: die}
    with pytest.raises(SystemExit):
        watched(tmp_path / "killed", 48, hooks, optimizer=optimizer).run()
    train(tmp_path / "killed", small_config(48, optimizer=optimizer))
    assert is_equal(tmp_path / "whole", tmp_path / "killed")


LATE: dict[str, object] = {"late_batch": 4 * BATCH}
"""A step takes two batches after two thirds of the budget, and four after five sixths."""


def test_a_run_killed_among_large_batches_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    train(tmp_path / "whole", small_config(96, **LATE))
    with pytest.raises(SystemExit):
        watched(tmp_path / "killed", 96, {17: Trainer.save, 18: die}, **LATE).run()
    train(tmp_path / "killed", small_config(96, **LATE))
    assert is_equal(tmp_path / "whole", tmp_path / "killed")


def test_steps_take_more_batches_late(tmp_path: Path) -> None:
    told: list[float] = []
    care = replace(QUIET, report=lambda title, done, total: told.append(done))
    train(tmp_path, small_config(96, **LATE), care)
    assert told[15:] == [64, 72, 80, 96]


class Fixed(OwnLoss):
    """A loss without random numbers that depends on the images and on all weights."""

    def loss(self, player: str, batch: Batch) -> Tensor:
        weights = torch.cat([each.flatten() for each in self.model.network.parameters()])
        return (batch.x_0.mean(dim=(1, 2, 3))[:, None] - weights.sin()).square().mean()


def gradients(out: Path, *taken: Tensor) -> Tensor:
    """Return the gradient of a step that adds up the gradients of some batches."""
    trainer = Trainer(small_config(48, max_gradient_norm=None), out, stripes, QUIET, objective=Fixed)
    trainer._turns(0, list(taken), rate=0.0)
    return torch.cat([weight.grad.flatten() for weight in trainer.model.network.parameters()])


def test_the_gradients_of_several_batches_add_up_to_that_of_a_large_batch(tmp_path: Path) -> None:
    taken = [stripes(number) for number in range(4)]
    added, at_once = gradients(tmp_path, *taken), gradients(tmp_path, torch.cat(taken))
    torch.testing.assert_close(added, at_once, rtol=1e-6, atol=1e-9)


def test_a_log_tells_each_step_once_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        watched(tmp_path, 240, {7: Trainer.save, 45: die}).run()
    train(tmp_path, small_config(240))
    assert logged(tmp_path, "step") == [20, 40, 60]


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    assert train(tmp_path, small_config(16)).step == train(tmp_path, small_config(16)).step == 4


def test_a_larger_budget_takes_a_finished_run_further(tmp_path: Path) -> None:
    train(tmp_path, small_config(16))
    assert train(tmp_path, small_config(24)).step == 6


def test_a_stop_saves_the_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"stopped after 12 images .*; the same command goes on"):
        watched(tmp_path, 400, {3: interrupt}).run()
    assert json.loads(read_tensors(tmp_path / STATE_FILE)[1]["progress"])["step"] == 3


def test_a_stop_does_not_wait_for_batches_that_nobody_takes(tmp_path: Path) -> None:
    asked: list[int] = []

    def slow(number: int) -> Tensor:
        asked.append(number)
        time.sleep(0.05 if number else 0.0)
        return stripes(number)

    trainer = watched(tmp_path, 4000, {1: interrupt}, late_batch=100 * BATCH)
    trainer.batches = slow
    with pytest.raises(Interrupted):
        trainer.run()
    assert len(asked) < 100


def test_divergence_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    train(tmp_path, small_config(16))
    before = (tmp_path / MODEL_FILE).read_bytes()
    trainer = Trainer(small_config(80), tmp_path, lambda step: stripes(step) * float("nan"), QUIET)
    with pytest.raises(DivergedError, match=r"diverged at step 4 .*last good checkpoint is kept"):
        trainer.run()
    assert (tmp_path / MODEL_FILE).read_bytes() == before


@torch.no_grad()
def spoil(trainer: Trainer) -> None:
    next(iter(trainer.model.parameters())).fill_(float("nan"))


def test_weights_that_are_no_numbers_after_the_last_step_are_no_finished_model(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"is no finite number\); no checkpoint was written yet"):
        watched(tmp_path, 8, {2: spoil}).run()
    assert not (tmp_path / MODEL_FILE).exists() and not (tmp_path / STATE_FILE).exists()


def test_a_diverging_run_that_is_stopped_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    def worsen_and_stop(trainer: Trainer) -> None:
        trainer.progress.best_loss = trainer.progress.loss / 3.0
        interrupt(trainer)

    with pytest.raises(Interrupted):
        watched(tmp_path, 400, {3: Trainer.save, 5: worsen_and_stop}).run()
    assert json.loads(read_tensors(tmp_path / STATE_FILE)[1]["progress"])["step"] == 3


def test_fine_tuning_starts_from_the_weights_of_the_model(tmp_path: Path) -> None:
    train(tmp_path / "first", small_config(16))
    start = tmp_path / "first" / MODEL_FILE
    (tmp_path / "second").mkdir()
    trainer = Trainer(small_config(40), tmp_path / "second", stripes, QUIET, start)
    weights = load(start).network.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in trainer.model.network.state_dict().items())


def test_minutes_count_the_time_spent(tmp_path: Path) -> None:
    assert 0.12 <= train(tmp_path, small_config(10**9, minutes=0.002)).seconds < 5.0


def slow_at_first(step: int) -> Tensor:
    time.sleep(0.0 if step else 0.5)
    return stripes(step)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_the_clock_starts_after_the_step_that_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    monkeypatch.setattr(Trainer, "_compile", lambda self: is_compiled)
    progress = Trainer(small_config(BATCH), tmp_path, slow_at_first, QUIET).run()
    assert (progress.seconds == progress.waiting_seconds == 0.0) == is_compiled


def test_compiling_is_said_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "_compile", lambda self: True)
    titles: list[str] = []
    train(tmp_path, small_config(8), replace(QUIET, report=lambda title, done, total: titles.append(title)))
    assert [title.split(",")[0] for title in titles] == ["compiling", "training", "training"]


def test_progress_is_reported_in_what_the_budget_counts(tmp_path: Path) -> None:
    told: list[tuple[float, float]] = []
    train(tmp_path, small_config(8), replace(QUIET, report=lambda title, *share: told.append(share)))
    assert told == [(4, 8), (8, 8)]


def test_checkpointed_cells_train_to_the_same_loss(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", small_config(24))
    again = train(tmp_path / "again", small_config(24, checkpoint_cells=True))
    assert again.loss == pytest.approx(plain.loss, rel=1e-5)


def test_a_run_logs_its_loss_to_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, small_config(160), replace(QUIET, trackers=("tensorboard",)))
    events = accumulator.EventAccumulator(str(tmp_path / TRACKER_FOLDER)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [20, 40]


@pytest.mark.parametrize("is_launched", [False, True])
def test_a_rank_counts_only_where_a_launcher_has_set_it(
    monkeypatch: pytest.MonkeyPatch, is_launched: bool
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    for name in RENDEZVOUS:
        monkeypatch.setenv(name, "1") if is_launched else monkeypatch.delenv(name, raising=False)
    with own_rank():
        assert ("LOCAL_RANK" in os.environ) == is_launched
    assert os.environ["LOCAL_RANK"] == "0"


def test_a_state_without_the_average_of_waiting_times_goes_on(tmp_path: Path) -> None:
    train(tmp_path, small_config(8))
    tensors, header = read_tensors(tmp_path / STATE_FILE)
    progress = json.loads(header["progress"])
    del progress["waiting_seconds"]  # as runs were stored before
    write_tensors(tmp_path / STATE_FILE, tensors, header | {"progress": json.dumps(progress)})
    assert train(tmp_path, small_config(16)).step == 4


def test_the_tensors_of_a_state_keep_their_names(tmp_path: Path) -> None:
    train(tmp_path, small_config(8))
    assert {name.split(".")[0] for name in state_of(tmp_path)} == {"network", "average", "power", "adam"}
