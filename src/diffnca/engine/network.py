"""A network whose image stage runs in blocks on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffnca.engine.cpu import BlockedCells
from diffnca.engine.workers import Workers
from diffnca.geometry import Canvas, Region
from diffnca.models.diff_nca import DiffNCA, prediction
from diffnca.models.fourier_diff_nca import FourierDiffNCA
from diffnca.models.patches import PatchGrid
from diffnca.noise import CellNoise


class BlockedNetwork(nn.Module):
    """Does what its network does, with the image stage in blocks: to the bit alike on any tile, in any batch.

    The weights of the image stage are copied; a network that has been trained on must be made ready again.

    Attributes:
        network: the network itself.
        config: the choices it was built from.
        image_channels: channels of the images.
        radius: pixels that one output pixel can see in each direction, the context being given.
    """

    def __init__(self, network: DiffNCA | FourierDiffNCA, dtype: torch.dtype) -> None:
        """Make `network` ready for matrix products in `dtype`."""
        super().__init__()
        self.network = network
        self.config = network.config
        self.image_channels = network.image_channels
        self.radius = network.radius
        self.image = BlockedCells(network.image, dtype)

    def context(self, x_t: Tensor, t: Tensor, region: Region) -> Tensor | None:
        """Return what must be known of the whole canvas; additive over the parts of it."""
        context: Tensor | None = self.network.context(x_t, t, region)
        return context

    def forward(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        noise: CellNoise | None = None,
        context: Tensor | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction; the arguments are those of the network."""
        region = region or Canvas(*x_t.shape[-2:]).whole
        grid = PatchGrid(region, self.config.patch)
        state = grid.gather(x_t.float())
        if isinstance(self.network, FourierDiffNCA):
            state = torch.cat([state, self._hidden(self.network, state, t, region, noise, context)], dim=1)
        final = self.image.run(state, t, grid.cells, noise)
        return grid.scatter(prediction(final, self.config.cell_image_channels))

    def _hidden(
        self,
        network: FourierDiffNCA,
        x_t: Tensor,
        t: Tensor,
        region: Region,
        noise: CellNoise | None,
        context: Tensor | None,
    ) -> Float[Tensor, "b hidden h w"]:
        """Return what the Fourier stage draws on `region`, image by image, each by a single thread."""
        if context is None:
            if not (region.is_whole_y and region.is_whole_x):
                raise ValueError(
                    f"context=None on a region of {region.height}x{region.width} px: must be the sum of "
                    "network.context over the canvas; give it"
                )
            context = network.context(x_t, t, region)
        spectra: list[Tensor] = [torch.empty(0)] * len(x_t)

        def work(image: int) -> None:
            own = None if noise is None else ImageNoise(noise, image)
            one = slice(image, image + 1)
            spectra[image] = network.transform(context[one], t[one].float(), region.canvas, own)

        with Workers() as workers:
            workers.each(work, range(len(x_t)))
        with torch.no_grad():
            return network.draw(torch.cat(spectra), region, x_t.dtype)


@dataclass(frozen=True)
class ImageNoise:
    """The masks of one image of a batch."""

    noise: CellNoise
    image: int

    def mask(self, cell_step: int, region: Region, probability: float) -> Bool[Tensor, "1 1 h w"]:
        """Return true where a cell of `region` updates in this cell step."""
        return self.noise.mask(cell_step, region, probability)[self.image : self.image + 1]
