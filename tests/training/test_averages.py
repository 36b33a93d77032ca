"""Averages of the weights: their decay, closed forms, and the average of a width that was not kept."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffnca.config.model import WIDTHS, TrainingConfig
from diffnca.config.recipes import diff_nca_npj, recipe_named
from diffnca.models.file import MODEL_FILE, STATE_FILE, read_card, read_tensors, write_tensors
from diffnca.training.averages import (
    Averages,
    average_of_run,
    combination,
    ema_decay,
    exponent,
    move,
    power_decay,
)
from diffnca.training.loop import Trainer

from .conftest import BATCH, QUIET, small_config, stripes, train

PLAIN = replace(TrainingConfig(), ema_halflife_images=1000, ema_warmup=False)


def test_after_a_halflife_half_is_left() -> None:
    assert ema_decay(PLAIN, 0, batch=10) ** 100 == pytest.approx(0.5)


def test_the_published_average_keeps_99_percent_per_batch() -> None:
    training = diff_nca_npj().training
    assert ema_decay(training, 10**9, training.batch) == pytest.approx(0.99, abs=1e-4)


def test_warmup_follows_at_a_tenth_of_the_images_seen() -> None:
    decay = ema_decay(replace(PLAIN, ema_warmup=True), images_seen=500, batch=10)
    assert decay == pytest.approx(0.5 ** (10 / 50))


def test_without_an_average_the_last_weights_are_kept() -> None:
    assert ema_decay(replace(PLAIN, ema="none"), 500, 10) == 0.0


def test_the_average_moves_towards_the_weights() -> None:
    average = {"w": torch.zeros(2)}
    move(average, {"w": torch.tensor([1.0, 2.0])}, decay=0.75)
    assert average["w"].tolist() == [0.25, 0.5]


@pytest.mark.parametrize("width", [0.01, 0.05, 0.28])
def test_the_spread_of_the_weights_of_a_power_is_its_width(width: float) -> None:
    gamma = exponent(width)
    mean, square = (gamma + 1) / (gamma + 2), (gamma + 1) / (gamma + 3)
    assert math.sqrt(square - mean**2) == pytest.approx(width)


def averaged(width: float, batches: list[int]) -> float:
    """Return the average of weights that equal the images seen."""
    average, images = {"w": torch.zeros(1, dtype=torch.float64)}, 0
    for batch in batches:
        weights = {"w": torch.tensor([images + batch / 2.0], dtype=torch.float64)}
        move(average, weights, power_decay(width, images, batch))
        images += batch
    return float(average["w"])


def weight_of_the_last(batches: list[int]) -> float:
    """Return how much weights count that came after 1,000 images and stayed for some batches."""
    average, images = {"w": torch.zeros(1, dtype=torch.float64)}, 1000
    for batch in batches:
        move(average, {"w": torch.ones(1, dtype=torch.float64)}, power_decay(0.1, images, batch))
        images += batch
    return float(average["w"])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_average_of_a_linear_path_is_its_closed_form(width: float) -> None:
    gamma = exponent(width)
    assert averaged(width, [1] * 2000) == pytest.approx(2000 * (gamma + 1) / (gamma + 2), rel=1e-5)


def test_large_batches_weigh_as_their_images() -> None:
    assert weight_of_the_last([128]) == pytest.approx(weight_of_the_last([8] * 16))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_kept_width_is_rebuilt_exactly(width: float) -> None:
    shares = combination(width, WIDTHS)
    assert shares == pytest.approx([float(each == width) for each in WIDTHS], abs=1e-9)


def profile(width: float, times: np.ndarray) -> np.ndarray:
    """Return the weights of an average at times from 0 to 1."""
    gamma = exponent(width)
    return (gamma + 1) * times**gamma


@pytest.mark.parametrize("width", [0.03, 0.07, 0.15])
def test_a_width_between_is_rebuilt_to_a_twentieth_of_its_weights(width: float) -> None:
    times = (np.arange(10_000) + 0.5) / 10_000
    shares, wanted = combination(width, WIDTHS), profile(width, times)
    found = sum(share * profile(each, times) for share, each in zip(shares, WIDTHS, strict=True))
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def test_shares_of_averages_have_sum_one() -> None:
    assert sum(combination(0.07, WIDTHS)) == pytest.approx(1.0)


def path_of(training: TrainingConfig, values: list[float]) -> Averages:
    """Return the averages of weights that took these values."""
    averages = Averages(training, {"weight": torch.zeros(1, 1)})
    for images, value in enumerate(values):
        averages.update({"weight": torch.full((1, 1), value)}, images, 1)
    return averages


@pytest.mark.parametrize(("target", "width"), [(200.0, 0.025), (150.0, 0.2), (0.0, 0.2)])
def test_the_average_with_the_smallest_loss_is_chosen(target: float, width: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    averages = path_of(replace(PLAIN, ema_halflife_images=30), [float(n) for n in range(200)])
    averages.choose(layer, lambda: abs(float(layer.weight.detach()) - target))
    assert averages.width == width


def test_a_choice_keeps_the_weights_of_the_network() -> None:
    layer = nn.Linear(1, 1, bias=False)
    before = layer.weight.clone()
    path_of(PLAIN, [1.0, 2.0]).choose(layer, lambda: 0.0)
    assert torch.equal(layer.weight, before)


def test_the_half_life_is_kept_where_no_width_is_better() -> None:
    averages = path_of(PLAIN, [1.0, 2.0])
    averages.choose(nn.Linear(1, 1, bias=False), lambda: 0.0)
    assert averages.width is None and averages.chosen is averages.recent


@pytest.mark.parametrize("name", ["diff_nca_arxiv_v1", "fourier_diff_nca_npj"])
def test_published_trainings_keep_the_published_average_alone(name: str) -> None:
    assert Averages(recipe_named(name).training, {}).powers == {}


@pytest.mark.parametrize("widths", [(0.05, 0.05), (0.3,), (0.001,), tuple(0.1 + k / 100 for k in range(9))])
def test_widths_that_cannot_be_kept_are_refused(widths: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"training.ema_widths=.*must be up to 8 different widths from 0.01"):
        TrainingConfig(ema_widths=widths)


CONFIG = small_config(24, learning_rate=1e-2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose held-out images are those of training."""
    out = tmp_path_factory.mktemp("run")
    train(out, CONFIG, replace(QUIET, held_out=stripes))
    return out


