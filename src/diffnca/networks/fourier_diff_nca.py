"""FourierDiff-NCA: cells on the low frequencies of the whole image, then cells on the image.

References:
    [1] Kalkhof et al., arXiv 2401.06291, section 3.3.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import FourierConfig, NCAConfig
from diffnca.networks.cell import CellRule, run_cells
from diffnca.networks.diff_nca import prediction
from diffnca.networks.fourier import BLOCK_PX, Window, analyse, synthesise
from diffnca.networks.patches import PatchGrid


class FourierDiffNCA(nn.Module):
    """A Fourier stage, whose cells are frequencies and see the whole image, before the image stage.

    Attributes:
        config: the choices it was built from.
        image_channels: channels n of the images; the state holds the noisy image in its first n channels
            and the prediction in the next n.
        radius: pixels that one output pixel can see in each direction, the context being given; `None` for
            the whole image.
        has_context: whether it must know something of the whole canvas, which `context` sums up.
        checkpoint_cells: recompute each cell step in the backward pass, to save memory.
    """

    has_context = True

    def __init__(self, config: NCAConfig) -> None:
        """Build the network of `config`."""
        super().__init__()
        if config.fourier is None:
            raise ValueError(f"family={config.family}: must have a `fourier` stage; choose family=diff_nca")
        self.config = config
        self.fourier_config: FourierConfig = config.fourier
        self.image_channels = config.image_channels
        self.radius = config.radius
        self.checkpoint_cells = False
        n, channels = config.image_channels, config.spectrum_channels
        protected = (*range(n), *range(channels, channels + n))
        self.fourier = CellRule(config.fourier.cell, 2 * channels, protected)
        self.image = CellRule(config.cell, config.channels, tuple(range(config.cell_image_channels)))

    def compiled_parts(self) -> list[CellRule]:
        """Return the modules that training compiles: the cell rules of all stages."""
        return [self.fourier, self.image]

    def context(
        self, x_t: Float[Tensor, "b n h w"], t: Float[Tensor, " b"], region: Region | None = None
    ) -> Float64[Tensor, "b two_n r k"]:
        """Return what the part `x_t` on `region` adds to the low frequencies of the canvas.

        Only the image channels have any: all others are zero when the Fourier stage begins.
        """
        region = region or Canvas(*x_t.shape[-2:]).whole
        return analyse(x_t, region, Window(self.fourier_config, region.canvas))

    def forward(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        noise: CellNoise | None = None,
        context: Float64[Tensor, "b two_n r k"] | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction for `x_t` at diffusion time `t` in [0, 1).

        Args:
            x_t: the noisy image, or the part of it on `region`.
            t: diffusion time of each image.
            region: where `x_t` lies; `None` is the whole canvas.
            noise: which cells update; `None` updates each by the expectation of its mask.
            context: the sum of `context` over the canvas; `None` takes it from `x_t`.

        Raises:
            ValueError: the context is missing and `x_t` is only a part of the canvas, or it is that of
                another canvas.
        """
        region = region or Canvas(*x_t.shape[-2:]).whole
        context = self.context_of_whole(x_t, t, region) if context is None else context
        grid, spectrum = (
            PatchGrid(region, self.config.patch),
            self.transform(context, t.to(x_t.dtype), region.canvas, noise),
        )
        hidden = self.draw(spectrum, grid, x_t.dtype)
        state = torch.cat([grid.gather(x_t), hidden], dim=1).contiguous(memory_format=torch.channels_last)
        state = run_cells(self.image, state, t, grid.cells, noise, self.checkpoint_cells)
        return grid.scatter(prediction(state, self.config.cell_image_channels))

    def context_of_whole(self, x_t: Tensor, t: Tensor, region: Region) -> Float64[Tensor, "b two_n r k"]:
        """Return the context of `x_t` alone.

        Raises:
            ValueError: it is only a part of the canvas.
        """
        if not (region.is_whole_y and region.is_whole_x):
            raise ValueError(
                f"context=None on {region.height}x{region.width} px of a canvas of "
                f"{region.canvas.height}x{region.canvas.width} px: must be the sum of network.context "
                "over the canvas; give it"
            )
        return self.context(x_t, t, region)

    @property
    def first_mask(self) -> int:
        """Number of the first mask of the Fourier stage: those before are the image stage's."""
        return self.config.cell.num_cell_steps

    def transform(
        self, context: Tensor, t: Tensor, canvas: Canvas, noise: CellNoise | None
    ) -> Float[Tensor, "b two_c r k"]:
        """Return the spectrum of the state after the cell steps on the window."""
        window, state = Window(self.fourier_config, canvas), self.spectrum(context, t, canvas)
        cells = (window.region, noise, self.checkpoint_cells, window.origin, self.first_mask)
        return run_cells(self.fourier, state, t, *cells)

    def spectrum(self, context: Tensor, t: Tensor, canvas: Canvas) -> Float[Tensor, "b two_c r k"]:
        """Return the spectrum of the state before the cell steps on the window."""
        window = Window(self.fourier_config, canvas)
        expected = (len(t), 2 * self.image_channels, len(window.rows), len(window.columns))
        if tuple(context.shape) != expected:
            raise ValueError(
                f"context of shape {tuple(context.shape)}: must be {expected} for a canvas of "
                f"{canvas.height}x{canvas.width} px; sum network.context over this canvas"
            )
        seen = (context * window.analysis_scale().to(context.device)).to(t.dtype)
        empty = seen.new_zeros(len(t), self.config.spectrum_channels - self.image_channels, *expected[2:])
        real, imaginary = seen.chunk(2, dim=1)
        return torch.cat([real, empty, imaginary, empty], dim=1).contiguous(memory_format=torch.channels_last)

    def draw(self, spectrum: Tensor, grid: PatchGrid, dtype: torch.dtype) -> Float[Tensor, "b hidden y x"]:
        """Return the channels of the state beside the image, in the cells of `grid`, from their spectrum."""
        window = Window(self.fourier_config, grid.pixels.canvas)
        with torch.autocast(spectrum.device.type, enabled=False):
            precise = spectrum.to(torch.promote_types(spectrum.dtype, torch.float32))
            scaled = precise * window.synthesis_scale().to(precise)
            real, imaginary = scaled.chunk(2, dim=1)
            hidden = torch.cat([real[:, self.image_channels :], imaginary[:, self.image_channels :]], dim=1)
            return synthesise(hidden, grid.cells, window, max(BLOCK_PX // grid.patch, 1)).to(dtype)
