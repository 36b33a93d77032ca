"""Coarser images as given planes: the colours of each place, and how far these colours are trusted.

Colours are noised, and cells see by how much, so they can follow colours that another model has made [1].

[1] Ho et al., "Cascaded Diffusion Models for High Fidelity Image Generation", 2022, section 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def coarse_planes(
    colours: Float[Tensor, "b c y x"],
    noise: Float[Tensor, "b c y x"],
    trust: Float[Tensor, " b"],
    factor: int,
) -> Float[Tensor, "b c_1 h w"]:
    """Return the planes of an image that is `factor` times smaller than its canvas.

    `trust` is from 0 (colours are unknown, all planes are 0) to 1 (no noise); it is the last plane. `noise`
    has variance 1, its deviation becomes `1 - trust`. A colour fills a square of pixels.
    """
    trust = trust[:, None, None, None].to(colours)
    shown = trust * (colours + (1.0 - trust) * noise)
    planes = torch.cat([shown, trust.expand_as(shown[:, :1])], dim=1)
    return planes.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
