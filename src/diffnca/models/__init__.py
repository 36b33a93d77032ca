"""Networks: neural cellular automata that turn a noisy image into a prediction."""

from __future__ import annotations

from diffnca.config import ModelConfig
from diffnca.models.diff_nca import DiffNCA
from diffnca.models.fourier_diff_nca import FourierDiffNCA

__all__ = ["DiffNCA", "FourierDiffNCA", "build_network"]


def build_network(config: ModelConfig) -> DiffNCA | FourierDiffNCA:
    """Return the network of `config`, with fresh weights."""
    match config.family:
        case "diff_nca":
            return DiffNCA(config)
        case "fourier_diff_nca":
            return FourierDiffNCA(config)
