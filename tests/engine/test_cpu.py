"""The engine on a CPU: what all engines do, and what it alone does."""

import platform
from typing import ClassVar

import pytest
import torch
from torch import nn

from diffnca.canvas.region import Canvas, Region
from diffnca.engine import fast, prepare
from diffnca.engine.blocks import Blocks
from diffnca.engine.native import Native, native_steps

from .suite import EngineSuite, network_of, noisy, relative_error

WHOLE = Canvas(41, 37).whole


def native_or_skip(dtype: torch.dtype, *flags: str) -> Native:
    """Return cell steps in native code, compiled with further flags."""
    steps = native_steps(dtype, flags)
    if steps is None:
        pytest.skip(f"no native cell steps in {dtype} here, with {flags}")
    return steps


class CpuSuite(EngineSuite):
    """What engines on a CPU do."""

    device: ClassVar = torch.device("cpu")
    allowed: ClassVar = {torch.float32: 2e-6, torch.bfloat16: 2e-2}

    @pytest.mark.parametrize("channels", [6, 7, 9, 10, 14, 18])
    @pytest.mark.parametrize("name", ["diff_nca", "diff_nca_npj"])
    def test_tiles_equal_the_whole_to_the_bit_at_any_width_of_the_state(
        self, name: str, channels: int
    ) -> None:
        network, tile = network_of(name, channels=channels), Region(17, 12, 9, 11, WHOLE.canvas)
        for dtype in self.allowed:
            assert torch.equal(*self.tile_and_whole(network, tile, dtype=dtype))


class TestBlocks(CpuSuite):
    """Cell steps by torch, where there is no compiler."""

    def prepare(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
        return fast(network, Blocks(dtype))


class TestNative(CpuSuite):
    """Cell steps in native code, in the types that this processor is fast at."""

    allowed: ClassVar = {
        dtype: error for dtype, error in CpuSuite.allowed.items() if native_steps(dtype) is not None
    }

    def prepare(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
        return fast(network, native_or_skip(dtype))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="turns off instructions of x86-64")
@pytest.mark.parametrize("missing", ["amx-bf16", "avx512bf16", "avx512f"])
@pytest.mark.parametrize("name", ["diff_nca+coarse", "fourier_diff_nca_npj"])
class TestFewerInstructions:
    """Native code for older processors."""

    def ready(self, name: str, missing: str) -> nn.Module:
        dtype = torch.bfloat16 if missing == "amx-bf16" else torch.float32
        return fast(network_of(name), native_or_skip(dtype, f"-mno-{missing}"))

    def test_it_computes_what_the_network_computes(self, name: str, missing: str) -> None:
        ready, x_t, t = self.ready(name, missing), noisy(WHOLE), torch.tensor([0.3])
        error = relative_error(ready(x_t, t), network_of(name)(x_t, t))
        assert error < CpuSuite.allowed[ready.rules[0].dtype]

    def test_tiles_equal_the_whole_to_the_bit(self, name: str, missing: str) -> None:
        ready, network, t = self.ready(name, missing), network_of(name), torch.tensor([0.3])
        tile, x_t = Region(17, 12, 9, 11, WHOLE.canvas), noisy(WHOLE)
        context, grown = ready.context(x_t, t, WHOLE), tile.grow(network.radius)
        part = ready(grown.crop(x_t, WHOLE), t, grown, None, context)
        assert torch.equal(tile.crop(part, grown), tile.crop(ready(x_t, t, WHOLE, None, context), WHOLE))


@pytest.fixture
def _same_threads_after() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["diff_nca", "fourier_diff_nca_npj", "diff_nca+coarse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.usefixtures("_same_threads_after")
def test_the_number_of_threads_changes_no_bit(name: str, dtype: torch.dtype) -> None:
    ready, x_t, t, found = prepare(network_of(name), "cpu", dtype), noisy(WHOLE), torch.tensor([0.3]), []
    context = ready.context(x_t, t, WHOLE)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(ready(x_t, t, WHOLE, None, context))
        assert torch.get_num_threads() == threads
    assert torch.equal(*found)


def test_statistics_over_space_leave_the_network_as_it_is() -> None:
    network = network_of("diff_nca_arxiv_v1")
    assert prepare(network, "cpu") is network


def test_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"float16: must be torch\.float32 or torch\.bfloat16"):
        prepare(network_of("diff_nca"), "cpu", torch.float16)


def test_a_part_of_a_canvas_without_its_context_is_refused() -> None:
    tile = Region(0, 0, 8, 8, WHOLE.canvas)
    with pytest.raises(ValueError, match="must be the sum"):
        prepare(network_of("fourier_diff_nca"), "cpu")(noisy(tile), torch.tensor([0.3]), tile)
