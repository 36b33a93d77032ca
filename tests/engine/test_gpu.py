"""The GPU engine computes what the network does: in Triton's interpreter, or on a GPU where there is one."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise, Noise
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.networks import CellConfig
from diffnca.config.recipes import recipe_named
from diffnca.engine import fused, prepare
from diffnca.models.build import build_network
from diffnca.networks.cell import SelfGuidance, run_cells

from .conftest import of_one_stage, with_random_weights

pytest.importorskip("triton")
pytestmark = pytest.mark.triton

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
ALLOWED = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Relative errors."""

LOCAL = ("diff_nca", "fourier_diff_nca", "diff_nca_npj", "fourier_diff_nca_npj")
WHOLE = Canvas(9, 8).whole
"""Cells of two blocks, the second one padded."""

local_networks = pytest.mark.parametrize("name", LOCAL)
# the interpreter multiplies no bfloat16
every_type = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16 if HAS_GPU else torch.float16], ids=str
)


@pytest.fixture(autouse=True)
def products_of_equal_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter add up each row of a product alike, wherever it stands; not every BLAS does."""
    monkeypatch.setattr(np, "matmul", partial(np.einsum, "ij,jk->ik"))


def network_of(name: str, **changes: object) -> nn.Module:
    """Return a small network of this recipe with random weights in every layer."""
    model = recipe_named(name).model
    fourier = model.fourier and replace(model.fourier, window=3, cell=small(model.fourier.cell))
    cell = small(model.cell)
    model = replace(model, patch=min(model.patch, 2), image_channels=1, coarse=None)
    small_model = replace(model, channels=16, cell=cell, fourier=fourier)
    return with_random_weights(replace(small_model, **changes))


def small(cell: CellConfig, **changes: object) -> CellConfig:
    """Return the rule with few channels and two cell steps, which reach 1 and 2 cells."""
    few = {"hidden": 24, "num_cell_steps": 2, "dilations": (1, 2), "embedding_width": 16}
    return replace(cell, **(few | changes))


def ready_for(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    return fused(copy.deepcopy(network).to(DEVICE), DEVICE, dtype)


def noisy(region: Region, images: int = 1, channels: int = 1) -> Tensor:
    shape = (images, channels, region.height, region.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found.cpu() - expected).norm() / expected.norm()).item()


def error_of(
    network: nn.Module, region: Region, images: int = 1, seeds: tuple[int, ...] = (), **given: torch.dtype
) -> float:
    """Return the relative error of one call of the GPU engine against `network` on the CPU."""
    x_t, t = noisy(region, images), torch.full((images,), 0.3)
    noise, on_device = (Noise(seeds, place).at(40_000) if seeds else None for place in ("cpu", DEVICE))
    with torch.no_grad():
        expected = network(x_t, t, region, noise)
        found = ready_for(network, **given)(x_t.to(DEVICE), t.to(DEVICE), region, on_device)
    return relative_error(found, expected)


def tile_and_whole(network: nn.Module, canvas: Canvas, halo: int) -> tuple[Tensor, Tensor]:
    """Return a tile computed from the pixels within `halo` px of it, and the crop of the whole."""
    whole, tile = canvas.whole, Region(4, 5, 2, 3, canvas)
    x_t, t, noise = noisy(whole).to(DEVICE), torch.tensor([0.3], device=DEVICE), Noise((7,), DEVICE).at(3)
    ready, grown = ready_for(network), tile.grow(halo)
    with torch.no_grad():
        context = ready.context(x_t, t, whole)
        expected = ready(x_t, t, whole, noise, context)
        found = ready(grown.crop(x_t, whole), t, grown, noise, context)
    return tile.crop(found, grown), tile.crop(expected, whole)


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca", "fourier_diff_nca_npj"])
@every_type
def test_it_computes_what_the_network_computes(name: str, dtype: torch.dtype) -> None:
    assert error_of(network_of(name), WHOLE, images=2, dtype=dtype) < ALLOWED[dtype]


@local_networks
@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (7, 1)], ids=str)
def test_it_computes_what_the_network_computes_on_few_cells(name: str, sides: tuple[int, int]) -> None:
    assert error_of(network_of(name, patch=1), Canvas(*sides).whole) < ALLOWED[torch.float32]


def test_it_computes_what_the_network_computes_on_many_blocks() -> None:
    assert error_of(network_of("diff_nca_npj"), Canvas(15, 17).whole) < ALLOWED[torch.float32]


@pytest.mark.parametrize(
    "boundary", [("circular", "reflect"), ("reflect", "circular"), ("circular", "circular")], ids=str
)
def test_circular_axes_meet(boundary: tuple[Boundary, Boundary]) -> None:
    network = network_of("diff_nca_npj")
    assert error_of(network, Canvas(5, 7, boundary).whole) < ALLOWED[torch.float32]


@pytest.mark.parametrize("modulation", ["none", "gate", "scale_shift"])
@pytest.mark.parametrize("positions", ["none", "relative", "pixels"])
@pytest.mark.parametrize(
    ("perceive_embedding", "padding"), [(False, "reflect"), (True, "zeros"), (True, "reflect")]
)
def test_every_choice_of_a_cell_is_computed(
    modulation: str, positions: str, perceive_embedding: bool, padding: str
) -> None:
    network = of_one_stage(
        num_cell_steps=2,
        modulation=modulation,
        positions=positions,
        perceive_embedding=perceive_embedding,
        padding=padding,
    )
    assert error_of(network, Canvas(6, 7).whole) < ALLOWED[torch.float32]


def test_layers_wider_than_a_block_are_computed() -> None:
    cell = small(recipe_named("diff_nca_npj").model.cell, hidden=130)
    assert error_of(network_of("diff_nca_npj", channels=70, cell=cell), WHOLE) < ALLOWED[torch.float32]


def test_a_damped_update_is_that_of_the_network() -> None:
    cell = small(recipe_named("diff_nca").model.cell, update_probability=0.3)
    assert error_of(network_of("diff_nca", cell=cell), WHOLE) < ALLOWED[torch.float32]


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca_npj"])
def test_a_guided_state_is_led_on_as_that_of_the_network(name: str) -> None:
    network = network_of(name)
    for rule in network.compiled_parts():
        rule.guidance = SelfGuidance(1.7, rule.config.num_cell_steps - 1)
    assert error_of(network, WHOLE) < ALLOWED[torch.float32]


def test_masks_are_those_of_the_network() -> None:
    network = network_of("fourier_diff_nca_npj")
    assert error_of(network, WHOLE, images=2, seeds=(5, 2**64 - 1)) < ALLOWED[torch.float32]


@pytest.mark.parametrize(
    "region",
    [
        Region(0, 0, 9, 11, Canvas(9, 11)),
        Region(-3, 2**31 - 6, 7, 13, Canvas(2**31, 2**31, ("circular", "circular"))),
    ],
    ids=["whole", "over far edges"],
)
def test_the_kernel_draws_the_numbers_of_the_package(region: Region) -> None:
    noise = Noise((0, 7, 2**63, 2**64 - 1), DEVICE).at(65_535)
    cells = ready_for(network_of("diff_nca_npj")).image
    for number in (0, 1, 65_535):
        mask = noise.mask(number, region, cells.config.update_probability)
        assert torch.equal(cells.share(noise, number, region, 4), mask.flatten(1).float())


def test_masks_of_another_origin_are_taken_as_they_are() -> None:
    drawn = torch.rand(1, 1, 9, 8, generator=torch.Generator().manual_seed(3)) < 0.5

    class Masks:
        def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
            return drawn

    cells, noise = ready_for(network_of("diff_nca_npj")).image, Masks()
    assert isinstance(noise, CellNoise)
    assert torch.equal(cells.share(noise, 0, WHOLE, 1).cpu(), drawn.flatten(1).float())


def test_a_full_state_is_updated_from_its_origin_with_its_masks() -> None:
    cell = small(recipe_named("fourier_diff_nca").model.fourier.cell, update_probability=0.5)
    network = network_of("diff_nca", cell=cell)
    state, t, whole = noisy(Canvas(5, 4).whole, 1, 16), torch.tensor([0.3]), Canvas(5, 4).whole
    noise, on_device = (Noise((5,), place).at(2) for place in ("cpu", DEVICE))
    with torch.no_grad():
        expected = run_cells(network.image, state, t, whole, noise, origin=(1, 0), first_mask=7)
    ready = ready_for(network).image
    found = ready.run(state.to(DEVICE), t.to(DEVICE), whole, on_device, origin=(1, 0), first_mask=7)
    assert relative_error(found, expected) < ALLOWED[torch.float32]


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca_npj"])
def test_each_image_has_its_own_time(name: str) -> None:
    network, x_t, t = network_of(name), noisy(WHOLE, 3), torch.tensor([0.9, 0.1, 0.9])
    with torch.no_grad():
        expected = network(x_t, t)
        found = ready_for(network)(x_t.to(DEVICE), t.to(DEVICE))
    assert relative_error(found, expected) < ALLOWED[torch.float32]


@local_networks
@pytest.mark.parametrize("boundary", [("reflect", "reflect"), ("circular", "circular")], ids=str)
def test_a_tile_equals_the_whole_to_the_bit(name: str, boundary: tuple[Boundary, Boundary]) -> None:
    network = network_of(name, patch=1)
    assert torch.equal(*tile_and_whole(network, Canvas(11, 12, boundary), network.radius))


def test_a_halo_one_pixel_short_is_too_small() -> None:
    network = network_of("diff_nca_npj")
    assert not torch.equal(*tile_and_whole(network, Canvas(11, 12), network.radius - 1))


def test_a_batch_equals_single_images_to_the_bit() -> None:
    ready, x_t = ready_for(network_of("diff_nca_npj")), noisy(WHOLE, 2).to(DEVICE)
    t = torch.tensor([0.3], device=DEVICE)
    together = ready(x_t, t.expand(2), None, Noise((4, 5), DEVICE).at(1))
    for image in range(2):
        alone = ready(x_t[image : image + 1], t, None, Noise((4 + image,), DEVICE).at(1))
        assert torch.equal(together[image : image + 1], alone)


def test_it_runs_in_inference_mode() -> None:
    ready, x_t, t = ready_for(network_of("diff_nca")), noisy(WHOLE).to(DEVICE), torch.tensor([0.3])
    with torch.inference_mode():
        found = ready(x_t.clone(), t.to(DEVICE))
    assert torch.equal(found, ready(x_t, t.to(DEVICE)))


@pytest.mark.skipif(not HAS_GPU, reason="needs a GPU")
def test_a_gpu_takes_it() -> None:
    assert hasattr(prepare(network_of("diff_nca"), "cuda", engine="fused").image, "share")


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
