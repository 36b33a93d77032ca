"""Embeddings in native code: the network they stand for, for any number of rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffnca.engine import native
from diffnca.engine.embeddings import MOST_GROUPS, Code, Embeddings, in_groups

from .suite import relative_error

LINE = native.line_of(torch.float32)


@given(st.integers(1, 1000), st.integers(1, 64))
def test_groups_hold_each_row_once(count: int, together: int) -> None:
    groups = in_groups(count, together)
    assert [row for first, end in groups for row in range(first, end)] == [*range(count)]


@given(st.integers(1, 1000), st.integers(1, 64))
def test_groups_are_few_and_divide_no_pack(count: int, together: int) -> None:
    groups = in_groups(count, together)
    assert len(groups) <= MOST_GROUPS and all(first % together == 0 for first, _ in groups)


@pytest.mark.parametrize("rows", [1, 64, 1000])
def test_embeddings_and_their_gradients_are_those_of_the_network(rows: int) -> None:
    library = native.built((), "training")
    if library is None:
        pytest.skip("no C++ compiler here that builds the native code")
    torch.manual_seed(rows)
    net = nn.Sequential(nn.Linear(LINE, 2 * LINE), nn.SiLU(), nn.Linear(2 * LINE, LINE))
    numbers, layers = torch.randn(rows, LINE), [*net.parameters()]
    expected, found = net(numbers), Embeddings.apply(Code(library, torch.float32), numbers, *layers)
    gradients = [torch.autograd.grad(each.square().sum(), layers) for each in (found, expected)]
    pairs = [(found, expected), *zip(*gradients, strict=True)]
    assert max(relative_error(*pair) for pair in pairs) < 1e-5
