"""Features of whole sets of images, kept in files: the real images of a comparison are looked at once."""

import hashlib
import os
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffnca.evaluation.metrics.features import FeatureExtractor, extract

_NAME = "features"


def extract_cached(
    extractor: FeatureExtractor,
    images: UInt8[Tensor, "n c h w"],
    folder: Path | None,
    batch_size: int = 4,
) -> Float[Tensor, "n d"]:
    """Return the features of all images, from a file of `folder` if one holds them.

    A file belongs to the pixels and their order, and to name, preprocessing and checksum of the
    extractor; a damaged one is written anew.

    Args:
        extractor: the network that looks at the images.
        images: the whole set.
        folder: where the files are, made if it does not exist; `None` computes always and keeps nothing.
        batch_size: images that are looked at together.

    Raises:
        ValueError: if the folder cannot be made or the file not written.
    """
    if folder is None:
        return extract(extractor, images, batch_size)
    path = folder / f"{_key(extractor, images)}.safetensors"
    features = _read(path, len(images))
    if features is not None:
        return features
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # found before the work
        raise ValueError(
            f"{folder} cannot keep features ({error}): choose a folder that can be written to"
        ) from error
    features = extract(extractor, images, batch_size).cpu().contiguous()
    _write(path, features)
    return features


def _key(extractor: FeatureExtractor, images: UInt8[Tensor, "n c h w"]) -> str:
    network = (extractor.name, extractor.preprocessing, extractor.checksum)
    key = hashlib.sha256(repr((tuple(images.shape), *network)).encode())
    key.update(images.cpu().contiguous().flatten().numpy().data)
    return key.hexdigest()


def _digest(features: Float[Tensor, "n d"]) -> str:
    return hashlib.sha256(features.flatten().view(torch.uint8).numpy().data).hexdigest()


def _read(path: Path, n: int) -> Float[Tensor, "n d"] | None:
    """Return the features of a file, `None` if there is none or it is not as it was written."""
    try:
        with safe_open(path, framework="pt") as file:
            features: Tensor = file.get_tensor(_NAME)
            digest = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    return features if features.ndim == 2 and len(features) == n and _digest(features) == digest else None


def _write(path: Path, features: Float[Tensor, "n d"]) -> None:
    """Write a file so that a reader sees all of it or none."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file({_NAME: features}, partial, {"sha256": _digest(features)})
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{path} cannot be written ({error}): free some space, or choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
