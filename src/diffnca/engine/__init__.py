"""The engine: how networks run fast and exactly on the machine at hand."""

from __future__ import annotations

import torch
from torch import nn

from diffnca.engine.cpu import FOURIER_BLOCK_CELLS, BlockedCells
from diffnca.engine.network import BlockedNetwork
from diffnca.engine.precision import fast_dtype, has_triton
from diffnca.models import DiffNCA, FourierDiffNCA

__all__ = ["prepare"]


def prepare(network: nn.Module, device: torch.device | str, dtype: torch.dtype | None = None) -> nn.Module:
    """Return a network that computes what `network` does, made for inference on `device`.

    On a CPU the results are the same to the bit for any tile, batch and number of threads. A network without
    a finite radius (group normalisation), any on a GPU without triton (3.7 or newer), and any on another
    device, is returned as it is, moved there.

    Args:
        network: a network as `diffnca.models.build_network` makes it.
        device: where it will run.
        dtype: of the matrix products, float32 or bfloat16; `None` is what the device is fast at. States stay
            float32.
    """
    device = torch.device(device)
    dtype = fast_dtype(device) if dtype is None else dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype={dtype}: must be torch.float32 or torch.bfloat16; choose one of these")
    network = network.to(device)
    if isinstance(network, (DiffNCA, FourierDiffNCA)) and network.radius is not None:
        if device.type == "cpu":
            return blocked(network, dtype)
        if device.type == "cuda" and has_triton():
            return fused(network, device, dtype)
    return network


def blocked(network: DiffNCA | FourierDiffNCA, dtype: torch.dtype) -> BlockedNetwork:
    """Return `network` with cells for a CPU."""
    fourier = None
    if isinstance(network, FourierDiffNCA):
        fourier = BlockedCells(network.fourier, dtype, FOURIER_BLOCK_CELLS)
    return BlockedNetwork(network, BlockedCells(network.image, dtype), fourier)


def fused(network: DiffNCA | FourierDiffNCA, device: torch.device, dtype: torch.dtype) -> BlockedNetwork:
    """Return `network` with cells for a GPU (or for Triton's interpreter)."""
    from diffnca.engine.gpu import FusedCells

    fourier = FusedCells(network.fourier, device, dtype) if isinstance(network, FourierDiffNCA) else None
    return BlockedNetwork(network, FusedCells(network.image, device, dtype), fourier)
