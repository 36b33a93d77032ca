"""Diff-NCA: a local denoiser made of cells alone.

There may be a coarse stage before the image stage, in the manner of the Fourier stage of FourierDiff-NCA:
fewer cells, each of which holds a larger square of the image and so sees farther at the same cost. What they
hand down stands in the state of the cells of the image stage when these begin.

References:
    [1] Kalkhof et al., arXiv 2401.06291, section 3.2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import NCAConfig
from diffnca.networks.cell import CellRule, run_cells
from diffnca.networks.patches import PatchGrid


class DiffNCA(nn.Module):
    """The image stage: cells that see the noisy image and write the prediction into their next channels.

    Attributes:
        config: the choices it was built from.
        image_channels: channels n of the images; the state holds the noisy image in its first n channels
            and the prediction in the next n (n * patch**2 where a cell holds a square of pixels).
        radius: pixels that one output pixel can see in each direction, `None` for the whole image.
        has_context: whether it must know something of the whole canvas, which `context` sums up.
        checkpoint_cells: recompute each cell step in the backward pass, to save memory.
        coarse: the rule of the coarse stage; `None` if there is none.
        image: the rule of the image stage.
    """

    has_context = False

    def __init__(self, config: NCAConfig) -> None:
        """Build the network of `config`."""
        super().__init__()
        self.config = config
        self.image_channels = config.image_channels
        self.radius = config.radius
        self.checkpoint_cells = False
        self.coarse: CellRule | None = None
        if config.coarse is not None:
            protected = tuple(range(config.coarse_image_channels))
            self.coarse = CellRule(config.coarse.cell, config.coarse.channels, protected)
        self.image = CellRule(config.cell, config.channels, tuple(range(config.cell_image_channels)))

    def compiled_parts(self) -> list[CellRule]:
        """Return the modules that training compiles: the cell rules of all stages."""
        return [self.image] if self.coarse is None else [self.coarse, self.image]

    def context(self, x_t: Tensor, t: Tensor, region: Region) -> None:
        """Return what must be known of the whole canvas: nothing."""
        return None

    def forward(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        noise: CellNoise | None = None,
        context: Tensor | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction for `x_t` at diffusion time `t` in [0, 1).

        Args:
            x_t: the noisy image, or the part of it on `region`.
            t: diffusion time of each image.
            region: where `x_t` lies; `None` is the whole canvas.
            noise: which cells update; `None` updates each by the expectation of its mask.
            context: not used; the network is local.
        """
        region = region or Canvas(*x_t.shape[-2:]).whole
        grid = PatchGrid(region, self.config.patch)
        state = grid.gather(x_t)
        if self.coarse is not None:
            squares = self.squares(region)
            first = initial_state(squares.gather(x_t), self.coarse.channels)
            cells = (squares.cells, noise, self.checkpoint_cells, None, self.first_mask)
            state = self.hand_down(run_cells(self.coarse, first, t, *cells), state, grid)
        state = initial_state(state, self.config.channels)
        state = run_cells(self.image, state, t, grid.cells, noise, self.checkpoint_cells)
        return grid.scatter(prediction(state, self.config.cell_image_channels))

    @property
    def first_mask(self) -> int:
        """Number of the first mask of the coarse stage: those before are the image stage's."""
        return self.config.cell.num_cell_steps

    def squares(self, region: Region) -> PatchGrid:
        """Return the cells of the coarse stage on a region."""
        assert self.config.coarse is not None
        return PatchGrid(region, self.config.coarse.patch)

    def hand_down(
        self, coarse: Float[Tensor, "b m v u"], image: Float[Tensor, "b n_p_p y x"], grid: PatchGrid
    ) -> Float[Tensor, "b a y x"]:
        """Return the state that the cells of `grid` begin with: the noisy image, no prediction, the rest.

        Args:
            coarse: the final state of the coarse stage.
            image: the noisy image in the cells of the image stage.
            grid: these cells.
        """
        choice = self.config.coarse
        assert choice is not None
        side, seen = choice.patch // self.config.patch, self.config.coarse_image_channels
        handed = PatchGrid(grid.cells, side).scatter(coarse[:, seen : seen + choice.handed * side**2])
        return torch.cat([image, torch.zeros_like(image), handed.to(image.dtype)], dim=1)


def initial_state(x_t: Float[Tensor, "b n h w"], channels: int) -> Float[Tensor, "b c h w"]:
    """Return a state that holds `x_t` in its first channels and zeros in the others."""
    empty = x_t.new_zeros(len(x_t), channels - x_t.shape[1], *x_t.shape[-2:])
    return torch.cat([x_t, empty], dim=1).contiguous(memory_format=torch.channels_last)


def prediction(state: Float[Tensor, "b c h w"], image_channels: int) -> Float[Tensor, "b n h w"]:
    """Return the channels of a final state in which the prediction stands."""
    return state[:, image_channels : 2 * image_channels].contiguous()
