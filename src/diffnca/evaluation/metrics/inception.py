"""The network behind published FID and KID numbers: the InceptionV3 of TensorFlow.

The weights come from TensorFlow's archive inception-2015-12-05 and have 1008 classes. The PyTorch file below
is from torch-fidelity, which torchmetrics uses too. pytorch-fid offers equal bytes as
pt_inception-2015-12-05-6726825d.pth. The layers have the names in this file.

The network differs from [1]: average pooling does not count the padding, and the last block pools the maximum
instead of the mean.

[1] Szegedy et al. (2015), Rethinking the Inception architecture for computer vision, arXiv:1512.00567.
"""

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.request import urlopen

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from diffnca.evaluation.metrics.cached import cache_folder
from diffnca.evaluation.metrics.features import as_rgb
from diffnca.files import replace_atomically

INCEPTION_ADDRESS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_SIDE_PX = 299
INCEPTION_CLASSES = 1008
_TIMEOUT_S = 30


class InceptionFid:
    """The 2048 pooled features before the classifier; FID and KID are defined on these features.

    Gray images become RGB. Pixels from 0 to 255 are resized to 299x299 as in TensorFlow 1 (bilinear, corners
    not aligned, not antialiased), then (x - 128) / 128.
    """

    name = "inception_fid"
    preprocessing = "bilinear to 299x299 as in TensorFlow 1, then (x - 128) / 128 of 0 to 255"

    def __init__(self, network: nn.Sequential, checksum: str, device: torch.device | str = "cpu") -> None:
        """Freeze `network`, as `inception_network` makes it, on `device`."""
        frozen = cast(Any, network.eval().requires_grad_(False).to(device))
        self.network = frozen.to(memory_format=torch.channels_last)  # a third faster on a processor
        self.checksum = checksum
        self.device = torch.device(device)

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the features of `images` (1 or 3 channels), float32 on the CPU."""
        x = as_rgb(images, self.name).to(self.device).float()
        x = resized_as_tensorflow(x, INCEPTION_SIDE_PX, INCEPTION_SIDE_PX)
        pooled: Tensor = self.network[:-1]((x - 128) / 128)
        return pooled.cpu()


def inception(weights: Path | None = None, device: torch.device | str = "cpu") -> InceptionFid:
    """Load the network of FID, after a check of its weights.

    `weights` is their file; `None` downloads it (96 MB) once, to ~/.cache/diffnca.
    """
    path = _downloaded() if weights is None else weights
    if not path.is_file():
        raise ValueError(f"{path} is no file: give the path of {INCEPTION_ADDRESS} as --weights")
    content = path.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != INCEPTION_SHA256:
        raise ValueError(
            f"{path} has the checksum {checksum[:12]}, not {INCEPTION_SHA256[:12]}: "
            f"replace it by {INCEPTION_ADDRESS}"
        )
    with torch.device("meta"):  # its own first weights take seconds
        network = inception_network()
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    network.load_state_dict(state, assign=True)
    return InceptionFid(network, checksum, device)


def inception_network() -> nn.Sequential:
    """Return the network with fresh weights: from images in [-1, 1], `b 3 299 299`, to class logits.

    Without its last layer the network returns the 2048 features.
    """
    wide = (3, 3)
    layers: dict[str, nn.Module] = {
        "Conv2d_1a_3x3": _Convolution(3, _Layer(32, wide, stride=2, padding="valid")),
        "Conv2d_2a_3x3": _Convolution(32, _Layer(32, wide, padding="valid")),
        "Conv2d_2b_3x3": _Convolution(32, _Layer(64, wide)),
        "MaxPool_1": nn.MaxPool2d(3, stride=2),
        "Conv2d_3b_1x1": _Convolution(64, _Layer(80)),
        "Conv2d_4a_3x3": _Convolution(80, _Layer(192, wide, padding="valid")),
        "MaxPool_2": nn.MaxPool2d(3, stride=2),
        "Mixed_5b": _block_of_35_px(192, pooled=32),
        "Mixed_5c": _block_of_35_px(256, pooled=64),
        "Mixed_5d": _block_of_35_px(288, pooled=64),
        "Mixed_6a": _block_from_35_to_17_px(288),
        "Mixed_6b": _block_of_17_px(768, inner=128),
        "Mixed_6c": _block_of_17_px(768, inner=160),
        "Mixed_6d": _block_of_17_px(768, inner=160),
        "Mixed_6e": _block_of_17_px(768, inner=192),
        "Mixed_7a": _block_from_17_to_8_px(768),
        "Mixed_7b": _block_of_8_px(1280, _mean_of_neighbours()),
        "Mixed_7c": _block_of_8_px(2048, nn.MaxPool2d(3, stride=1, padding=1)),
        "AvgPool": nn.AdaptiveAvgPool2d(1),
        "Flatten": nn.Flatten(),
        "fc": nn.Linear(2048, INCEPTION_CLASSES),
    }
    return nn.Sequential(OrderedDict(layers))


def resized_as_tensorflow(
    images: Float[Tensor, "b c h w"], height: int, width: int
) -> Float[Tensor, "b c y x"]:
    """Interpolate bilinearly with the operations of TensorFlow 1, in their order.

    Row y of the result lies at row y * h / height of the image: the first rows coincide, the last rows do
    not. There is no antialiasing.
    """
    return _interpolated(_interpolated(images, width, dim=3), height, dim=2)


def _interpolated(x: Float[Tensor, "b c h w"], side: int, dim: int) -> Float[Tensor, "b c y x"]:
    scale = torch.tensor(x.shape[dim] / side, dtype=torch.float32, device=x.device)
    position = torch.arange(side, dtype=torch.float32, device=x.device) * scale
    below = position.long()
    above = (below + 1).clamp(max=x.shape[dim] - 1)
    weight = (position - below).unflatten(0, (-1, *(1,) * (3 - dim)))
    lower, upper = x.index_select(dim, below), x.index_select(dim, above)
    between: Tensor = lower + (upper - lower) * weight
    return between


class _Layer(NamedTuple):
    """A convolution with kernel (y, x); `crossed` adds a parallel convolution with the kernel (x, y)."""

    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "same"
    crossed: bool = False


class _Convolution(nn.Module):
    """A convolution without bias, a batch normalisation and a ReLU."""

    def __init__(self, inputs: int, layer: _Layer) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, layer.channels, layer.kernel, layer.stride, padding=layer.padding, bias=False
        )
        self.bn = nn.BatchNorm2d(layer.channels, eps=0.001)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        rectified: Tensor = self.bn(self.conv(x)).relu_()
        return rectified


class _Block(nn.Module):
    """Parallel chains of convolutions and a pooling; their channels are joined in this order."""

    def __init__(
        self, inputs: int, chains: Mapping[str, Sequence[_Layer]], pool: nn.Module, pooled: int | None = None
    ) -> None:
        """Add the layers; `pooled` is the number of channels after the pooling, `None` keeps them."""
        super().__init__()
        self.chains = [self._add(name, layers, inputs) for name, layers in chains.items()]
        self.pool = pool
        self.branch_pool = nn.Identity() if pooled is None else _Convolution(inputs, _Layer(pooled))

    def _add(self, chain: str, layers: Sequence[_Layer], inputs: int) -> list[list[str]]:
        """Add the layers of a chain; return the names of the layers in each place."""
        places = []
        for number, layer in enumerate(layers, start=1):
            name = f"{chain}_{number}" if len(layers) > 1 else chain
            sides = {name: layer}
            if layer.crossed:
                sides = {f"{name}a": layer, f"{name}b": layer._replace(kernel=layer.kernel[::-1])}
            for side, sided in sides.items():
                self.add_module(side, _Convolution(inputs, sided))
            inputs = layer.channels
            places.append(list(sides))
        return places

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        joined = []
        for places in self.chains:
            y = x
            for names in places:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            joined.append(y)
        return torch.cat([*joined, self.branch_pool(self.pool(x))], 1)


def _mean_of_neighbours() -> nn.Module:
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


def _block_of_35_px(inputs: int, pooled: int) -> _Block:
    chains = {
        "branch1x1": [_Layer(64)],
        "branch5x5": [_Layer(48), _Layer(64, (5, 5))],
        "branch3x3dbl": [_Layer(64), _Layer(96, (3, 3)), _Layer(96, (3, 3))],
    }
    return _Block(inputs, chains, _mean_of_neighbours(), pooled)


def _block_from_35_to_17_px(inputs: int) -> _Block:
    chains = {
        "branch3x3": [_Layer(384, (3, 3), 2, "valid")],
        "branch3x3dbl": [_Layer(64), _Layer(96, (3, 3)), _Layer(96, (3, 3), 2, "valid")],
    }
    return _Block(inputs, chains, nn.MaxPool2d(3, stride=2))


def _block_of_17_px(inputs: int, inner: int) -> _Block:
    flat, tall = (1, 7), (7, 1)
    double = [_Layer(inner), _Layer(inner, tall), _Layer(inner, flat), _Layer(inner, tall), _Layer(192, flat)]
    chains = {
        "branch1x1": [_Layer(192)],
        "branch7x7": [_Layer(inner), _Layer(inner, flat), _Layer(192, tall)],
        "branch7x7dbl": double,
    }
    return _Block(inputs, chains, _mean_of_neighbours(), pooled=192)


def _block_from_17_to_8_px(inputs: int) -> _Block:
    last = ((3, 3), 2, "valid")
    chains = {
        "branch3x3": [_Layer(192), _Layer(320, *last)],
        "branch7x7x3": [_Layer(192), _Layer(192, (1, 7)), _Layer(192, (7, 1)), _Layer(192, *last)],
    }
    return _Block(inputs, chains, nn.MaxPool2d(3, stride=2))


def _block_of_8_px(inputs: int, pool: nn.Module) -> _Block:
    crossed = _Layer(384, (1, 3), crossed=True)
    chains = {
        "branch1x1": [_Layer(320)],
        "branch3x3": [_Layer(384), crossed],
        "branch3x3dbl": [_Layer(448), _Layer(384, (3, 3)), crossed],
    }
    return _Block(inputs, chains, pool, pooled=192)


def _downloaded() -> Path:
    """Return the weights in the user's cache, after downloading them if they are missing."""
    path = cache_folder() / INCEPTION_ADDRESS.rpartition("/")[2]
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urlopen(INCEPTION_ADDRESS, timeout=_TIMEOUT_S) as response:
            content: bytes = response.read()
    except (OSError, HTTPException) as error:
        raise ValueError(
            f"{INCEPTION_ADDRESS} cannot be downloaded ({error}): "
            "fetch it by hand and give its path as --weights"
        ) from error
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != INCEPTION_SHA256:
        raise ValueError(
            f"{INCEPTION_ADDRESS} came with the checksum {checksum[:12]}, not {INCEPTION_SHA256[:12]}: "
            "repeat the download, or fetch it by hand and give its path as --weights"
        )
    with replace_atomically(path) as partial:
        partial.write_bytes(content)
    return path
