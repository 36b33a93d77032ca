"""The GPU engine: in Triton's interpreter, or on a GPU where there is one."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.engine import fused, prepare
from diffnca.models.build import build_network
from diffnca.networks.cell import Share

from .suite import ODD, EngineSuite, network_of, random_network

pytest.importorskip("triton")
from diffnca.engine.gpu import FusedRule

pytestmark = pytest.mark.triton

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


@pytest.fixture(autouse=True)
def products_of_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter add up each row of a product alike, wherever it stands; not every BLAS does."""
    monkeypatch.setattr(np, "matmul", partial(np.einsum, "ij,jk->ik"))


class TestFused(EngineSuite):
    """Fused kernels; the interpreter multiplies no bfloat16."""

    device: ClassVar = DEVICE
    allowed: ClassVar = {torch.float32: 2e-6} | ({torch.bfloat16: 2e-2} if HAS_GPU else {torch.float16: 2e-3})
    whole: ClassVar = (9, 8)  # two blocks, the second one padded

    def prepare(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
        return fused(copy.deepcopy(network).to(DEVICE), DEVICE, dtype)

    def tiles(self, boundary: tuple[Boundary, Boundary]) -> list[Region]:
        return super().tiles(boundary)[-1:]  # the interpreter is slow

    def test_layers_wider_than_a_block_are_computed(self) -> None:
        network = random_network(NCAConfig(image_channels=1, channels=70, cell=replace(ODD, hidden=130)))
        assert self.error(network, Canvas(9, 8).whole) < self.allowed[torch.float32]

    def test_many_blocks_are_computed(self) -> None:
        assert self.error(network_of("diff_nca_npj"), Canvas(15, 17).whole) < self.allowed[torch.float32]

    @pytest.mark.parametrize(
        "region",
        [
            Region(0, 0, 9, 11, Canvas(9, 11)),
            Region(-3, 2**31 - 6, 7, 13, Canvas(2**31, 2**31, ("circular", "circular"))),
        ],
        ids=["whole", "over far edges"],
    )
    def test_the_kernel_draws_the_numbers_of_the_package(self, region: Region) -> None:
        noise, rule = (
            Noise((0, 7, 2**63, 2**64 - 1), DEVICE).at(65_535),
            self.rule(network_of("diff_nca_npj")),
        )
        for number in (0, 1, 65_535):
            share = Share(noise, number, region, 0.9)
            assert torch.equal(rule.taken(share, 4, region.area), share.mask().flatten(1).float())


@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_a_gpu_takes_it() -> None:
    assert isinstance(prepare(network_of("diff_nca"), "cuda", engine="fused").rules[-1], FusedRule)


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from diffnca.engine import kernels

constants = dict(
    modulated_cells=1, share_of_cell=1, kind="scale_shift", block=64, modulated_block=1,
    seen_width=32, seen_block=32, channels_width=32, channels_block=32, hidden_width=32, hidden_block=32,
)
kinds = dict.fromkeys(("seen", "following", "modulations", "perceive", "expand", "project"), "*bf16")
kinds |= dict.fromkeys(("state", "share", "perceive_bias", "expand_bias", "project_bias"), "*fp32")
kinds |= dict(rows="*i32", columns="*i32", times="*i64") | dict.fromkeys(constants, "constexpr")
names = kernels.cell_step.arg_names
source = ASTSource(
    kernels.cell_step,
    {name: kinds.get(name, "i32") for name in names},
    {(names.index(name),): value for name, value in constants.items()},
)
print("mma" in compile(source, GPUTarget("cuda", 80, 32)).asm["ptx"])
"""


def test_the_cell_step_compiles_for_a_gpu() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True)
    assert run.stdout == "True\n", run.stderr


@pytest.mark.parametrize(("name", "device"), [("diff_nca", "cpu"), ("diff_nca_arxiv_v1", DEVICE)], ids=str)
def test_what_cannot_be_fused_is_refused(name: str, device: str) -> None:
    with pytest.raises(ValueError, match="engine=fused: must run on an NVIDIA GPU"):
        prepare(build_network(recipe_named(name).model), device, engine="fused")
