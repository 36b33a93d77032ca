"""Random changes of the images that a discriminator sees: colours, places, holes; differentiable [1].

[1] Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, arXiv 2006.10738.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LARGEST_SHIFT, HOLE = 1 / 16, 1 / 8
"""Shares of the side of an image: how far it is moved, how wide the hole in it is."""


def augmented(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Return images with random colours and places, and holes; differentiable."""
    draws = torch.rand((5, len(images), 1, 1, 1), generator=generator).to(images)
    light, saturation, contrast = draws[0] - 0.5, 2.0 * draws[1], draws[2] + 0.5
    x = images + light
    gray = x.mean(1, keepdim=True)
    x = gray + saturation * (x - gray)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + contrast * (x - mean)
    rows, columns = (places(side).to(x) for side in x.shape[-2:])
    rows, columns = rows[:, None], columns[None, :]
    hole = ((rows - draws[3]).abs() < HOLE / 2) & ((columns - draws[4]).abs() < HOLE / 2)
    return moved(x, generator).masked_fill(hole, 0.0)


def moved(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Return images at random places, in their own colours; differentiable."""
    draws = torch.rand((2, len(images), 1, 1, 1), generator=generator).to(images)
    return shifted(images, (2.0 * draws - 1.0) * LARGEST_SHIFT)


def places(side: int) -> Float[Tensor, " n"]:
    """Return the places of the pixels along a side, from 0 to 1."""
    return (torch.arange(side) + 0.5) / side


def shifted(images: Float[Tensor, "b c h w"], shares: Float[Tensor, "2 b 1 1 1"]) -> Float[Tensor, "b c h w"]:
    """Return each image moved by whole pixels, by a share of its height and its width; zeros come in."""
    height, width = images.shape[-2:]
    down = (shares[0].flatten() * height).round().long().tolist()
    right = (shares[1].flatten() * width).round().long().tolist()
    edge_y, edge_x = math.ceil(LARGEST_SHIFT * height), math.ceil(LARGEST_SHIFT * width)
    padded = F.pad(images, (edge_x, edge_x, edge_y, edge_y))
    moved = [
        image[:, edge_y - dy : edge_y - dy + height, edge_x - dx : edge_x - dx + width]
        for image, dy, dx in zip(padded, down, right, strict=True)
    ]
    return torch.stack(moved)
