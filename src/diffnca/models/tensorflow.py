"""What networks of TensorFlow need: their weights of 8 bits, and how they enlarge images.

`benchmarks/judges.py` writes the weights as bytes, with a scale and a least value. A tensor without a range
holds float32 weights. The weight of a byte is `byte * scale + least`, computed in float64 and rounded to
float32, as in TensorFlow.js, for which these weights were published.
"""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load
from torch import Tensor

from diffnca.models.classifiers import known_checksum

RANGE = ":range"
"""Ending of the name of the tensor that holds the scale and the least value of another tensor."""


def read_eight_bits(path: Path, expected: str, remedy: str) -> tuple[dict[str, Tensor], str]:
    """Return the float32 weights of a safetensors file, and its SHA-256, which must be `expected`.

    `remedy` says how to get the right file.

    Raises:
        ValueError: there is no such file, or it is another one.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file: {remedy}")
    content = path.read_bytes()
    checksum = known_checksum(content, expected, f"{path} has", remedy)
    found = load(content)
    weights = {
        name: as_float(tensor, found[name + RANGE]) if name + RANGE in found else tensor
        for name, tensor in found.items()
        if not name.endswith(RANGE)
    }
    return weights, checksum


def as_float(levels: UInt8[Tensor, "*shape"], limits: Float[Tensor, " 2"]) -> Float[Tensor, "*shape"]:
    """Return the weights of bytes; `limits` holds the scale and the least value."""
    return (levels.double() * limits[0] + limits[1]).float()


def resized_as_tensorflow(
    images: Float[Tensor, "b c h w"], height: int, width: int
) -> Float[Tensor, "b c y x"]:
    """Interpolate bilinearly with the operations of TensorFlow 1, in their order, without antialiasing.

    Row y of the result lies at row y * h / height of the image: only the first rows coincide.
    """
    x = images
    for dim, side in ((3, width), (2, height)):
        scale = torch.tensor(x.shape[dim] / side, dtype=torch.float32, device=x.device)
        position = torch.arange(side, dtype=torch.float32, device=x.device) * scale
        below = position.long()
        above = (below + 1).clamp(max=x.shape[dim] - 1)
        weight = (position - below).unflatten(0, (-1, *(1,) * (3 - dim)))
        lower, upper = x.index_select(dim, below), x.index_select(dim, above)
        x = lower + (upper - lower) * weight
    return x
