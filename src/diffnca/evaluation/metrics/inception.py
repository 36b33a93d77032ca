"""The network behind published FID and KID numbers, the InceptionV3 of TensorFlow; and one of other weights.

The weights come from TensorFlow's archive inception-2015-12-05 and have 1008 classes. The PyTorch file below
is from torch-fidelity; pytorch-fid offers equal bytes. The layers have the names in this file. Unlike [1],
average pooling does not count the padding, and the last block pools the maximum.

The network of nsfwjs (npm, MIT licence) has the layers of Keras, whose last block pools the average. It began
with weights of ImageNet, and learnt to sort photos and drawings by decency.

[1] Szegedy et al. (2015), Rethinking the Inception architecture for computer vision, arXiv:1512.00567.
"""

import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffnca.evaluation.metrics.features import RgbFeatures, made_from, user_cache
from diffnca.files import replace_atomically
from diffnca.models.classifiers import known_checksum, with_weights
from diffnca.models.tensorflow import read_eight_bits, resized_as_tensorflow

INCEPTION_ADDRESS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NSFWJS_SHA256 = "ce2304fd14fda7d5dc52bd9f2027b75b1eb6112e4e73ef4900e187f3434b9441"


class _Layer(NamedTuple):
    """A convolution with kernel (y, x); `crossed` adds a parallel convolution with the kernel (x, y)."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "same"
    crossed: bool = False


class _Convolution(nn.Module):
    def __init__(self, inputs: int, layer: _Layer) -> None:
        super().__init__()
        channels, kernel, stride, padding, _ = layer
        self.conv = nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        rectified: Tensor = self.bn(self.conv(x)).relu_()
        return rectified


class _Block(nn.Module):
    """Parallel chains of convolutions, then a pooling to `pooled` channels (`None` keeps them), joined."""

    def __init__(
        self, inputs: int, chains: Mapping[str, Sequence[_Layer]], pool: nn.Module, pooled: int | None = None
    ) -> None:
        super().__init__()
        self.chains = [self._add(name, layers, inputs) for name, layers in chains.items()]
        self.pool = pool
        self.branch_pool = nn.Identity() if pooled is None else _Convolution(inputs, _Layer(pooled))

    def _add(self, chain: str, layers: Sequence[_Layer], inputs: int) -> list[list[_Convolution]]:
        places = []
        for number, layer in enumerate(layers, start=1):
            name = f"{chain}_{number}" if len(layers) > 1 else chain
            sides = {name: _Convolution(inputs, layer)}
            if layer.crossed:
                turned = layer._replace(kernel=layer.kernel[::-1])
                sides = {f"{name}a": sides[name], f"{name}b": _Convolution(inputs, turned)}
            for side, convolution in sides.items():
                self.add_module(side, convolution)
            inputs = layer.channels
            places.append(list(sides.values()))
        return places

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        joined = []
        for places in self.chains:
            y = x
            for sides in places:
                y = torch.cat([convolution(y) for convolution in sides], 1)
            joined.append(y)
        return torch.cat([*joined, self.branch_pool(self.pool(x))], 1)


_OF_35_PX = {
    "branch1x1": [_Layer(64)],
    "branch5x5": [_Layer(48), _Layer(64, (5, 5))],
    "branch3x3dbl": [_Layer(64), _Layer(96, (3, 3)), _Layer(96, (3, 3))],
}
_FROM_35_TO_17_PX = {
    "branch3x3": [_Layer(384, (3, 3), 2, "valid")],
    "branch3x3dbl": [_Layer(64), _Layer(96, (3, 3)), _Layer(96, (3, 3), 2, "valid")],
}
_FROM_17_TO_8_PX = {
    "branch3x3": [_Layer(192), _Layer(320, (3, 3), 2, "valid")],
    "branch7x7x3": [_Layer(192), _Layer(192, (1, 7)), _Layer(192, (7, 1)), _Layer(192, (3, 3), 2, "valid")],
}
_OF_8_PX = {
    "branch1x1": [_Layer(320)],
    "branch3x3": [_Layer(384), _Layer(384, (1, 3), crossed=True)],
    "branch3x3dbl": [_Layer(448), _Layer(384, (3, 3)), _Layer(384, (1, 3), crossed=True)],
}


def _of_17_px(inner: int) -> dict[str, list[_Layer]]:
    flat, tall = (1, 7), (7, 1)
    double = [_Layer(inner), _Layer(inner, tall), _Layer(inner, flat), _Layer(inner, tall), _Layer(192, flat)]
    return {
        "branch1x1": [_Layer(192)],
        "branch7x7": [_Layer(inner), _Layer(inner, flat), _Layer(192, tall)],
        "branch7x7dbl": double,
    }


class InceptionFid(RgbFeatures):
    """The 2048 features before the classifier of `inception_network`; FID and KID are defined on these."""

    name = "inception_fid"
    preprocessing = "bilinear to 299x299 as in TensorFlow 1, then (x - 128) / 128 of 0 to 255"

    def pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of pixels from 0 to 255."""
        features: Tensor = self.network[:-1]((resized_as_tensorflow(x, 299, 299) - 128) / 128)
        return features


