"""Weights of a page: 16 bits each, or 8 bits and a factor for each output channel, in a compressed file."""

import gzip
from collections.abc import Mapping
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor

Weights = Literal["float16", "int8"]

LARGEST_INT8 = 127
"""The largest of the whole numbers that stand for weights, here and in ONNX files."""

BITS_OF_FACTOR = 4


def packed(tensors: Mapping[str, Tensor], weights: Weights, header: Mapping[str, str]) -> bytes:
    """Return a safetensors file, compressed by gzip; tensors in float32 stay so.

    With `int8`, a matrix is stored as whole numbers from -127 to 127, and its factors under its name with
    ".factor".
    """
    stored = {}
    for name, tensor in tensors.items():
        if weights == "int8" and tensor.ndim > 1:
            stored[name], stored[f"{name}.factor"] = eight_bits(tensor)
        else:
            stored[name] = tensor.contiguous()
    return gzip.compress(save(stored, dict(header)), mtime=0)


def eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return whole numbers from -127 to 127, and a factor for each output channel.

    A factor has 4 bits. So each product has 11 bits, as float16 has, and graphics cards lose nothing.
    """
    largest = weight.float().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    mantissa, exponent = torch.frexp(largest / LARGEST_INT8)
    rounded = torch.ldexp((mantissa * 2**BITS_OF_FACTOR).ceil(), exponent - BITS_OF_FACTOR)
    factor = torch.where(largest > 0.0, rounded, 1.0)
    return (weight / factor).round().to(torch.int8), factor.to(torch.float16)
