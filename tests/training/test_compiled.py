"""Compiled cells learn as plain ones: both claims in one process, because to import a compiler takes long."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffnca.engine.machine import has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(torch.device("cpu")), reason="no compiler here")

COMPILED = """
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
from conftest import small_config, train

from diffnca.canvas.region import Canvas
from diffnca.config.networks import CellConfig
from diffnca.networks.cell import CellRule, pad

plain = small_config(40)
fast = replace(plain, training=replace(plain.training, precision="bfloat16", compile="on"))
losses = [train(Path(sys.argv[2], name), config).loss for name, config in (("plain", plain), ("fast", fast))]
print(json.dumps(losses), flush=True)

torch.set_num_threads(2)  # with one thread nothing goes wrong
DILATION = 2
rule = CellRule(CellConfig(hidden=8, dilations=(DILATION,)), 16, ())
regions = [Canvas(side, side).whole for side in range(1, 2 * DILATION + 1)]
states = [torch.randn(2, 16, each.height, each.width) for each in regions]

def near(*states):  # all in one, as compiling takes long
    seen = [pad(state, DILATION, region, "reflect") for state, region in zip(states, regions)]
    parts = [rule.near(each, DILATION) + state for each, state in zip(seen, states)]
    return torch.cat([part.square().flatten() for part in parts]).sum()

gradients = []
for step in (near, torch.compile(near, dynamic=False, fullgraph=True)):
    given = [state.clone().requires_grad_() for state in states]
    step(*given).backward()
    gradients.append([state.grad for state in given])
torch.testing.assert_close(*gradients)
"""
"""In a process of its own: what goes wrong there ends it, and types are not checked in compiled code."""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folders = str(Path(__file__).parent), str(tmp_path_factory.mktemp("runs"))
    alone = os.environ | {
        "TORCHINDUCTOR_COMPILE_THREADS": "1"
    }  # to start helpers takes longer than they save
    return subprocess.run(
        [sys.executable, "-c", COMPILED, *folders], env=alone, capture_output=True, text=True
    )


def test_bfloat16_cells_learn_as_plain_float32_ones(compiled: subprocess.CompletedProcess[str]) -> None:
    plain, fast = json.loads(compiled.stdout)
    assert fast == pytest.approx(plain, rel=0.02)


def test_the_gradient_of_grids_as_small_as_their_dilation_is_the_eager_one(
    compiled: subprocess.CompletedProcess[str],
) -> None:
    assert compiled.returncode == 0, compiled.stderr
