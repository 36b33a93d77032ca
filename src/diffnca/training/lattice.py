"""The lattice of the cells: what neighbouring cells of an image have in common, and no real image has."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FLAT = 1e-4
"""Mean square of the detail of a cell up to which it counts as flat."""

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns from a cell to half of its neighbours; the other half sees the same pairs."""


def lattice(images: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, ""]:
    """Return the mean square of what neighbouring cells of `side` px have in common; flat cells count most.

    The detail of a cell is what differs from the mean over two cells by two, which is blind to a lattice,
    and from its own mean. Detail that has nothing to do with that of the neighbours gives 0 on average; less
    than 0 counts as 0. So a lattice counts wherever it is, also if it differs from place to place. Cells at
    the sides of an image have no such detail, and do not count: fewer than four cells give 0.
    """
    height, width = (size // side * side for size in images.shape[-2:])
    if min(height, width) < 4 * side:
        return images.new_zeros(())
    smooth = F.avg_pool2d(F.avg_pool2d(images[..., :height, :width], 2 * side, stride=1), 2, stride=1)
    detail = images[..., side : height - side, side : width - side] - smooth
    cells = F.pixel_unshuffle(detail, side).unflatten(1, (images.shape[1], side**2))
    cells = cells - cells.mean(2, keepdim=True)
    flatness = 1.0 / (cells.detach().square().mean((1, 2)) / FLAT + 1.0)
    shared, weight = images.new_zeros(len(images)), images.new_zeros(len(images))
    for down, right in NEIGHBOURS:
        one, other = pairs(cells, down, right)
        both = torch.mul(*pairs(flatness, down, right))
        shared = shared + ((one * other).mean((1, 2)) * both).sum((1, 2))
        weight = weight + both.sum((1, 2))
    return F.relu(shared / weight).mean()


def pairs(cells: Float[Tensor, "b *n h w"], down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return cells and their neighbours, some rows `down` and some columns to the `right`, place by place."""
    height, width = cells.shape[-2:]
    left, far = max(0, -right), max(0, right)
    return cells[..., : height - down, left : width - far], cells[..., down:, far : width - left]
