"""Files of models and runs: safetensors with the configuration in the header, written atomically.

A run holds `model.safetensors`, the averaged weights that `load` reads, and `state.safetensors`.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffnca.config.json import from_json, object_of, to_json
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import Denoiser
from diffnca.errors import one_line, require, shown
from diffnca.files import LFS_POINTER, replace_atomically
from diffnca.models.build import Generator, build_model, denoiser_of, fill, require_device

MODEL_FILE = "model.safetensors"
STATE_FILE = "state.safetensors"

WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file with a checksum, atomically."""
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replace_atomically(path) as partial:
        try:
            save_file(stored, partial, {**header, "checksum": checksum(stored)})
        except SafetensorError as error:
            raise OSError(
                f"{path}: cannot be written ({one_line(error)}); free some space and repeat the command"
            ) from None


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the names, types, shapes and values of tensors."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header of a safetensors file; old files have no checksum."""
    with _opened(path) as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    if header.get("checksum", "") not in ("", checksum(tensors)):
        raise ValueError(f"{path}: is damaged, its tensors do not match their checksum; copy it again")
    return tensors, header


def read_header(path: Path) -> dict[str, str]:
    """Return the header of a safetensors file, without its tensors."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a safetensors file; raise `ValueError` for a damaged file, `OSError` for an unreadable file."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        with open(path, "rb") as start:
            is_pointer = start.read(100).startswith(LFS_POINTER)
        if is_pointer:
            raise ValueError(f"{path}: is a pointer of Git LFS; fetch the file with `git lfs pull`") from None
        reason = f"not a readable safetensors file ({one_line(error)})"
        raise ValueError(f"{path}: {reason}{_advice(path)}") from None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or one_line(error)})") from None


def _advice(path: Path) -> str:
    from diffnca.models.published import read_published_checkpoint

    try:
        read_published_checkpoint(path)
    except ValueError:
        return ""
    return "; turn it into a model file with `diffnca convert`"


def write_model(
    path: Path,
    weights: Mapping[str, Tensor],
    config: Config,
    card: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model file atomically; `weights` is the `state_dict()` of a network that `config` builds.

    `card` holds facts on the model as JSON values. A `dtype` of `None` keeps the type of each weight.

    Raises:
        ValueError: `check_card` refuses the card.
    """
    facts = check_card(card)
    stored = {name: weight.to(dtype or weight.dtype) for name, weight in weights.items()}
    write_tensors(path, stored, {"config": to_json(config), "card": json.dumps(facts, sort_keys=True)})


def read_config(path: Path) -> Config:
    """Return the configuration in the header of a model file or of a training run's state."""
    header = read_header(path)
    if "config" not in header:
        raise ValueError(f"{path}: no diffnca configuration in its header; must be a file that diffnca wrote")
    return from_json(header["config"], str(path))


def read_card(path: Path) -> dict[str, Any]:
    """Return the card in the header of a model file; refuse what `check_card` refuses."""
    return check_card(object_of(read_header(path).get("card", "{}"), f"{path}: its card"), str(path))


def check_card(card: Any, where: str = "card") -> dict[str, Any]:
    """Return the facts of a card as a file holds them; a fact of `None` counts as missing.

    Raises:
        ValueError: a fact is no JSON value, or its pixel size is no number above 0.
    """
    require(isinstance(card, Mapping), where, shown(card), "facts by their names")
    facts: dict[str, Any] = {}
    for name, value in card.items():
        require(isinstance(name, str), f"{where}: name", shown(name), "text")
        try:
            facts[name] = json.loads(json.dumps(value))
        except (TypeError, ValueError, RecursionError):
            allowed = "a JSON value, such as text, a number or a list"
            raise ValueError(f"{where}: {name}={shown(value)}: must be {allowed}") from None
    microns = facts.get("microns_per_px")
    is_size = microns is None or (type(microns) in (int, float) and 0.0 < microns < math.inf)
    require(is_size, f"{where}: microns_per_px", shown(microns), "a number above 0")
    return facts


