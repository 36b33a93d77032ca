"""Two networks that look at faces: who it is (128 numbers), and where 68 points of it are (136 numbers).

Both come from face-api (MIT licence). The faces must be aligned as in CelebA, in square images. The networks
see the square that the rule of [1] gives for CelebA. It puts the mean of eyes and mouth at 0.50 and 0.43 of
the square, across and down, and makes the side 1 / 0.45 times the distance from eyes to mouth.

[1] `FaceLandmarks.align` of face-api, with the alignment of Dlib.
[2] King (2009), Dlib-ml, JMLR 10: the descriptor is the network of Dlib.
[3] Howard et al. (2017), MobileNets, arXiv:1704.04861: separable convolutions.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffnca.evaluation.metrics.eight_bits import made_from, read_eight_bits
from diffnca.evaluation.metrics.features import RgbFeatures, user_cache, with_weights
from diffnca.evaluation.metrics.inception import resized_as_tensorflow

DESCRIPTOR_SHA256 = "179bfb99b6ed6ab4cae988c1b01aedb703b79b34c4c6e38933137551d319e924"
LANDMARKS_SHA256 = "ab9074ccec821882a7f28f4d62bfc77ba81192920baab9381859ef7a27eac60f"
LANDMARKS_FILE = Path(__file__).with_name("face_landmarks.safetensors")
FACE_LEFT, FACE_TOP, FACE_SIDE = 0.195, 0.334, 0.583
"""The square in sides of the image, from the mean landmarks of 200 faces of CelebA."""

MEAN_RGB = (122.782, 117.001, 104.298)

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


class _Separable(nn.Module):
    """A convolution of each channel by itself, then one over the channels [3]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=2 - stride, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        mixed: Tensor = self.pointwise(self.depthwise(_padded(x) if self.stride == 2 else x))
        return mixed


def _padded(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c y x"]:
    """Append a row and a column: where TensorFlow pads an even side for a stride of 2."""
    return functional.pad(x, (0, 1, 0, 1))


class _Dense(nn.Module):
    """Four convolutions, each of which reads the sum of all before it; the first halves the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.is_first = inputs == 3
        self.conv0 = nn.Conv2d(3, outputs, 3, 2) if self.is_first else _Separable(inputs, outputs, 2)
        self.conv1, self.conv2, self.conv3 = (_Separable(outputs, outputs) for _ in range(3))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k y x"]:
        total = self.conv0(_padded(x) if self.is_first else x).relu()
        first, second = total, self.conv1(total)
        third = self.conv2((first + second).relu())
        fourth = self.conv3((first + second + third).relu())
        joined: Tensor = (first + second + third + fourth).relu()
        return joined


def landmark_network() -> nn.Sequential:
    """Return the network of the landmarks with fresh weights: from `b 3 112 112` to `b 136` (x, y, x ...)."""
    sizes = ((3, 32), (32, 64), (64, 128), (128, 256))
    layers: dict[str, nn.Module] = {f"dense{k}": _Dense(*size) for k, size in enumerate(sizes)}
    layers |= {"mean": nn.AvgPool2d(7, 2), "flatten": nn.Flatten(), "fc": nn.Linear(256, 136)}
    return nn.Sequential(OrderedDict(layers))


class _FaceFeatures(RgbFeatures):
    """The output of a network for the face in each image, resized to `side_px`."""

    side_px: int

    def pooled(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of pixels from 0 to 255; refuse images that are not square."""
        return self.of_faces(face_of(x))

    def of_faces(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the features of square cuts of faces, pixels from 0 to 255."""
        mean = torch.tensor(MEAN_RGB, device=x.device)[:, None, None]
        features: Tensor = self.network((resized_as_tensorflow(x, self.side_px, self.side_px) - mean) / 255)
        return features


def face_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c k k"]:
    """Return the square with the face, of images aligned as in CelebA."""
    height, width = x.shape[2:]
    if height != width:
        raise ValueError(
            f"images of {height}x{width} px: the judges of faces read squares, aligned as in CelebA; make "
            "them square, or choose other --features"
        )
    left, top, side = (round(share * width) for share in (FACE_LEFT, FACE_TOP, FACE_SIDE))
    return x[:, :, top : top + side, left : left + side]


class FaceDescriptor(_FaceFeatures):
    """The 128 numbers by which face-api tells people apart [2]: near for one person, far for two."""

    name = "face_descriptor"
    preprocessing = f"{_OF_FACES} 150x150, minus the mean colour, / 255"
    side_px = 150


class FaceLandmarks(_FaceFeatures):
    """Places of 68 points of a face: x and y in sides of its square, from the top left."""

    name = "face_landmarks"
    preprocessing = f"{_OF_FACES} 112x112, minus the mean colour, / 255"
    side_px = 112


def face_descriptor(weights: Path | None = None, device: torch.device | str = "cpu") -> FaceDescriptor:
    """Load the descriptor from `weights`; `None` looks in ~/.cache/diffnca."""
    path = user_cache() / "face_descriptor.safetensors" if weights is None else weights
    state, checksum = read_eight_bits(path, DESCRIPTOR_SHA256, made_from("@vladmandic/face-api@1.7.15"))
    return FaceDescriptor(with_weights(descriptor_network, state), checksum, device)


def face_landmarks(device: torch.device | str = "cpu") -> FaceLandmarks:
    """Load the landmarks from the package."""
    state, checksum = read_eight_bits(LANDMARKS_FILE, LANDMARKS_SHA256, "install diffnca again")
    return FaceLandmarks(with_weights(landmark_network, state), checksum, device)
