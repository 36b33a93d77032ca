"""Read published networks [1, 2]: checkpoints of the authors, and plain arrays of weights.

The authors name the perception `p0`, the expansion `fc0`, the projection `fc1`, and the gates
`embedding_map_1` and `embedding_map_2`. The stage is a suffix of each name. The authors transpose images, so
the kernels swap their two axes here.

References:
    [1] Kalkhof et al., arXiv 2401.06291 (v1).
    [2] Kalkhof et al., "Parameter-efficient diffusion with neural cellular automata", npj Unconventional
        Computing, 2025.
"""

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffnca.config.model import Config, with_fields
from diffnca.config.networks import NCAConfig
from diffnca.config.recipes import recipe_named
from diffnca.files import LFS_POINTER
from diffnca.models.build import fill
from diffnca.networks.automaton import Automaton

VARIANTS = {"arxiv-v1": "arxiv_v1", "npj-2025": "npj"}

CELLS = {"diff_nca": ("cell",), "fourier_diff_nca": ("cell", "fourier.cell")}
"""Name of a family -> the cells of its networks, as fields of the configuration."""

_ARRAY_NAME = re.compile(r"(image|fourier)\.(\w+)(?:\.([01]))?\.(weight|bias)")
_AUTHORS_NAME = re.compile(
    r"(p0|fc0|fc1|embedding_net\w*?|embedding_map_1|embedding_map_2|norm)_(fourier|rgb)"
    r"\.(?:([02])\.)?(weight|bias|weight_g|weight_v)"
)
_AUTHORS_UNUSED = re.compile(r"bn\.\w+")  # a BatchNorm that no forward pass calls
_AUTHORS_LAYERS = {
    "p0": "perceive",
    "fc0": "expand",
    "fc1": "project",
    "norm": "norm",
    "embedding_map_1": "gate_perception.net",
    "embedding_map_2": "gate_hidden.net",
}
_AUTHORS_STAGES = {"fourier": "fourier", "rgb": "image"}
_AUTHORS_KINDS = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
_ARRAY_LAYERS = {
    "embed": "embedding.features.net",
    "gate_perception": "gate_perception.net",
    "gate_hidden": "gate_hidden.net",
}


def network_from_arrays(arrays: Mapping[str, Any], meta: Mapping[str, Any], family: str) -> Automaton:
    """Build a published network from plain arrays of its weights.

    Args:
        arrays: `{image,fourier}.{perceive,expand,project,embed.0,...}.{weight,bias}`, with the weight norm
            folded in; kernels with y before x. Other names are ignored. "diff_nca" also ignores the
            Fourier stage.
        meta: variant ("arxiv-v1" or "npj-2025"), channels, hidden, image_channels, image_steps, fire_rate
            (here the probability of an update). A Fourier stage also needs fourier_size and fourier_steps.
        family: "diff_nca" or "fourier_diff_nca".

    Raises:
        ValueError: the arrays belong to another network.
    """
    config = _config_of_meta(meta, family)
    stages = ("image",) if family == "diff_nca" else ("image", "fourier")
    weights = {}
    for name in arrays:
        match = _ARRAY_NAME.fullmatch(name)
        if match is None or match[1] not in stages:
            continue
        stage, layer, index, kind = match.groups()
        place = "" if index is None else f".{2 * int(index)}"
        values = torch.from_numpy(np.array(arrays[name], dtype=np.float32))
        weights[f"{stage}.{_ARRAY_LAYERS.get(layer, layer)}{place}.{kind}"] = values
    return _filled(config, weights, "arrays")


