"""What callers have set in torch, give by mistake, and bring along: samplers and networks of their own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffnca
from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Region
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.samplers import Step
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.models.file import load_weights, write_model
from diffnca.sampling import arguments

MODEL = diffnca.load("pathology-4step")
IMAGE = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
HOLE = torch.zeros(16, 20, dtype=torch.bool)
HOLE[4:9, 5:12] = True
SIZE: dict[str, Any] = {"height": 16, "width": 20}
TASKS: dict[str, Callable[..., Tensor]] = {
    "generate": lambda **given: diffnca.generate(MODEL, **(SIZE | given)),
    "eager": lambda **given: diffnca.generate(MODEL, engine="eager", **(SIZE | given)),
    "inpaint": lambda **given: diffnca.inpaint(MODEL, IMAGE, HOLE, rounds=1, **given),
    "upscale": lambda **given: diffnca.upscale(MODEL, IMAGE, 1.5, **given),
    "interpolate": lambda **given: diffnca.interpolate(MODEL, (1, 2), [0.3], **(SIZE | given)),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_misspelt_option_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match="stepps"):
        TASKS[name](stepps=3)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@cache
def undisturbed(task: str) -> Tensor:
    return TASKS[task]()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "around",
    [lambda: torch.autocast("cpu", torch.bfloat16), lambda: default_dtype(torch.float64)],
    ids=["autocast", "float64"],
)
def test_the_state_of_the_caller_changes_no_pixel(
    task: str, around: Callable[[], AbstractContextManager[None]]
) -> None:
    expected = undisturbed(task)
    with around():
        assert torch.equal(TASKS[task](), expected)


WRONG = {
    "generate(MODEL, **SIZE, region=(0, 0, 1, 1))": "region=(0, 0, 1, 1): must be a diffnca.Region",
    "generate(MODEL, height=1.5, width=4)": "height=1.5: must be a whole number",
    "generate(MODEL, **SIZE, boundary='circular')": "boundary='circular': must be a pair",
    "generate(MODEL, **SIZE, boundary=None)": "boundary=None: must be a pair",
    "generate(MODEL, **SIZE, seed=-1)": "seed=-1: must be from 0 to",
    "generate(MODEL, **SIZE, seed=2**64)": "seed=18446744073709551616: must be from 0 to",
    "generate(MODEL, **SIZE, seed='7')": "seed='7': must be a whole number",
    "generate(MODEL, **SIZE, seed=b'ab')": "seed=b'ab': must be a whole number",
    "generate(MODEL, **SIZE, seed=torch.tensor([1.0]))": "seed=1.0: must be a whole number, without",
    "generate(MODEL, **SIZE, seed=np.ones((1, 2), int))": "seed=[1, 1]: must be a whole number",
    "interpolate(MODEL, b'ab', [0.5], **SIZE)": "seeds=b'ab': must be two seeds",
    "generate(MODEL, **SIZE, seed=[1, 2.5])": "seed=2.5: must be a whole number",
    "generate(MODEL, **SIZE, sampler=3)": "sampler int: must have name, is_stochastic, is_multistep, step",
    "generate(MODEL, **SIZE, sampler='euler')": "sampler='euler': must be one of",
    "generate(MODEL, **SIZE, steps='many')": "steps='many': must be a whole number",
    "generate(MODEL, **SIZE, tone=5, even_px=8)": "tone=5: must be 3 finite numbers",
    "generate(MODEL, **SIZE, obey='2')": "obey='2': must be a number",
    "generate(MODEL, **SIZE, obey=torch.ones(2))": "obey=tensor([1., 1.]): must be a number",
    "generate(MODEL, **SIZE, label=5)": "label=5: must be a name, or a list of one name for each image",
    "generate(MODEL, **SIZE, label=['a', 5])": "label=['a', 5]: must be a name, or a list of one name",
    "generate(MODEL, **SIZE, label={'a': 'half'})": "label='half': must be a number",
    "interpolate(MODEL, (1, 2), [0.5], **SIZE, label=5)": "label=5: must be a name",
    "vary(MODEL, IMAGE, obey='2')": "obey='2': must be a number",
    "vary(MODEL, IMAGE, torch.ones(2))": "strength=tensor([1., 1.]): must be a number",
    "vary(MODEL, IMAGE, b'1')": "strength=b'1': must be a number",
    "interpolate(MODEL, (1, 2), torch.tensor(0.5), **SIZE)": "shares=tensor(0.5000): must be one or more",
    "interpolate(MODEL, (1, 2), torch.ones(1, 1), **SIZE)": "shares=tensor([[1.]]): must be one or more",
    "generate(MODEL, **SIZE, device='nope')": "device='nope': is not available here",
    "generate(MODEL, **SIZE, engine='quick')": "engine=quick: must be one of",
    "generate('pathology', **SIZE)": "model='pathology': must be a model, not its name",
    "generate(MODEL, **SIZE, maker='colon-map')": "maker='colon-map': must be a model, not its name",
    "generate(MODEL, **SIZE, maker=3)": "maker int: must have image_channels, schedule",
    "generate(Path('run'), **SIZE)": "model='run': must be a model, not its name; give diffnca.load('run')",
    "world('aerial')": "model='aerial': must be a model, not its name",
    "inpaint('aerial', IMAGE, IMAGE[0, 1] > 0)": "model='aerial': must be a model, not its name",
    "extend('aerial', IMAGE, left=1)": "model='aerial': must be a model, not its name",
    "upscale('aerial', IMAGE, 2)": "model='aerial': must be a model, not its name",
    "vary('aerial', IMAGE)": "model='aerial': must be a model, not its name",
    "interpolate('aerial', (1, 2), [0.5], **SIZE)": "model='aerial': must be a model, not its name",
    "guided('aerial', 2.0)": "model='aerial': must be a model, not its name",
    "guided(MODEL, guide='aerial')": "guide='aerial': must be a model, not its name",
    "generate(object(), **SIZE)": "model object: must have image_channels, schedule",
    "inpaint(MODEL, IMAGE.numpy(), IMAGE[0, 1] > 0)": "image of type ndarray: must be a tensor",
    "inpaint(MODEL, IMAGE, (IMAGE[0, 1] > 0).numpy())": "mask of type ndarray: must be a tensor",
    "inpaint(MODEL, IMAGE, IMAGE[0, 1] > 0, seed=-1)": "seed=-1: must be from 0 to",
    "inpaint(MODEL, IMAGE, IMAGE[0, 1] > 0, device=3.5)": "device=3.5: is not available here",
    "inpaint(MODEL, IMAGE, IMAGE[0, 1] > 0, method='glue')": "method='glue': must be repaint or paste",
    "inpaint(MODEL, IMAGE, IMAGE[0, 1] > 0, rounds=10**9)": "rounds=1000000000: must be from 1 to 1000",
    "load(None)": "model=None: must be a name or a path",
    "load('pathology', 'foo')": "device='foo': is not available here",
    "load('pathology', 'cuda:99')": "device='cuda:99': is not available here",
    "load('nothing', 'foo')": "device='foo': is not available here",
    "Pretrained.from_pretrained('pathology', 'foo')": "device='foo': is not available here",
    "guided(MODEL, float('nan'))": "guidance=nan: must be from 1 to 10",
    "extend(MODEL, IMAGE, left=0.5)": "left=0.5: must be a whole number",
    "upscale(MODEL, IMAGE, '2')": "factor='2': must be a number",
    "upscale(MODEL, IMAGE, 2, method=['noise'])": "method=['noise']: must be consistent or noise",
    "vary(MODEL, IMAGE, None)": "strength=None: must be a number",
    "interpolate(MODEL, 5, [0.5], **SIZE)": "seeds=5: must be two seeds",
    "interpolate(MODEL, (1, 2), 0.5, **SIZE)": "shares=0.5: must be one or more numbers",
    "interpolate(MODEL, (1, 2), ['half'], **SIZE)": "shares='half': must be a number",
    "generate(MODEL, **SIZE, sampler=NoNoise())": "sampler NoNoise: must have is_stochastic; see",
    "Denoiser(NoContext(), MODEL.schedule, MODEL.config)": "network NoContext: must have has_context; see",
}
"""Calls, as nobody checks the types of the arguments outside of pytest, and how the errors begin."""

ALIKE = [
    "torch.equal(generate(MODEL, **SIZE, seed=np.array([3, 5])), generate(MODEL, **SIZE, seed=[3, 5]))",
    "torch.equal(generate(MODEL, **SIZE, seed=torch.tensor([3, 5])), generate(MODEL, **SIZE, seed=[3, 5]))",
    "torch.equal(vary(MODEL, IMAGE, seed=np.array([3, 5])), vary(MODEL, IMAGE, seed=[3, 5]))",
    "torch.equal(*(interpolate(MODEL, each, [0.5], **SIZE) for each in (np.array([1, 2]), (1, 2))))",
    "torch.equal(vary(MODEL, IMAGE, torch.tensor(0.5)), vary(MODEL, IMAGE, 0.5))",
    "torch.equal(upscale(MODEL, IMAGE, torch.tensor(1.5)), upscale(MODEL, IMAGE, 1.5))",
    "torch.equal(generate(MODEL, **SIZE, obey=torch.tensor(1.0)), generate(MODEL, **SIZE))",
]
"""Comparisons that are true."""

SCRIPT = """
import json, sys, torch
import numpy as np
from pathlib import Path
from diffnca import *
from diffnca.diffusion.denoiser import Denoiser

