"""Turn the networks of an npm package into the files that evaluation and training look with.

    npm pack @vladmandic/face-api@1.7.15 && tar -xzf vladmandic-face-api-1.7.15.tgz
    python benchmarks/judges.py package

The package `nsfwjs@4.3.0` is turned likewise. Weights stay bytes where their authors published bytes. Both
packages have the MIT licence; the notice of the package goes into each file.
"""

import base64
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Shaped
from safetensors.torch import save
from torch import Tensor, nn

from diffnca.evaluation.metrics.features import user_cache
from diffnca.evaluation.metrics.inception import inception_network
from diffnca.files import replace_atomically
from diffnca.models.tensorflow import RANGE

FACES = {
    "face_descriptor": "face_recognition_model",
    "face_landmarks": "face_landmark_68_model",
    "face_expression": "face_expression_model",
}
INCEPTION = "dist/models/inception_v3"
NUMBER = r"(-?[\d.]+(?:e-?\d+)?)"
ENTRY = re.compile(
    r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32",'
    rf'quantization:\{{min:{NUMBER},scale:{NUMBER},dtype:"uint8"\}}\}}'
)
BASE64 = re.compile(r'"([A-Za-z0-9+/=]{1000,})"')
AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
"""Order of the axes in PyTorch, by their number: TensorFlow has (height, width, inputs, outputs)."""


Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Weights:
    """A tensor of the package, its axes in the order of TensorFlow.

    `limits` are scale and least value of bytes, or `None` if the values are float32.
    """

    name: str
    values: Shaped[np.ndarray, "..."]
    limits: Limits


@dataclass(frozen=True)
class Options:
    """Which package, and where to."""

    package: tyro.conf.Positional[Path]
    """Folder of the unpacked package."""
    out: Path | None = None
    """Folder of the files; without it, the place where `diffnca evaluate` looks."""


def main(options: Options) -> None:
    """Write the files, and print their checksums."""
    out = user_cache() if options.out is None else options.out
    out.mkdir(parents=True, exist_ok=True)
    notice = (options.package / "LICENSE").read_text(encoding="utf-8")
    for judge, tensors in judges(options.package):
        content = save(tensors, {"notice": notice})  # a second entry would make the order of both random
        with replace_atomically(out / f"{judge}.safetensors") as partial:
            partial.write_bytes(content)
        print(f"{out / judge}.safetensors: {len(content):,} bytes, SHA-256 {sha256(content).hexdigest()}")


def judges(package: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the name and the tensors of each network of a package."""
    if (package / INCEPTION).is_dir():
        yield "inception_nsfwjs", tensors_of_inception(list(weights_in_scripts(package / INCEPTION)))
    elif (package / "model").is_dir():
        for judge, model in FACES.items():
            yield judge, tensors_of_faces(list(weights_in_manifest(package / "model", model)))
    else:
        raise SystemExit(f"{package}: holds neither face-api nor nsfwjs; give an unpacked package")


def weights_in_manifest(folder: Path, model: str) -> Iterator[Weights]:
    """Yield the tensors of a model of face-api: a JSON file beside a file of bytes."""
    manifest = json.loads((folder / f"{model}-weights_manifest.json").read_text(encoding="utf-8"))
    table: list[tuple[str, list[int], Limits]] = []
    for entry in (entry for group in manifest for entry in group["weights"]):
        limits = entry.get("quantization")
        table.append((entry["name"], entry["shape"], limits and (limits["scale"], limits["min"])))
    yield from cut((folder / f"{model}.bin").read_bytes(), table)


def weights_in_scripts(folder: Path) -> Iterator[Weights]:
    """Yield the tensors of a model of nsfwjs: scripts that hold a table, and the bytes as text."""
    shards = sorted(folder.glob("group1-shard*.min.js"))
    texts = ["".join(BASE64.findall(path.read_text(encoding="utf-8"))) for path in shards]
    entries = ENTRY.findall((folder / "model.min.js").read_text(encoding="utf-8"))
    table: list[tuple[str, list[int], Limits]] = [
        (name, [int(side) for side in shape.split(",")], (float(scale), float(least)))
        for name, shape, least, scale in entries
    ]
    yield from cut(b"".join(map(base64.b64decode, texts)), table)


def cut(content: bytes, table: list[tuple[str, list[int], Limits]]) -> Iterator[Weights]:
    """Yield the tensors that lie one after another in `content`."""
    kinds = [np.dtype(np.float32 if limits is None else np.uint8) for _, _, limits in table]
    lengths = [math.prod(shape) * kind.itemsize for (_, shape, _), kind in zip(table, kinds, strict=True)]
    if sum(lengths) != len(content):
        raise SystemExit(f"{len(content):,} bytes of weights, not {sum(lengths):,}: unpack the package again")
    start = 0
    for (name, shape, limits), kind, length in zip(table, kinds, lengths, strict=True):
        part = bytearray(content[start : start + length])
        yield Weights(name, np.frombuffer(part, kind).reshape(shape), limits)
        start += length


def tensors_of_faces(weights: list[Weights]) -> dict[str, Tensor]:
    """Return the tensors of a network of face-api by their names in PyTorch."""
    separable = {each.name.rpartition("/")[0] for each in weights if each.name.endswith("pointwise_filter")}
    tensors: dict[str, Tensor] = {}
    for each in weights:
        layer, _, kind = each.name.rpartition("/")
        match kind:
            case "depthwise_filter":
                # Its axes are (height, width, channels, 1): each channel is an output with one input.
                tensors |= stored(f"{layer}/depthwise/weight", each, (2, 3, 0, 1))
            case "pointwise_filter":
                tensors |= stored(f"{layer}/pointwise/weight", each)
            case "bias" if layer in separable:
                tensors |= stored(f"{layer}/pointwise/bias", each)
            case "bias" | "biases":
                tensors |= stored(f"{layer}/bias", each)
            case _:
                tensors |= stored(f"{layer or kind}/weight", each)
    return tensors


def tensors_of_inception(weights: list[Weights]) -> dict[str, Tensor]:
    """Return the tensors before the classifier; Keras numbers its layers in the order of ours."""
    by_name = {each.name: each for each in weights}
    network = inception_network(averages_last=True)
    convolutions = [name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    moments = {"bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    tensors: dict[str, Tensor] = {}
    for number, name in enumerate(convolutions, start=1):
        tensors |= stored(f"{name}/weight", by_name[f"conv2d_{number}/kernel"])
        normalisation = name.removesuffix("conv") + "bn"
        for ours, theirs in moments.items():
            tensors |= stored(f"{normalisation}/{ours}", by_name[f"batch_normalization_{number}/{theirs}"])
        ones = np.ones(by_name[f"batch_normalization_{number}/beta"].values.shape, np.float32)
        tensors |= stored(f"{normalisation}/weight", Weights("", ones, None))  # Keras has no such factor
    return tensors


def stored(name: str, weights: Weights, axes: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    """Return a tensor and its range as they are stored; float32 has no range."""
    values = np.ascontiguousarray(weights.values.transpose(axes or AXES[weights.values.ndim]))
    dotted = name.replace("/", ".")
    tensors = {dotted: torch.from_numpy(values)}
    if weights.limits is not None:
        tensors[dotted + RANGE] = torch.tensor(weights.limits, dtype=torch.float64)
    return tensors


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
