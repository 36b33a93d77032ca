"""The engine: how networks run fast and exactly on the machine at hand."""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import nn

from diffnca.canvas.region import Canvas
from diffnca.engine.cpu import BlockedCells
from diffnca.engine.machine import OLDEST_TRITON, fast_dtype, has_triton
from diffnca.engine.network import BlockedNetwork
from diffnca.networks.diff_nca import DiffNCA
from diffnca.networks.fourier import Window
from diffnca.networks.fourier_diff_nca import FourierDiffNCA
from diffnca.networks.patches import PatchGrid

__all__ = ["Engine", "prepare"]

SMALL_IMAGE_PX = 64
"""Side of an image whose cells are to fill a block."""

Engine = Literal["auto", "eager", "fused"]
"""How a network runs: as is fast and exact on the device, as it was trained, or by the kernels for a GPU."""


def prepare(
    network: nn.Module,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    engine: Engine = "auto",
) -> nn.Module:
    """Return a network that computes what `network` does, made for inference on `device`.

    On a CPU the results are the same to the bit for any tile, batch and number of threads. A network without
    a finite radius (group normalisation), and any on another device, is returned as it is, or a copy there.

    Args:
        network: a network as `diffnca.models.build.build_network` makes it.
        device: where it will run.
        dtype: of the matrix products, float32 or bfloat16; `None` is what the device is fast at. States stay
            float32.
        engine: `"fused"` takes the kernels of `engine.gpu`, which have not been run on a GPU yet and so are
            nobody's default; `"eager"` returns the network itself.

    Raises:
        ValueError: type or engine are others, or the fused kernels cannot run this network here.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine={engine}: must be one of {', '.join(get_args(Engine))}")
    device = torch.device(device)
    dtype = fast_dtype(device) if dtype is None else dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype={dtype}: must be torch.float32 or torch.bfloat16; choose one of these")
    is_there = all(weight.device.type == device.type for weight in network.parameters())
    made: Any = (network if is_there else copy.deepcopy(network)).to(device)
    is_local = isinstance(made, (DiffNCA, FourierDiffNCA)) and made.radius is not None
    if engine == "fused":
        if not (is_local and device.type == "cuda" and has_triton()):
            raise ValueError(
                f"engine=fused: must run on an NVIDIA GPU, here {device}, with triton {OLDEST_TRITON[0]}."
                f"{OLDEST_TRITON[1]} or newer, and cells without group normalisation; take auto"
            )
        return fused(made, device, dtype)
    if engine == "auto" and is_local and device.type == "cpu":
        return blocked(made, dtype)
    ready: nn.Module = made
    return ready


def blocked(network: DiffNCA | FourierDiffNCA, dtype: torch.dtype) -> BlockedNetwork:
    """Return `network` with cells for a CPU."""
    small = Canvas(SMALL_IMAGE_PX, SMALL_IMAGE_PX)
    image = BlockedCells(network.image, dtype, PatchGrid(small.whole, network.config.patch).cells.area)
    first_stage = None
    if isinstance(network, FourierDiffNCA):
        window = Window(network.fourier_config, small).region
        first_stage = BlockedCells(network.fourier, dtype, window.area)
    elif network.coarse is not None:
        first_stage = BlockedCells(network.coarse, dtype, network.squares(small.whole).cells.area)
    return BlockedNetwork(network, image, first_stage)


def fused(network: DiffNCA | FourierDiffNCA, device: torch.device, dtype: torch.dtype) -> BlockedNetwork:
    """Return `network` with cells for a GPU (or for Triton's interpreter)."""
    from diffnca.engine.gpu import FusedCells

    *first_stage, image = (FusedCells(rule, device, dtype) for rule in network.compiled_parts())
    return BlockedNetwork(network, image, *first_stage)
