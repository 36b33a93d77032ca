"""Building networks and models of their configuration, with fresh weights."""

from __future__ import annotations

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.baselines.unet import UNet
from diffnca.baselines.vnca import VNCA
from diffnca.config.model import Config
from diffnca.config.networks import Model, NCAConfig, UNetConfig, VNCAConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.networks.diff_nca import DiffNCA
from diffnca.networks.fourier_diff_nca import FourierDiffNCA

Generator = Denoiser | Autoencoder
"""What makes images: `diffnca.generate` takes either."""


def build_network(config: Model) -> DiffNCA | FourierDiffNCA | UNet | VNCA:
    """Return the network of `config`, with fresh weights."""
    if isinstance(config, NCAConfig):
        return build_cells(config)
    return UNet(config) if isinstance(config, UNetConfig) else VNCA(config)


def build_cells(config: NCAConfig) -> DiffNCA | FourierDiffNCA:
    """Return the network of cells of `config`, with fresh weights."""
    return DiffNCA(config) if config.family == "diff_nca" else FourierDiffNCA(config)


def build_model(config: Config) -> Generator:
    """Return the model of `config`, with fresh weights."""
    if isinstance(config.model, VNCAConfig):
        return Autoencoder(build_network(config.model), config)
    return build_denoiser(config)


def build_denoiser(config: Config) -> Denoiser:
    """Return the denoiser of `config`, with fresh weights.

    Raises:
        ValueError: the model is no denoiser.
    """
    if isinstance(config.model, VNCAConfig):
        raise ValueError(f"model {config.name}: must be a denoiser, not a variational autoencoder (vnca)")
    return Denoiser(build_network(config.model), NoiseSchedule.from_config(config.schedule), config)
