"""The moving average of the weights."""

from dataclasses import replace

import pytest
import torch

from diffnca.config.model import TrainingConfig
from diffnca.config.recipes import diff_nca_npj
from diffnca.training.ema import ema_decay, update_ema

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
    update_ema(average, {"w": torch.tensor([1.0, 2.0])}, decay=0.75)
    assert average["w"].tolist() == [0.25, 0.5]