def inception(weights: Path | None = None, device: torch.device | str = "cpu") -> InceptionFid:
    """Load the network of FID from `weights`; `None` downloads them (96 MB) once, to ~/.cache/diffnca."""
    path = _downloaded() if weights is None else weights
    if not path.is_file():
        raise ValueError(f"{path} is no file: give the path of {INCEPTION_ADDRESS} as --weights")
    content = path.read_bytes()
    remedy = f"replace it by {INCEPTION_ADDRESS}"
    checksum = known_checksum(content, INCEPTION_SHA256, f"{path} has", remedy)
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return InceptionFid(with_weights(inception_network, state), checksum, device)


class InceptionNsfwjs(RgbFeatures):
    """The 2048 features before the classifier of the network of nsfwjs, an InceptionV3 of Keras."""

    name = "inception_nsfwjs"
    preprocessing = "bilinear to 299x299 with the corners in place, then [0, 1]"

    def pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of pixels from 0 to 255."""
        resized = functional.interpolate(x / 255, (299, 299), mode="bilinear", align_corners=True)
        features: Tensor = self.network(resized)
        return features


def inception_nsfwjs(weights: Path | None = None, device: torch.device | str = "cpu") -> InceptionNsfwjs:
    """Load the network of nsfwjs from `weights`; `None` looks in ~/.cache/diffnca."""
    path = user_cache() / "inception_nsfwjs.safetensors" if weights is None else weights
    state, checksum = read_eight_bits(path, NSFWJS_SHA256, made_from("nsfwjs@4.3.0"))
    network = with_weights(lambda: inception_network(averages_last=True)[:-1], state)
    return InceptionNsfwjs(network, checksum, device)


def inception_network(averages_last: bool = False) -> nn.Sequential:
    """Return the network with fresh weights: from images, `b 3 299 299`, to class logits.

    `averages_last` lets the last block pool the average, as in Keras, instead of the maximum.
    """
    wide, mean = (3, 3), nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    last = mean if averages_last else nn.MaxPool2d(3, stride=1, padding=1)
    layers: dict[str, nn.Module] = {
        "Conv2d_1a_3x3": _Convolution(3, _Layer(32, wide, 2, "valid")),
        "Conv2d_2a_3x3": _Convolution(32, _Layer(32, wide, padding="valid")),
        "Conv2d_2b_3x3": _Convolution(32, _Layer(64, wide)),
        "MaxPool_1": nn.MaxPool2d(3, stride=2),
        "Conv2d_3b_1x1": _Convolution(64, _Layer(80)),
        "Conv2d_4a_3x3": _Convolution(80, _Layer(192, wide, padding="valid")),
        "MaxPool_2": nn.MaxPool2d(3, stride=2),
        "Mixed_5b": _Block(192, _OF_35_PX, mean, 32),
        "Mixed_5c": _Block(256, _OF_35_PX, mean, 64),
        "Mixed_5d": _Block(288, _OF_35_PX, mean, 64),
        "Mixed_6a": _Block(288, _FROM_35_TO_17_PX, nn.MaxPool2d(3, stride=2)),
        "Mixed_6b": _Block(768, _of_17_px(128), mean, 192),
        "Mixed_6c": _Block(768, _of_17_px(160), mean, 192),
        "Mixed_6d": _Block(768, _of_17_px(160), mean, 192),
        "Mixed_6e": _Block(768, _of_17_px(192), mean, 192),
        "Mixed_7a": _Block(768, _FROM_17_TO_8_PX, nn.MaxPool2d(3, stride=2)),
        "Mixed_7b": _Block(1280, _OF_8_PX, mean, 192),
        "Mixed_7c": _Block(2048, _OF_8_PX, last, 192),
        "AvgPool": nn.AdaptiveAvgPool2d(1),
        "Flatten": nn.Flatten(),
        "fc": nn.Linear(2048, 1008),
    }
    return nn.Sequential(OrderedDict(layers))


def _downloaded() -> Path:
    path = user_cache() / INCEPTION_ADDRESS.rpartition("/")[2]
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urlopen(INCEPTION_ADDRESS, timeout=30.0) as response:
            content: bytes = response.read()
    except (OSError, HTTPException) as error:
        raise ValueError(
            f"{INCEPTION_ADDRESS} cannot be downloaded ({error}): "
            "fetch it by hand and give its path as --weights"
        ) from error
    remedy = "repeat the download, or fetch it by hand and give its path as --weights"
    known_checksum(content, INCEPTION_SHA256, f"{INCEPTION_ADDRESS} came with", remedy)
    with replace_atomically(path) as partial:
        partial.write_bytes(content)
    return path
