"""The learning rate and the batches of a training, by the share of the budget that is spent."""

import math

import pytest

from diffnca.config.model import TrainingConfig
from diffnca.training.pace import batches_of_step, learning_rate
from diffnca.training.state import Progress


def test_the_cosine_rate_ends_at_one_percent() -> None:
    training = TrainingConfig(images=1000, learning_rate=1.0, warmup_images=10)
    assert learning_rate(training, Progress(images=1000)) == pytest.approx(0.01)


def test_a_small_budget_warms_up_for_a_twentieth_of_itself() -> None:
    training = TrainingConfig(images=1000, batch=1, warmup_images=2000, learning_rate=1.0)
    rates = [learning_rate(training, Progress(images=images)) for images in (25, 50, 51)]
    cosines = [0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * images / 1000)) for images in (25, 50, 51)]
    assert rates == pytest.approx([0.5 * cosines[0], cosines[1], cosines[2]])


def test_the_exponential_rate_is_that_of_the_paper() -> None:
    training = TrainingConfig(decay="exponential", learning_rate=1.6e-3)
    assert learning_rate(training, Progress(step=1000)) == pytest.approx(1.6e-3 * 0.9999**1000)


def test_the_rate_of_large_batches_grows_by_the_root_of_their_number() -> None:
    small, large = (TrainingConfig(images=1200, batch=8, late_batch=late) for late in (None, 128))
    rates = [learning_rate(each, Progress(images=1000)) for each in (large, small)]
    assert rates[0] == pytest.approx(4.0 * rates[1])


def test_the_rate_of_large_batches_is_never_above_the_peak() -> None:
    training = TrainingConfig(images=1200, batch=8, late_batch=4096, learning_rate=1e-3)
    assert learning_rate(training, Progress(images=800)) == 1e-3


def test_batches_grow_in_the_last_third() -> None:
    training = TrainingConfig(images=1200, batch=8, late_batch=128)
    counts = [batches_of_step(training, Progress(images=images)) for images in (0, 799, 800, 999, 1000, 1200)]
    assert counts == [1, 1, 8, 8, 16, 16]


def test_a_late_batch_of_few_batches_never_takes_fewer_than_one() -> None:
    training = TrainingConfig(images=1200, batch=8, late_batch=8)
    assert batches_of_step(training, Progress(images=900)) == 1


def test_without_a_late_batch_every_step_takes_one() -> None:
    assert batches_of_step(TrainingConfig(images=1200), Progress(images=1200)) == 1


def test_a_late_batch_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="training.late_batch=100: must be a multiple of training.batch=8"):
        TrainingConfig(late_batch=100)
