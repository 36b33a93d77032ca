"""The engine on a CPU: what all engines do, and what it alone does."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from diffnca.canvas.region import Canvas, Region
from diffnca.engine import prepare

from .suite import EngineSuite, network_of, noisy

WHOLE = Canvas(41, 37).whole


class TestBlocked(EngineSuite):
    """Blocks of cells, in the types that CPUs are fast at."""

    device: ClassVar = torch.device("cpu")
    allowed: ClassVar = {torch.float32: 2e-6, torch.bfloat16: 2e-2}

    def prepare(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
        return prepare(network, "cpu", dtype)

    @pytest.mark.parametrize("channels", [6, 7, 9, 10, 14, 18])
    @pytest.mark.parametrize("name", ["diff_nca", "diff_nca_npj"])
    def test_tiles_equal_the_whole_to_the_bit_at_any_width_of_the_state(
        self, name: str, channels: int
    ) -> None:
        network, tile = network_of(name, channels=channels), Region(17, 12, 9, 11, WHOLE.canvas)
        for dtype in self.allowed:
            assert torch.equal(*self.tile_and_whole(network, tile, dtype=dtype))


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
