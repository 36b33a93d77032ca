"""Features of images, kept in files, so that the network looks at each image once."""

import hashlib
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffnca.evaluation.metrics.features import FeatureExtractor, extract
from diffnca.files import replace_atomically
from diffnca.progress import Report, unseen

IMAGES_PER_FILE = 256
"""Images whose features lie in one file; a stop loses the features of at most so many images."""


def cache_folder() -> Path:
    """Return the user's folder for features and downloaded weights; refuse a user without a home."""
    try:
        return Path.home() / ".cache" / "diffnca"
    except RuntimeError:
        raise ValueError(
            "the home folder is unknown, so there is no place to keep features: set HOME, or give --cache "
            "FOLDER (and with --features inception, --weights FILE)"
        ) from None


def extract_cached(
    extractor: FeatureExtractor,
    images: UInt8[Tensor, "n c h w"],
    folder: Path | None,
    report: Report = unseen,
    title: str = "features",
) -> Float[Tensor, "n d"]:
    """Return the features of all images; compute and keep what no file of `folder` holds.

    Features belong to the pixels of the image, and to name, preprocessing and checksum of the extractor.
    Damaged files count as missing. `None` computes always and keeps nothing.
    """
    if folder is None:
        return extract(extractor, images, report=report, title=title)
    place = _place(folder, extractor)
    keys = [_key(image) for image in images]
    known = _known(place, set(keys))
    missing = list({key: index for index, key in enumerate(keys) if key not in known}.values())
    for start in range(0, len(missing), IMAGES_PER_FILE):
        part = missing[start : start + IMAGES_PER_FILE]

        def seen(title: str, done: float | int, _: float | int, before: int = start) -> None:
            report(title, before + done, len(missing))

        features = extract(extractor, images[part], report=seen, title=title).cpu().contiguous()
        _write(place, [keys[index] for index in part], features)
        known |= {keys[index]: vector for index, vector in zip(part, features, strict=True)}
    return torch.stack([known[key] for key in keys])


def _place(folder: Path, extractor: FeatureExtractor) -> Path:
    """Make the folder for the features of an extractor, before the work begins."""
    network = repr((extractor.name, extractor.preprocessing, extractor.checksum))
    place = folder / hashlib.sha256(network.encode()).hexdigest()[:32]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot keep features ({error}): choose a folder that can be written to"
        ) from error
    return place


def _key(image: UInt8[Tensor, "c h w"]) -> bytes:
    key = hashlib.sha256(repr(tuple(image.shape)).encode())
    key.update(image.cpu().contiguous().flatten().numpy().data)
    return key.digest()


def _known(place: Path, wanted: set[bytes]) -> dict[bytes, Float[Tensor, " d"]]:
    known: dict[bytes, Tensor] = {}
    for path in place.glob("*.safetensors"):
        if len(known) < len(wanted):
            known |= _read(path, wanted - known.keys())
    return known


def _read(path: Path, wanted: set[bytes]) -> dict[bytes, Float[Tensor, " d"]]:
    """Return the features of the wanted images that a file holds; none if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            keys: Tensor = file.get_tensor("keys")
            names = [bytes(row) for row in keys.tolist()]
            if wanted.isdisjoint(names):
                return {}
            features: Tensor = file.get_tensor("features")
            is_sound = (file.metadata() or {}).get("sha256") == _digest(keys, features)
    except (OSError, SafetensorError, TypeError, ValueError):
        return {}
    both = zip(names, features, strict=False)
    return {name: vector for name, vector in both if name in wanted} if is_sound else {}


def _digest(keys: Tensor, features: Tensor) -> str:
    digest = hashlib.sha256(keys.contiguous().numpy().data)
    digest.update(features.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(place: Path, names: list[bytes], features: Float[Tensor, "n d"]) -> None:
    keys = torch.tensor([list(name) for name in names], dtype=torch.uint8)
    content = save({"keys": keys, "features": features}, {"sha256": _digest(keys, features)})
    path = place / f"{hashlib.sha256(b''.join(names)).hexdigest()[:32]}.safetensors"
    with replace_atomically(path) as partial:
        partial.write_bytes(content)
