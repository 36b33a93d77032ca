"""The training loop: learning, resuming to the bit, stopping, divergence."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffnca.config.model import Config, TrainingConfig
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.engine.machine import has_compiler
from diffnca.models.file import MODEL_FILE, STATE_FILE, load, read_tensors, write_tensors
from diffnca.training.loop import TRACKER_FOLDER, DivergedError, Progress, RunOptions, Trainer, learning_rate

BATCH = 4
QUIET = RunOptions(checkpoint_seconds=1e9, sample_seconds=0.0)


def small_config(images: int, **changes: object) -> Config:
    cell = CellConfig(
        hidden=16, num_cell_steps=2, update_probability=0.9, embedding_width=8, embedding_channels=8
    )
    training = TrainingConfig(
        batch=BATCH, images=images, warmup_images=20, precision="float32", compile="off", **changes
    )
    return Config(model=NCAConfig(channels=8, cell=cell), training=training)


def stripes(step: int) -> Tensor:
    """Stripes of random phase: something to learn."""
    phase = torch.rand(BATCH, 1, 1, 1, generator=torch.Generator().manual_seed(step)) * 6.28
    wave = torch.sin(torch.arange(16.0) * 1.57 + phase)
    return wave.expand(BATCH, 3, 16, 16).contiguous()


def train(out: Path, config: Config, options: RunOptions = QUIET, start: Path | None = None) -> Progress:
    out.mkdir(exist_ok=True)
    return Trainer(config, out, stripes, options, start).run()


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_loss_falls(tmp_path: Path, optimizer: str) -> None:
    train(tmp_path / "run", small_config(1600, optimizer=optimizer))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, optimizer: str) -> None:
    config = small_config(80, optimizer=optimizer)
    train(tmp_path / "whole", config)
    (tmp_path / "killed").mkdir()
    trainer = Trainer(config, tmp_path / "killed", stripes, QUIET)
    trainer.options = replace(
        QUIET, report=lambda progress, training: _save_at_7_die_at(10, trainer, progress)
    )
    with pytest.raises(SystemExit):
        trainer.run()
    train(tmp_path / "killed", config)
    whole, _ = read_tensors(tmp_path / "whole" / STATE_FILE)
    killed, _ = read_tensors(tmp_path / "killed" / STATE_FILE)
    assert whole.keys() == killed.keys() and all(torch.equal(whole[k], killed[k]) for k in whole)


def test_a_log_tells_each_step_once_after_a_kill(tmp_path: Path) -> None:
    config = small_config(240)
    (tmp_path / "run").mkdir()
    trainer = Trainer(config, tmp_path / "run", stripes, QUIET)
    trainer.options = replace(
        QUIET, report=lambda progress, training: _save_at_7_die_at(45, trainer, progress)
    )
    with pytest.raises(SystemExit):
        trainer.run()
    train(tmp_path / "run", config)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 60]


def _save_at_7_die_at(last: int, trainer: Trainer, progress: Progress) -> None:
    if progress.step == 7:
        trainer.save()
    if progress.step == last:
        raise SystemExit("killed")


def test_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    config = small_config(40)
    assert train(tmp_path / "run", config).step == train(tmp_path / "run", config).step == 10


def test_a_larger_budget_takes_a_finished_run_further(tmp_path: Path) -> None:
    train(tmp_path / "run", small_config(40))
    assert train(tmp_path / "run", small_config(60)).step == 15


def test_another_configuration_is_refused_and_named(tmp_path: Path) -> None:
    train(tmp_path / "run", small_config(8))
    with pytest.raises(ValueError, match=r"began with training\.seed=0, not 1"):
        train(tmp_path / "run", small_config(8, seed=1))


def test_other_images_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", small_config(8))
    with pytest.raises(ValueError, match="began with other images"):
        Trainer(small_config(8), tmp_path / "run", stripes, QUIET, data_fingerprint="other")


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", small_config(20))
    tensors, header = read_tensors(tmp_path / "run" / STATE_FILE)
    write_tensors(tmp_path / "run" / STATE_FILE, tensors, header | {"processes": "2"})
    with pytest.raises(ValueError, match="began on 2 processes, not 1"):
        train(tmp_path / "run", small_config(40))


def test_divergence_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    train(tmp_path / "run", small_config(40))
    before = (tmp_path / "run" / MODEL_FILE).read_bytes()
    trainer = Trainer(small_config(80), tmp_path / "run", lambda step: stripes(step) * float("nan"), QUIET)
    with pytest.raises(DivergedError, match=r"diverged at step 10 .*last good checkpoint is kept"):
        trainer.run()
    assert (tmp_path / "run" / MODEL_FILE).read_bytes() == before


def test_fine_tuning_starts_from_the_weights_of_the_model(tmp_path: Path) -> None:
    train(tmp_path / "first", small_config(40))
    start = tmp_path / "first" / MODEL_FILE
    (tmp_path / "second").mkdir()
    trainer = Trainer(small_config(40), tmp_path / "second", stripes, QUIET, start)
    weights = load(start).network.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in trainer.trained.network.state_dict().items())


def test_minutes_count_the_time_spent(tmp_path: Path) -> None:
    config = small_config(10**9, minutes=0.02)
    progress = train(tmp_path / "run", config)
    assert 1.2 <= progress.seconds < 10.0


def test_the_cosine_rate_ends_at_one_percent() -> None:
    training = TrainingConfig(images=1000, learning_rate=1.0, warmup_images=10)
    assert learning_rate(training, Progress(images=1000)) == pytest.approx(0.01)


def test_the_exponential_rate_is_that_of_the_paper() -> None:
    training = TrainingConfig(decay="exponential", learning_rate=1.6e-3)
    assert learning_rate(training, Progress(step=1000)) == pytest.approx(1.6e-3 * 0.9999**1000)


def test_checkpointed_cells_train_to_the_same_loss(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", small_config(40))
    again = train(tmp_path / "again", small_config(40, checkpoint_cells=True))
    assert again.loss == pytest.approx(plain.loss, rel=1e-5)


@pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="no compiler")
def test_compiled_bfloat16_cells_learn_as_plain_float32_ones(tmp_path: Path) -> None:
    plain = small_config(40)
    fast = replace(plain, training=replace(plain.training, precision="bfloat16", compile="on"))
    losses = [train(tmp_path / name, config).loss for name, config in (("plain", plain), ("fast", fast))]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_run_logs_its_loss_to_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path / "run", small_config(240), replace(QUIET, trackers=("tensorboard",)))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / TRACKER_FOLDER)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [20, 40, 60]


def test_a_diverging_run_that_is_stopped_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    trainer = Trainer(small_config(400), tmp_path / "run", stripes, QUIET)

    def worsen_and_stop(progress: Progress, training: TrainingConfig) -> None:
        if progress.step == 3:
            trainer.save()
        if progress.step == 5:
            progress.best_loss = progress.loss / 3.0
            os.kill(os.getpid(), signal.SIGINT)

    trainer.options = replace(QUIET, report=worsen_and_stop)
    trainer.run()
    _, header = read_tensors(tmp_path / "run" / STATE_FILE)
    assert json.loads(header["progress"])["step"] == 3
