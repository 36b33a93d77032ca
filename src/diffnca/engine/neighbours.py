"""Which cells a cell perceives."""

from __future__ import annotations

import torch
from jaxtyping import Int32
from torch import Tensor

from diffnca.canvas.region import Boundary, Region, fold


def perceived(
    region: Region, dilation: int, padding: str
) -> tuple[Int32[Tensor, "3 h"], Int32[Tensor, "3 w"]]:
    """Return the rows that each row of `region` perceives, and the columns, as `networks.cell.pad` does.

    With `padding="zeros"` a cell beyond an edge has number -1.
    """
    boundary_y, boundary_x = region.canvas.boundary
    rows = _along(region.height, boundary_y if region.is_whole_y else "reflect", dilation, padding)
    return rows, _along(region.width, boundary_x if region.is_whole_x else "reflect", dilation, padding)


def _along(size: int, boundary: Boundary, dilation: int, padding: str) -> Int32[Tensor, "3 size"]:
    index = dilation * torch.arange(-1, 2, dtype=torch.int32)[:, None] + torch.arange(size, dtype=torch.int32)
    if padding == "zeros":
        return index.masked_fill((index < 0) | (index >= size), -1)
    return fold(index, size, boundary)
