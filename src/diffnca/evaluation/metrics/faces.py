"""Two networks that look at faces: who it is (128 numbers), and where 68 points of it are (136 numbers).

Both come from face-api (MIT licence). The faces must be aligned as in CelebA, in square images.

[1] King (2009), Dlib-ml, JMLR 10: the descriptor is the network of Dlib.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffnca.evaluation.metrics.features import RgbFeatures, made_from, user_cache
from diffnca.models.classifiers import with_weights
from diffnca.models.face_networks import SIDE_PX, face_of, landmark_network, normalised
from diffnca.models.tensorflow import read_eight_bits

DESCRIPTOR_SHA256 = "179bfb99b6ed6ab4cae988c1b01aedb703b79b34c4c6e38933137551d319e924"
LANDMARKS_SHA256 = "ab9074ccec821882a7f28f4d62bfc77ba81192920baab9381859ef7a27eac60f"
LANDMARKS_FILE = Path(__file__).with_name("face_landmarks.safetensors")
_OF_FACES = "square of the face in an image aligned as in CelebA, bilinear as in TensorFlow 1 to"


class _Scale(nn.Module):
    """Multiply each channel by a weight and add a bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class _Scaled(nn.Module):
    """A convolution and a scale; one with a stride pads nothing."""

    def __init__(self, inputs: int, outputs: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2 if stride == 1 else 0)
        self.scale = _Scale(outputs)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        scaled: Tensor = self.scale(self.conv(x))
        return scaled


class _Residual(nn.Module):
    """Two convolutions beside the input; a block with a stride of 2 averages the input over 2x2 pixels.

    The smaller side of the sum gets zeros: channels of the input, last row and column of the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _Scaled(inputs, outputs, stride=stride)
        self.conv2 = _Scaled(outputs, outputs)
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        y = self.conv2(self.conv1(x).relu())
        if self.stride == 2:
            x = functional.avg_pool2d(x, 2)
            x = functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = functional.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        rectified: Tensor = (x + y).relu()
        return rectified


def descriptor_network() -> nn.Sequential:
    """Return the network of the descriptor with fresh weights: from `b 3 150 150` to `b 128`."""
    layers: dict[str, nn.Module] = {
        "conv32_down": _Scaled(3, 32, 7, stride=2),
        "relu": nn.ReLU(),
        "pool": nn.MaxPool2d(3, 2),
        **{f"conv32_{k}": _Residual(32, 32) for k in (1, 2, 3)},
    }
    for inputs, outputs, count in ((32, 64, 3), (64, 128, 2), (128, 256, 2)):
        layers[f"conv{outputs}_down"] = _Residual(inputs, outputs, 2)
        layers |= {f"conv{outputs}_{k}": _Residual(outputs, outputs) for k in range(1, count + 1)}
    layers |= {
        "conv256_down_out": _Residual(256, 256, 2),
        "mean": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "fc": nn.Linear(256, 128, bias=False),
    }
    return nn.Sequential(OrderedDict(layers))


class _FaceFeatures(RgbFeatures):
    """The output of a network for the face in each image, resized to `side_px`."""

    side_px: int

    def pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of pixels from 0 to 255; refuse images that are not square."""
        return self.of_faces(face_of(x))

    def of_faces(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of square cuts of faces, pixels from 0 to 255."""
        features: Tensor = self.network(normalised(x, self.side_px))
        return features


class FaceDescriptor(_FaceFeatures):
    """The 128 numbers by which face-api tells people apart [2]: near for one person, far for two."""

    name = "face_descriptor"
    preprocessing = f"{_OF_FACES} 150x150, minus the mean colour, / 255"
    side_px = 150


class FaceLandmarks(_FaceFeatures):
    """Places of 68 points of a face: x and y in sides of its square, from the top left."""

    name = "face_landmarks"
    preprocessing = f"{_OF_FACES} 112x112, minus the mean colour, / 255"
    side_px = SIDE_PX


def face_descriptor(weights: Path | None = None, device: torch.device | str = "cpu") -> FaceDescriptor:
    """Load the descriptor from `weights`; `None` looks in ~/.cache/diffnca."""
    path = user_cache() / "face_descriptor.safetensors" if weights is None else weights
    state, checksum = read_eight_bits(path, DESCRIPTOR_SHA256, made_from("@vladmandic/face-api@1.7.15"))
    return FaceDescriptor(with_weights(descriptor_network, state), checksum, device)


def face_landmarks(device: torch.device | str = "cpu") -> FaceLandmarks:
    """Load the landmarks from the package."""
    state, checksum = read_eight_bits(LANDMARKS_FILE, LANDMARKS_SHA256, "install diffnca again")
    return FaceLandmarks(with_weights(landmark_network, state), checksum, device)