def bundled_models() -> dict[str, Path]:
    """Return the files of the models that the package ships, by name."""
    return {path.stem: path for path in sorted(WEIGHTS_FOLDER.glob("*.safetensors"))}


def model_name(model: str | Path) -> str:
    """Return what a model is called that `find_model` finds.

    A bundled model keeps its name, and a hub id its last part. A run is called as its folder, another file as
    it is named, without the ending.
    """
    path = Path(os.path.abspath(model))
    return path.parent.name if path.name == MODEL_FILE else path.name.removesuffix(".safetensors")


def models_by_name(models: Iterable[str | Path]) -> dict[str, str]:
    """Return how `find_model` finds models, by their names; refuse different models of one name."""
    named: dict[str, str] = {}
    for model in models:
        name = model_name(model)
        earlier = named.setdefault(name, str(model))
        if earlier != str(model) and not find_model(earlier).samefile(find_model(model)):
            both = f"models {earlier} and {model}"
            raise ValueError(f"{both}: must have different names, not both {name}; rename a file or a folder")
    return named


def find_model(name: str | Path) -> Path:
    """Return the file of a model: an existing folder or file, a bundled name, or a hub id `owner/name`.

    The hub is asked only for a name that contains a `/`, if no folder before the `/` is here.
    """
    require(isinstance(name, str | Path), "model", repr(name), "a name or a path")
    path = Path(name)
    bundled = bundled_models()
    if str(name) in bundled and path.exists():
        is_model = path.is_file() or (path / MODEL_FILE).is_file()
        both = (f"./{path}", "the bundled model")
        logging.getLogger(__name__).warning("model %s: is %s, not %s", name, *both[:: 1 if is_model else -1])
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    if path.is_file():
        return path
    if str(name) in bundled:
        return bundled[str(name)]
    if path.is_dir():
        raise ValueError(f"{path}: no {MODEL_FILE} in this folder; give a run's folder or a model file")
    is_file_name = path.suffix in (".safetensors", ".pth") or str(name).startswith((".", "/", "~"))
    reason = "no such file or folder"
    if str(name).count("/") == 1 and not is_file_name:
        if not path.parent.is_dir():
            return _download(str(name))
        reason += f" (nor a hub id, as the folder {path.parent} is here)"
    raise ValueError(f"model {str(name)!r}: {reason}; bundled models are {', '.join(bundled) or 'none'}")


def _download(hub_id: str) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    try:
        with _silent("huggingface_hub"):
            if not isinstance(try_to_load_from_cache(hub_id, MODEL_FILE), str):
                get_hf_file_metadata(hf_hub_url(hub_id, MODEL_FILE))  # fails at once, without repeating
            return Path(hf_hub_download(hub_id, MODEL_FILE))
    except Exception as error:
        reason = f"no such path, and the hub does not give it ({one_line(error)})"
        raise ValueError(f"model {hub_id!r}: {reason}") from None


@contextmanager
def _silent(library: str) -> Iterator[None]:
    """Let a library log nothing within the block; its errors say enough."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def load(name: str | Path, device: torch.device | str = "cpu") -> Generator:
    """Return a trained model for `diffnca.generate`: a `Denoiser`, or an `Autoencoder` for VNCA.

    Args:
        name: a bundled model, a model file, the folder of a run, or a hub id `owner/name`.
        device: the device of the weights.

    Raises:
        ValueError: the model does not exist, its file is damaged, or the device is not available.
    """
    require_device(device)
    path = find_model(name)
    model = build_model(read_config(path))
    load_weights(model, path)
    model.to(device).eval().requires_grad_(False)
    return model


def load_denoiser(name: str | Path, device: torch.device | str = "cpu") -> Denoiser:
    """Return a trained denoiser like `load`; refuse a model that is no denoiser."""
    return denoiser_of(load(name, device))


def load_weights(model: Generator, path: Path) -> None:
    """Copy the weights of a model file into `model`; refuse the weights of another network."""
    fill(model.network, read_tensors(path)[0], str(path))