def read_published_checkpoint(path: Path, image_channels: int = 3) -> tuple[Automaton, Config]:
    """Return the network of a `model0.pth` of the authors, and the full configuration of its denoiser.

    No code of the file is executed. Names and shapes of the weights say which network the file holds, but
    not the `image_channels`. The published model gives the rest: numbers of steps, schedule, training.

    Raises:
        ValueError: the file is no such checkpoint.
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in _state_dict(path).items():
        if _AUTHORS_UNUSED.fullmatch(name):
            continue
        match = _AUTHORS_NAME.fullmatch(name)
        if match is None or not _is_plain(tensor):
            raise ValueError(f"{path}: unexpected entry {name!r}: must be the weights of a published network")
        layer, stage, index, kind = match.groups()
        place = "" if index is None else f".{index}"
        ours = f"{_AUTHORS_STAGES[stage]}.{_AUTHORS_LAYERS.get(layer, 'embedding.features.net')}{place}"
        values = tensor.float().mT.contiguous() if tensor.ndim == 4 else tensor.float()
        weights[f"{ours}.{_AUTHORS_KINDS.get(kind, kind)}"] = values
    config = _config_of_weights(weights, image_channels, str(path))
    return _filled(config, weights, str(path)), config


def _is_plain(entry: object) -> bool:
    if not isinstance(entry, Tensor) or entry.is_meta or entry.is_quantized or entry.layout != torch.strided:
        return False
    is_in_file = entry.untyped_storage().nbytes() >= entry.numel() * entry.element_size()
    return entry.is_floating_point() and is_in_file


def _state_dict(path: Path) -> Mapping[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}: must be a readable model0.pth") from error
    if content.startswith(LFS_POINTER):
        raise ValueError(f"{path}: is a pointer of Git LFS; fetch the file with `git lfs pull`")
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles; they are refused later
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can raise any error
        raise ValueError(
            f"{path}: must be a PyTorch file of tensors only; write it by torch.save(model.state_dict(), ...)"
        ) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(name, str) for name in loaded):
        raise ValueError(f"{path}: holds a {type(loaded).__name__}: must hold named tensors (a state_dict)")
    return loaded


def _published(variant: str, family: str, weight_norm: bool, sizes: Mapping[str, int | float]) -> Config:
    if family not in CELLS:
        raise ValueError(f"family={family!r}: must be one of {', '.join(CELLS)}")
    if variant not in VARIANTS:
        raise ValueError(f"variant={variant!r}: must be one of {', '.join(VARIANTS)}")
    changes = {**sizes, **{f"{cell}.weight_norm": weight_norm for cell in CELLS[family]}}
    config = recipe_named(f"{family}_{VARIANTS[variant]}")
    return with_fields(config, {f"model.{name}": value for name, value in changes.items()})


def _config_of_meta(meta: Mapping[str, Any], family: str) -> Config:
    needed = {"variant", "channels", "hidden", "image_channels", "image_steps", "fire_rate"}
    needed |= {"fourier_size", "fourier_steps"} if family == "fourier_diff_nca" else set()
    if missing := sorted(needed - set(meta)):
        raise ValueError(f"meta without {missing[0]!r}: must have {', '.join(sorted(needed))}")
    sizes = {
        "channels": int(meta["channels"]),
        "image_channels": int(meta["image_channels"]),
        "cell.num_cell_steps": int(meta["image_steps"]),
        "cell.update_probability": float(meta["fire_rate"]),
        **{f"{cell}.hidden": int(meta["hidden"]) for cell in CELLS.get(family, ())},
    }
    if family == "fourier_diff_nca":
        sizes |= {"fourier.window": int(meta["fourier_size"])}
        sizes |= {"fourier.cell.num_cell_steps": int(meta["fourier_steps"])}
    return _published(meta["variant"], family, False, sizes)


def _config_of_weights(weights: Mapping[str, Tensor], image_channels: int, source: str) -> Config:
    if not weights:
        raise ValueError(f"{source}: holds no weights: must be a model0.pth of the published networks")
    family = "fourier_diff_nca" if any(name.startswith("fourier.") for name in weights) else "diff_nca"
    variant = "npj-2025" if any("gate_" in name for name in weights) else "arxiv-v1"
    weight_norm = any("parametrizations" in name for name in weights)
    lengths = {"channels": "image.project.bias", "cell.hidden": "image.expand.bias"}
    if family == "fourier_diff_nca":
        lengths["fourier.cell.hidden"] = "fourier.expand.bias"
    sizes = {"image_channels": image_channels}
    for size, name in lengths.items():
        if name not in weights or weights[name].ndim != 1:
            raise ValueError(f"{source}: {name} is missing: must be a complete published network")
        sizes[size] = len(weights[name])
    return _published(variant, family, weight_norm, sizes)


def _filled(config: Config, weights: Mapping[str, Tensor], source: str) -> Automaton:
    assert isinstance(config.model, NCAConfig)
    network = Automaton(config.model)
    fill(network, weights, source)
    return network.eval()
