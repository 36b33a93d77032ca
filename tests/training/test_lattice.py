"""The lattice of the cells: what counts as one, and what does not."""

import math

import torch

from diffnca.training.lattice import lattice

from .conftest import stripes

PATTERN = torch.tensor([0.1, -0.1, -0.1, 0.1]).repeat(8).expand(1, 3, 32, 32)
"""It is 0 on average in each row of a cell of 4 px."""


def test_a_flat_image_repeats_nothing_in_its_cells() -> None:
    assert float(lattice(torch.full((1, 3, 16, 16), 0.7), 4)) < 1e-12


def test_what_repeats_in_each_cell_counts_by_its_mean_square() -> None:
    torch.testing.assert_close(lattice(PATTERN, 4), torch.tensor(0.1**2))


def test_a_lattice_counts_though_it_is_0_on_average() -> None:
    signs = torch.where(torch.arange(32) < 16, 1.0, -1.0)[:, None]
    # of 110 pairs among 6x6 cells, 6 + 2 * 5 have unlike signs
    torch.testing.assert_close(lattice(signs * PATTERN, 4), torch.tensor(0.1**2 * (110 - 2 * 16) / 110))


def test_fewer_than_four_cells_repeat_nothing() -> None:
    assert float(lattice(stripes(0)[..., :12, :], 4)) == 0.0


def test_what_moves_from_cell_to_cell_is_no_lattice() -> None:
    noise = torch.randn(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    # 14x14 cells make 2 * 14 * 13 + 2 * 13 * 13 pairs, each a mean of 48 products of unit variance
    assert float(lattice(noise, 4)) < 1.0 / math.sqrt(48 * 702)


def test_flat_cells_count_most() -> None:
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    upper = torch.arange(32)[:, None] < 16
    found = lattice(torch.where(upper, PATTERN, noise), 4)
    torch.testing.assert_close(found, lattice(PATTERN, 4), rtol=0.1, atol=0.0)
