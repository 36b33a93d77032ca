"""Networks of face-api (MIT licence) for faces in square images that are aligned as in CelebA.

The networks see the square that the rule of [1] gives for CelebA. It puts the mean of eyes and mouth at 0.50
and 0.43 of the square, across and down, and makes the side 1 / 0.45 times the distance from eyes to mouth.
Evaluation looks at landmarks, training at expressions: a network that trains a model may not judge it.

[1] `FaceLandmarks.align` of face-api, with the alignment of Dlib.
[2] Howard et al. (2017), MobileNets, arXiv:1704.04861: separable convolutions.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffnca.models.tensorflow import resized_as_tensorflow

FACE_LEFT, FACE_TOP, FACE_SIDE = 0.195, 0.334, 0.583
"""The square in sides of the image, from the mean landmarks of 200 faces of CelebA."""

MEAN_RGB = (122.782, 117.001, 104.298)

SIDE_PX = 112
"""Side of the squares that networks of dense blocks see."""


class _Separable(nn.Module):
    """A convolution of each channel by itself, then one over the channels [2]."""

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


def dense_network(outputs: int) -> nn.Sequential:
    """Return four dense blocks and a layer with fresh weights: from `b 3 112 112` to `b outputs`."""
    sizes = ((3, 32), (32, 64), (64, 128), (128, 256))
    layers: dict[str, nn.Module] = {f"dense{k}": _Dense(*size) for k, size in enumerate(sizes)}
    layers |= {"mean": nn.AvgPool2d(7, 2), "flatten": nn.Flatten(), "fc": nn.Linear(256, outputs)}
    return nn.Sequential(OrderedDict(layers))


def landmark_network() -> nn.Sequential:
    """Return the network of 68 landmarks: `b 136` (x, y, x ...)."""
    return dense_network(136)


def expression_network() -> nn.Sequential:
    """Return the network of expressions: `b 7` logits, from neutral and happy to surprised."""
    return dense_network(7)


def face_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c k k"]:
    """Return the square with the face, of images aligned as in CelebA."""
    height, width = x.shape[2:]
    if height != width:
        raise ValueError(
            f"images of {height}x{width} px: networks for faces read squares, aligned as in CelebA; make "
            "them square, or choose other --features"
        )
    left, top, side = (round(share * width) for share in (FACE_LEFT, FACE_TOP, FACE_SIDE))
    return x[:, :, top : top + side, left : left + side]


def normalised(faces: Float[Tensor, "b 3 h w"], side_px: int) -> Float[Tensor, "b 3 side_px side_px"]:
    """Return squares with faces, pixels from 0 to 255, as networks of face-api read them."""
    mean = torch.tensor(MEAN_RGB, device=faces.device)[:, None, None]
    return (resized_as_tensorflow(faces, side_px, side_px) - mean) / 255
