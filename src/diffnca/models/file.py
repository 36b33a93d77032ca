"""Files of models and of training runs: safetensors with the configuration in the header, written atomically.

A run's folder holds `model.safetensors` (the averaged weights: what `load` reads) and `state.safetensors`
(all that training needs to go on).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffnca.config.model import Config, from_json, to_json
from diffnca.diffusion.denoiser import Denoiser
from diffnca.models.build import Generator, build_denoiser, build_model

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.safetensors"
WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"


AnyModel = TypeVar("AnyModel", bound=Generator)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial.touch()  # with the rights that new files have here; safetensors makes it private
    rights = partial.stat().st_mode
    try:
        save_file(stored, partial, dict(header))
        partial.chmod(rights)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise OSError(
            f"{path}: cannot be written ({error}); free some space and repeat the command"
        ) from None
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header of a safetensors file.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def read_header(path: Path) -> dict[str, str]:
    """Return the header of a safetensors file, without its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from None


def write_model(
    path: Path,
    weights: Mapping[str, Tensor],
    config: Config,
    card: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model: the weights of its network, its configuration and its card.

    Args:
        path: the file, replaced atomically.
        weights: `network.state_dict()`.
        config: everything the denoiser is built from.
        card: what is known of the model (data, licence, hours, scores), as JSON values.
        dtype: of the stored weights; `None` keeps theirs.
    """
    stored = {name: weight.to(dtype or weight.dtype) for name, weight in weights.items()}
    write_tensors(path, stored, {"config": to_json(config), "card": json.dumps(dict(card), sort_keys=True)})


def read_config(path: Path) -> Config:
    """Return the configuration in the header of a model file."""
    header = read_header(path)
    if "config" not in header:
        raise ValueError(f"{path}: no diffnca configuration in its header; convert it with `diffnca convert`")
    return from_json(header["config"])


def read_card(path: Path) -> dict[str, Any]:
    """Return the card in the header of a model file."""
    card: dict[str, Any] = json.loads(read_header(path).get("card", "{}"))
    return card


def bundled_models() -> dict[str, Path]:
    """Return the models that come with the package, by name."""
    return {path.stem: path for path in sorted(WEIGHTS_FOLDER.glob("*.safetensors"))}


def find_model(name: str | Path) -> Path:
    """Return the file of a model: a bundled one, a file, a run's folder, or a hub id `owner/name`.

    A run's folder or a file that exists is taken first, then a bundled name; only what contains a `/` and is
    no path is looked
    up online.

    Raises:
        ValueError: there is no such model.
    """
    path = Path(name)
    bundled = bundled_models()
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if path.is_file():
        return path
    if str(name) in bundled:
        return bundled[str(name)]
    if path.is_dir():
        raise ValueError(f"{path}: no {MODEL_FILE} in this folder; give a run's folder or a model file")
    is_file_name = path.suffix in (".safetensors", ".pth") or str(name).startswith((".", "/", "~"))
    if str(name).count("/") == 1 and not is_file_name:
        return _download(str(name))
    raise ValueError(
        f"model {str(name)!r}: no such file or folder; bundled models are {', '.join(bundled) or 'none'}"
    )


def _download(hub_id: str) -> Path:
    """Fetch a model file from the Hugging Face hub, or from its local cache."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, MODEL_FILE))
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"model {hub_id!r}: no such path, and the hub does not give it ({reason})") from None


def load(name: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Return a trained model, ready for `diffnca.generate`: a `Denoiser`, or of VNCA an `Autoencoder`.

    Args:
        name: of a bundled model, a model file, a run's folder, or a hub id `owner/name`.
        device: where its weights go.

    Raises:
        ValueError: there is no such model, or its file is damaged.
    """
    path = find_model(name)
    return _ready(build_model(read_config(path)), path, device)


def load_denoiser(name: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """Return a trained denoiser; the arguments are those of `load`.

    Raises:
        ValueError: there is no such model, its file is damaged, or it is no denoiser.
    """
    path = find_model(name)
    return _ready(build_denoiser(read_config(path)), path, device)


def _ready(model: AnyModel, path: Path, device: torch.device | str) -> AnyModel:
    """Return `model` with the weights of its file, to be used, not trained."""
    load_weights(model, path)
    model.to(device).eval().requires_grad_(False)
    return model


def load_weights(model: Generator, path: Path) -> None:
    """Copy the weights of a model file into `model`."""
    weights, _ = read_tensors(path)
    try:
        model.network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    except RuntimeError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
