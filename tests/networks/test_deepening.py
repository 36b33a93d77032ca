"""`benchmarks/deepen.py` makes of each cell step two, as one halves the steps of an Euler method."""

import runpy
from pathlib import Path

import pytest
import torch

from diffnca.canvas.region import Canvas
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_denoiser
from diffnca.models.file import load, write_model

DEEPEN = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "deepen.py"))
STAGES = ("coarse", "image")


@torch.no_grad()
def difference_by_deepening(change: float, folder: Path) -> float:
    """Return how far a deepened `diff_nca` is from the shallow one, over what its cell steps do at all.

    Args:
        change: size of what a cell step adds.
        folder: for the two model files.
    """
    config = recipe_named("diff_nca")
    torch.manual_seed(0)
    shallow = build_denoiser(config)
    for name in STAGES:
        torch.nn.init.normal_(getattr(shallow.network, name).project.weight, std=change)
    write_model(folder / "shallow.safetensors", shallow.network.state_dict(), config, {})
    DEEPEN["main"](DEEPEN["Options"](str(folder / "shallow.safetensors"), folder / "deep.safetensors"))
    x_t, t = torch.randn(1, 3, 24, 24), torch.tensor([0.5])
    first, second = (
        model.network(x_t, t, Canvas(24, 24).whole) for model in (shallow, load(folder / "deep.safetensors"))
    )
    return float((second - first).norm() / first.norm())


def test_the_smaller_the_change_of_a_step_the_nearer_are_the_two(tmp_path: Path) -> None:
    large, small = (difference_by_deepening(change, tmp_path) for change in (2e-3, 1e-3))
    assert small < 0.05
    assert small == pytest.approx(large / 2, rel=0.2)  # of first order


def test_each_cell_step_is_there_twice_in_both_stages() -> None:
    model = recipe_named("diff_nca").model
    deep = DEEPEN["deepened"](model)
    for shallow_cell, cell in zip(model.stages, deep.stages, strict=True):
        twice = [shallow_cell.dilation(k // 2) for k in range(2 * shallow_cell.num_cell_steps)]
        assert [cell.dilation(k) for k in range(cell.num_cell_steps)] == twice
