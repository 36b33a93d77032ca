"""Muon: its updates are orthogonal, of the size of Adam's, for the matrices of hidden layers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffnca.config.model import TrainingConfig
from diffnca.config.networks import CellConfig, UNetConfig
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_network
from diffnca.training.optimizer import (
    RMS_OF_ADAM,
    Muon,
    build_optimizer,
    orthogonalised,
)

SHAPES = pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)], ids=str)


def matrix(shape: tuple[int, int], condition: float) -> tuple[Tensor, Tensor]:
    """Return a random matrix of this condition number, and its orthogonal factor (polar decomposition)."""
    u, s, vh = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    return u @ torch.diag(torch.logspace(0, -math.log10(condition), len(s))) @ vh, u @ vh


@SHAPES
def test_singular_values_end_near_1(shape: tuple[int, int]) -> None:
    singular = torch.linalg.svdvals(orthogonalised(matrix(shape, 30.0)[0]))
    assert singular.min() > 0.65 and singular.max() < 1.25


@SHAPES
def test_singular_vectors_are_kept(shape: tuple[int, int]) -> None:
    given, expected = matrix(shape, 30.0)
    assert torch.cosine_similarity(orthogonalised(given).flatten(), expected.flatten(), dim=0) > 0.97


def test_the_scale_of_the_gradient_changes_nothing() -> None:
    given, _ = matrix((12, 40), 30.0)
    torch.testing.assert_close(orthogonalised(1000.0 * given), orthogonalised(given))


def test_an_update_is_as_large_as_one_of_adam() -> None:
    weight = nn.Parameter(torch.zeros(20, 4, 3, 3))
    optimizer = Muon([weight], [weight], lr=0.1)
    weight.grad = matrix((20, 36), 3.0)[0].view_as(weight)
    optimizer.step()
    size = weight.detach().square().mean().sqrt()
    assert size == pytest.approx(0.1 * RMS_OF_ADAM, rel=0.25)


def test_the_momentum_looks_ahead() -> None:
    weight = nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon([weight], [weight], lr=1.0)
    for _ in range(2):
        weight.grad = torch.eye(8)
        optimizer.step()
    momentum = 1.0 - 0.95**2
    torch.testing.assert_close(optimizer.state[weight]["momentum"], momentum * torch.eye(8))


def test_the_matrices_of_the_cell_rules_are_updated_by_muon_and_all_else_by_adam() -> None:
    model = recipe_named("fourier_diff_nca").model
    assert model.fourier is not None
    cell = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
    fourier = replace(model.fourier, window=4, cell=replace(model.fourier.cell, hidden=16, num_cell_steps=2))
    network = build_network(replace(model, patch=1, channels=8, cell=cell, fourier=fourier))
    optimizer = build_optimizer(TrainingConfig(optimizer="muon"), network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    by_muon = {name for name, p in network.named_parameters() if "momentum" in optimizer.state[p]}
    by_adam = {name for name, p in network.named_parameters() if "exp_avg" in optimizer.state[p]}
    stages, layers = ("fourier", "image"), ("perceive", "expand", "project")
    assert by_muon == {f"{stage}.{layer}.weight" for stage in stages for layer in layers}
    assert by_adam == {name for name, _ in network.named_parameters()} - by_muon


def test_the_matrices_of_the_blocks_of_a_unet_are_updated_by_muon_and_all_else_by_adam() -> None:
    pytest.importorskip("diffusers", reason="needs the extra baselines")
    network = build_network(UNetConfig(channels=(8, 16), layers=1, groups=8))
    optimizer = build_optimizer(TrainingConfig(optimizer="muon"), network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    by_muon = {name for name, p in network.named_parameters() if "momentum" in optimizer.state[p]}
    of_blocks = {
        name
        for name, p in network.named_parameters()
        if p.ndim > 1 and name.split(".")[1] in ("down_blocks", "mid_block", "up_blocks")
    }
    assert by_muon == of_blocks
    assert {"unet.conv_in.weight", "unet.conv_out.weight"} <= {
        n for n, _ in network.named_parameters()
    } - by_muon


def test_weight_norm_is_refused() -> None:
    config = recipe_named("diff_nca_npj")
    with pytest.raises(
        ValueError, match="training.optimizer=muon: must be adam for VNCA and cells with weight_norm"
    ):
        replace(config, training=replace(config.training, optimizer="muon"))