class NoNoise:
    name, is_multistep, step = "no noise", False, None

class NoContext(torch.nn.Module):
    radius, context = 0, None

MODEL, SIZE = load("pathology-4step"), {"height": 4, "width": 5}
IMAGE, said = torch.linspace(-1.0, 1.0, 60).view(1, 3, 4, 5), {}
for call in json.load(sys.stdin):
    try:
        said[call] = str(eval(call))
    except ValueError as error:
        said[call] = str(error)
    except BaseException as error:
        said[call] = repr(error)
json.dump(said, sys.stdout)
"""


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """Return what each of the calls says, or gives."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([*WRONG, *ALIKE]),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_argument_is_one_line_that_names_it(call: str, said: dict[str, str]) -> None:
    assert said[call].startswith(WRONG[call])
    assert "\n" not in said[call]


@pytest.mark.parametrize("call", ALIKE)
def test_numbers_may_be_tensors_and_arrays(call: str, said: dict[str, str]) -> None:
    assert said[call] == "True"


@dataclass(frozen=True)
class Straight:
    """An own sampler: a straight line to the estimate, in as many parts as there are steps."""

    name = "straight"
    is_stochastic = False
    is_multistep = False

    def step(self, at: Step) -> tuple[Tensor, None]:
        share = at.level_s.sigma / at.level_t.sigma
        return share * at.x_t + (1.0 - share) * at.x_0_estimate, None


