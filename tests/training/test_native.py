"""Training in native code, which is the default on a CPU with a C++ compiler."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffnca.config.networks import FourierConfig
from diffnca.engine import native
from diffnca.engine.learning import LearningCells
from diffnca.networks.cell import EagerCells
from diffnca.training.loop import Trainer

from .conftest import is_equal, small_config, stripes, train

pytestmark = pytest.mark.skipif(
    native.built((), "training") is None, reason="no C++ compiler here that builds the native code"
)


def test_native_cells_learn_as_those_of_torch(tmp_path: Path) -> None:
    losses = [train(tmp_path / choice, small_config(40, compile=choice)).loss for choice in ("auto", "off")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_native_cells_that_know_their_places_learn_as_those_of_torch(tmp_path: Path) -> None:
    losses = []
    for choice in ("auto", "off"):
        config = small_config(40, compile=choice)
        spectrum = replace(config.model.cell, padding="zeros", positions="pixels")
        fourier = FourierConfig(window=2, trained_px=16, cell=spectrum)
        model = replace(config.model, family="fourier_diff_nca", fourier=fourier)
        losses.append(train(tmp_path / choice, replace(config, model=model)).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_native_run_is_repeated_to_the_bit(tmp_path: Path) -> None:
    for name in ("one", "other"):
        train(tmp_path / name, small_config(8, compile="auto"))
    assert is_equal(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(("choice", "cells"), [("auto", LearningCells), ("off", EagerCells)])
def test_the_choice_says_which_cells_learn(choice: str, cells: type, tmp_path: Path) -> None:
    trainer = Trainer(small_config(8, compile=choice), tmp_path, stripes)
    assert trainer.model.network.image.cells_of is cells and not trainer.is_compiling


def test_statistics_over_space_are_learnt_by_torch(tmp_path: Path) -> None:
    config = small_config(8, compile="auto")
    cell = replace(config.model.cell, normalisation="group")
    config = replace(config, model=replace(config.model, cell=cell))
    trainer = Trainer(config, tmp_path, stripes)
    assert trainer.model.network.image.cells_of is EagerCells
    assert torch.isfinite(torch.tensor(trainer.run().loss))
