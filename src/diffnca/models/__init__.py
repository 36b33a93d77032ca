"""Networks: cellular automata, and what they are compared with."""

from __future__ import annotations

from diffnca.models.diff_nca import DiffNCA
from diffnca.models.fourier_diff_nca import FourierDiffNCA
from diffnca.models.unet import UNet
from diffnca.models.vnca import VNCA
from diffnca.networks import Model, NCAConfig, UNetConfig

__all__ = ["VNCA", "DiffNCA", "FourierDiffNCA", "UNet", "build_cells", "build_network"]


def build_network(config: Model) -> DiffNCA | FourierDiffNCA | UNet | VNCA:
    """Return the network of `config`, with fresh weights."""
    if isinstance(config, NCAConfig):
        return build_cells(config)
    return UNet(config) if isinstance(config, UNetConfig) else VNCA(config)


def build_cells(config: NCAConfig) -> DiffNCA | FourierDiffNCA:
    """Return the network of cells of `config`, with fresh weights."""
    return DiffNCA(config) if config.family == "diff_nca" else FourierDiffNCA(config)
