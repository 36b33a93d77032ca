"""A network whose cells are updated in blocks."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.engine.threads import computing_alone
from diffnca.networks.diff_nca import DiffNCA, prediction
from diffnca.networks.fourier import Window
from diffnca.networks.fourier_diff_nca import FourierDiffNCA
from diffnca.networks.patches import PatchGrid


@runtime_checkable
class ReadyCells(Protocol):
    """A cell rule made ready for one kind of processor."""

    def run(
        self,
        state: Tensor,
        t: Tensor,
        region: Region,
        noise: CellNoise | None,
        origin: tuple[int, int] | None = None,
        first_mask: int = 0,
    ) -> Float[Tensor, "b c h w"]:
        """Return the state after all cell steps, as `diffnca.networks.cell.run_cells` does."""
        ...


class BlockedNetwork(nn.Module):
    """Does what its network does, in blocks of cells: to the bit alike on any tile, in any batch.

    The weights of the cell rules are copied; a network that has been trained on must be made ready again.

    Attributes:
        network: the network itself.
        config: the choices it was built from.
        image_channels: channels of the images.
        radius: pixels that one output pixel can see in each direction, the context being given.
        has_context: whether it must know something of the whole canvas, which `context` sums up.
    """

    def __init__(
        self, network: DiffNCA | FourierDiffNCA, image: ReadyCells, first_stage: ReadyCells | None = None
    ) -> None:
        """Take the `network`, and the rules made ready: of its image stage, and of the stage before it."""
        super().__init__()
        self.network = network
        self.config = network.config
        self.image_channels = network.image_channels
        self.radius = network.radius
        self.has_context = network.has_context
        self.image = image
        self.first_stage = first_stage

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
        with computing_alone():
            state = grid.gather(x_t.float())
        if isinstance(self.network, FourierDiffNCA):
            hidden = self._hidden(self.network, x_t.float(), t, grid, noise, context)
            with computing_alone():
                state = torch.cat([state, hidden], dim=1)
        elif self.first_stage is not None:
            squares = self.network.squares(region)
            with computing_alone():
                first = squares.gather(x_t.float())
            coarse = self.first_stage.run(first, t, squares.cells, noise, None, self.network.first_mask)
            with computing_alone():
                state = self.network.hand_down(coarse, state, grid)
        final = self.image.run(state, t, grid.cells, noise)
        with computing_alone():
            return grid.scatter(prediction(final, self.config.cell_image_channels))

    def _hidden(
        self,
        network: FourierDiffNCA,
        x_t: Tensor,
        t: Tensor,
        grid: PatchGrid,
        noise: CellNoise | None,
        context: Tensor | None,
    ) -> Float[Tensor, "b hidden y x"]:
        """Return what the Fourier stage draws in the cells of `grid`."""
        canvas = grid.pixels.canvas
        window = Window(network.fourier_config, canvas)
        with computing_alone():
            context = network.context_of_whole(x_t, t, grid.pixels) if context is None else context
            state = network.spectrum(context, t.float(), canvas)
        assert self.first_stage is not None
        state = self.first_stage.run(state, t, window.region, noise, window.origin, network.first_mask)
        with torch.no_grad(), computing_alone():
            return network.draw(state, grid, x_t.dtype)