def test_an_own_sampler_makes_an_image() -> None:
    assert diffnca.generate(MODEL, sampler=Straight(), **SIZE).shape == (1, 3, 16, 20)


class Blur(nn.Module):
    """An own network, with one weight."""

    radius, has_context = 1, False

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def context(self, x_t: Tensor, t: Tensor, region: Region) -> None:
        return None

    def forward(
        self, x_t: Tensor, t: Tensor, region: Region | None, noise: CellNoise | None, context: Tensor | None
    ) -> Tensor:
        return self.share * nn.functional.avg_pool2d(x_t, 3, 1, 1)


def test_an_own_network_is_written_and_read_without_a_change_of_the_package(tmp_path: Path) -> None:
    config = Config("blur")
    own, again = (Denoiser(Blur(), NoiseSchedule.from_config(config.schedule), config) for _ in range(2))
    own.network.share.data.fill_(0.25)
    write_model(tmp_path / "blur.safetensors", own.network.state_dict(), config, {})
    load_weights(again, tmp_path / "blur.safetensors")
    images = [diffnca.generate(model, steps=2, **SIZE) for model in (own, again)]
    assert torch.equal(*images)


def test_threads_share_float32_and_the_last_one_gives_back_the_type_of_the_caller() -> None:
    """The first of two blocks ends while the second computes: its numbers stay float32."""
    shared = arguments.DefaultType()
    with default_dtype(torch.float64):
        first, second = shared.as_float32(), shared.as_float32()
        with first:
            second.__enter__()
        assert torch.zeros(1).dtype == torch.float32
        second.__exit__(None, None, None)
        assert torch.zeros(1).dtype == torch.float64