def test_a_finished_run_holds_the_average_that_its_card_names(run: Path) -> None:
    width = read_card(run / MODEL_FILE)["average_width"]
    weights, rebuilt = read_tensors(run / MODEL_FILE)[0], average_of_run(run, width)
    assert all(torch.equal(weights[name], rebuilt[name]) for name in weights)


def test_a_finished_run_chooses_again_as_before(run: Path) -> None:
    before = read_tensors(run / MODEL_FILE)[0]
    Trainer(CONFIG, run, stripes, replace(QUIET, held_out=stripes)).finish()
    after = read_tensors(run / MODEL_FILE)[0]
    assert all(torch.equal(before[name], after[name]) for name in before)


def kill(number: int) -> Tensor:
    raise SystemExit("killed")


def test_a_kill_during_the_choice_loses_no_step(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(tmp_path, CONFIG, replace(QUIET, held_out=kill))
    assert Trainer(CONFIG, tmp_path, stripes, QUIET).is_finished


def test_held_out_images_are_not_read_where_there_is_nothing_to_choose(tmp_path: Path) -> None:
    config = small_config(BATCH, ema_widths=())
    assert train(tmp_path, config, replace(QUIET, held_out=kill)).images == BATCH


def test_large_batches_are_compared_on_few_crops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def noted(trainer: Trainer, seen: list[Tensor]) -> float:
        counts.append(sum(map(len, seen)))
        return 0.0

    monkeypatch.setattr("diffnca.training.loop.MOST_HELD_OUT", 2)
    monkeypatch.setattr(Trainer, "_mean_loss", noted)
    train(tmp_path, small_config(BATCH), replace(QUIET, held_out=stripes))
    assert set(counts) == {2}


def test_a_width_that_is_not_between_the_kept_ones_is_refused(run: Path) -> None:
    with pytest.raises(ValueError, match=r"width=0.25: must be from 0.025 to 0.2, the widths that"):
        average_of_run(run, 0.25)


def without_powers(run: Path, out: Path) -> None:
    """Store a state as it was before averages of several widths."""
    tensors, header = read_tensors(run / STATE_FILE)
    kept: dict[str, Tensor] = {name: each for name, each in tensors.items() if not name.startswith("power.")}
    write_tensors(out / STATE_FILE, kept, header)


def test_a_run_without_averages_of_several_widths_is_refused(run: Path, tmp_path: Path) -> None:
    without_powers(run, tmp_path)
    with pytest.raises(ValueError, match=r"width=0.1: must be of a run that keeps averages of"):
        average_of_run(tmp_path, 0.1)


def test_a_state_of_before_goes_on_and_its_averages_begin_with_that_of_the_half_life(
    run: Path, tmp_path: Path
) -> None:
    without_powers(run, tmp_path)
    averages = Trainer(CONFIG, tmp_path, stripes, QUIET).averages
    name = next(iter(averages.recent))
    assert all(torch.equal(each[name], averages.recent[name]) for each in averages.powers.values())
