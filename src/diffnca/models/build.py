"""Build networks and models from their configuration, with fresh weights."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.baselines.unet import UNet
from diffnca.baselines.vnca import VNCA
from diffnca.config.model import Config
from diffnca.config.networks import Model, NCAConfig, UNetConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.errors import one_line
from diffnca.networks.automaton import Automaton

Generator = Denoiser | Autoencoder


def build_network(config: Model) -> Automaton | UNet | VNCA:
    """Return the network of `config`, with fresh weights."""
    if isinstance(config, NCAConfig):
        return Automaton(config)
    return UNet(config) if isinstance(config, UNetConfig) else VNCA(config)


def build_model(config: Config) -> Generator:
    """Return the model of `config`, with fresh weights."""
    network = build_network(config.model)
    if isinstance(network, VNCA):
        return Autoencoder(network, config)
    return Denoiser(network, NoiseSchedule.from_config(config.schedule), config)


def build_denoiser(config: Config) -> Denoiser:
    """Return the denoiser of `config`, with fresh weights; refuse a model that is no denoiser."""
    return denoiser_of(build_model(config))


def denoiser_of(model: Generator) -> Denoiser:
    """Return a model as a denoiser; refuse a model that is none."""
    if isinstance(model, Autoencoder):
        name = model.config.name
        raise ValueError(f"model {name}: must be a denoiser, not a variational autoencoder (vnca)")
    return model


def require_device(device: Any) -> None:
    """Refuse a device that is not available here; `None` is no device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(f"device={device!r}: is not available here ({one_line(error)})") from None


def fill(network: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a network; refuse names, shapes and values that do not fit."""
    expected = network.state_dict()
    for name in sorted({*expected, *weights}):
        if name not in weights:
            raise ValueError(f"{source}: {name} is missing; must be a complete network of this kind")
        if name not in expected:
            raise ValueError(f"{source}: unexpected {name}; must be a network of this kind")
        weight, wanted = weights[name], tuple(expected[name].shape)
        if tuple(weight.shape) != wanted:
            raise ValueError(f"{source}: {name} has shape {tuple(weight.shape)}: must be {wanted}")
        if not weight.is_floating_point() or not torch.isfinite(weight.float()).all():
            raise ValueError(f"{source}: {name} holds {weight.dtype} values that are no finite numbers")
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
