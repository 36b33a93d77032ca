"""The UNet of other diffusion models, with the members of our networks: a baseline to compare with.

[1] Ho et al., "Denoising Diffusion Probabilistic Models", 2020: the architecture, as diffusers has it.
"""

import importlib
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import UNetConfig


class UNet(nn.Module):
    """`UNet2DModel` of diffusers, which sees the complete image: without a radius, and without a context."""

    radius: int | None = None
    has_context = False

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.image_channels = config.image_channels
        self.unet = _unet2d(config)

    @property
    def checkpoint_cells(self) -> bool:
        """Whether the backward pass computes blocks again, to save memory."""
        return bool(self.unet.is_gradient_checkpointing)

    @checkpoint_cells.setter
    def checkpoint_cells(self, wanted: bool) -> None:
        if wanted:
            self.unet.enable_gradient_checkpointing()
        else:
            self.unet.disable_gradient_checkpointing()

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that training compiles."""
        return [self.unet]

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of all levels, without the first and the last layer and the time embedding."""
        return [*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks]

    def context(self, x_t: Tensor, t: Tensor, region: Region, given: Tensor | None = None) -> None:
        """Return no context."""

    def forward(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        noise: CellNoise | None = None,
        context: Tensor | None = None,
        given: Tensor | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction for `x_t` at time `t` in [0, 1); `noise` and `context` are not used.

        Raises:
            ValueError: the image is a part, is seamless, or cannot be halved; or planes are given.
        """
        if given is not None:
            raise ValueError("given planes: a UNet sees none; take a model of cells")
        canvas = region.canvas if region is not None else Canvas(*x_t.shape[-2:])
        if region is not None and region != canvas.whole:
            raise ValueError(f"region of {region.height}x{region.width} px: a UNet must see the whole image")
        if "circular" in canvas.boundary:
            raise ValueError("seamless images: a UNet makes none; take a model of cells")
        divisor = self.config.divisor
        if canvas.height % divisor or canvas.width % divisor:
            raise ValueError(
                f"image of {canvas.height}x{canvas.width} px: must have sides that are multiples of "
                f"{divisor} px for this UNet"
            )
        output: Tensor = self.unet(x_t, 1000.0 * t, return_dict=False)[0]  # diffusers counts 1000 steps
        return output


def _unet2d(config: UNetConfig) -> Any:
    try:
        diffusers = importlib.import_module("diffusers")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a UNet needs the package {error.name}: pip install 'diffnca[baselines]'"
        ) from error
    plain, attention = len(config.channels) - config.attention, int(config.attention)
    return diffusers.UNet2DModel(
        in_channels=config.image_channels,
        out_channels=config.image_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attention,
        up_block_types=("AttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
    )
