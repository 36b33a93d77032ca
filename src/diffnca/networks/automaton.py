"""The networks of cells: an image stage, and an optional first stage that sees farther.

**Diff-NCA** has an image stage, and may have a coarse stage before it, whose cells each hold a larger square
of pixels. **FourierDiff-NCA** has a Fourier stage: its cells are the low frequencies of the canvas, and they
see the complete image [1].

A state has three groups of channels: the given planes and the noisy image, which no cell step overwrites;
the prediction; all others. Before the first cell step of the image stage, the output of the first stage is
written into these others.

[1] Kalkhof et al., arXiv 2401.06291, sections 3.2 and 3.3.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import CoarseConfig, FourierConfig, NCAConfig
from diffnca.networks.cell import CellRule, Rule, padded, run_cells
from diffnca.networks.fourier import BLOCK_PX, Window, analyse, synthesise
from diffnca.networks.patches import PatchGrid


class Automaton(nn.Module):
    """Cells that see the noisy image and write the prediction into their next channels.

    `radius` is in pixels, when the context is given; `None` if each pixel sees the complete image. A
    prediction is correct up to `radius` px from edges inside the canvas, and undefined beyond. The rules
    `fourier` and `coarse` are `None` in networks without this stage.
    """

    def __init__(self, config: NCAConfig) -> None:
        super().__init__()
        self.config, self.image_channels = config, config.drawn_channels
        self.radius, self.has_context = config.radius, config.fourier is not None
        self.fourier = None if config.fourier is None else _rule_of_spectrum(config, config.fourier)
        self.coarse = None if config.coarse is None else _rule_of_squares(config, config.coarse)
        self.image = _rule_of_squares(config, config)

    def compiled_parts(self) -> list[CellRule]:
        """Return the modules that training compiles: all cell rules, the rule of the image stage last."""
        return [rule for rule in (self.fourier, self.coarse, self.image) if rule is not None]

    @property
    def checkpoint_cells(self) -> bool:
        """Whether the backward pass computes each cell step again, to save memory."""
        return self.image.is_recomputed

    @checkpoint_cells.setter
    def checkpoint_cells(self, wanted: bool) -> None:
        for rule in self.compiled_parts():
            rule.is_recomputed = wanted

    @property
    def fourier_config(self) -> FourierConfig:
        """The configuration of the Fourier stage."""
        assert self.config.fourier is not None
        return self.config.fourier

    def context(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        given: Float[Tensor, "b k h w"] | None = None,
    ) -> Float64[Tensor, "b two_m r k2"] | None:
        """Return what `x_t` on `region` adds to the low frequencies of the canvas; `None` if not used."""
        if self.config.fourier is None:
            return None
        region = region or Canvas(*x_t.shape[-2:]).whole
        return analyse(self.seen(x_t, given), region, Window(self.config.fourier, region.canvas))

    def forward(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        noise: CellNoise | None = None,
        context: Float64[Tensor, "b two_m r k2"] | None = None,
        given: Float[Tensor, "b k h w"] | None = None,
        observe: Callable[[Tensor], object] | None = None,
        rules: Sequence[Rule] | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction for `x_t` at diffusion time `t` in [0, 1).

        Args:
            x_t: the noisy image, or the part of it on `region`.
            t: diffusion time of each image.
            region: where `x_t` lies; `None` is the complete canvas.
            noise: which cells update; `None` updates each cell by the expectation of its mask.
            context: the sum of `context` over the canvas; `None` computes it from `x_t`.
            given: planes that the cells see, as many as `config.given_channels`.
            observe: receives the prediction after each cell step of the image stage.
            rules: cell rules of all stages as an engine runs them; `None` takes those of this network.

        Raises:
            ValueError: the context is missing or belongs to another canvas, or the given planes do not fit.
        """
        region = region or Canvas(*x_t.shape[-2:]).whole
        pixels, cells = self.seen(x_t, given), PatchGrid(region, self.config.patch)
        *first, image = self.compiled_parts() if rules is None else rules
        correct = self.correct(cells)
        near = correct.grow(image.config.radius or 0).within(cells.cells)
        grid = cells.part(near)
        state = self.gathered(grid.pixels.crop(pixels, of=region), grid)
        if self.config.coarse is not None:
            squares, first_mask = PatchGrid(region, self.config.coarse.patch), self.config.cell.num_cell_steps
            coarse = self.gathered(pixels, squares)
            side = self.config.coarse.patch // self.config.patch
            wanted = PatchGrid(near, side).cells.within(squares.cells)
            coarse = run_cells(first[0], coarse, t, squares.cells, noise, None, first_mask, wanted=wanted)
            state = self.hand_down(wanted.crop(coarse, of=squares.cells), state, grid)
        elif self.config.fourier is not None:
            if context is None:
                if not (region.is_whole_y and region.is_whole_x):
                    raise ValueError(
                        f"context=None on {region.height}x{region.width} px of a canvas of "
                        f"{region.canvas.height}x{region.canvas.width} px: must be the sum of "
                        "network.context over the canvas; give it"
                    )
                context = analyse(pixels, region, Window(self.config.fourier, region.canvas))
            spectrum = self.transform(first[0], context, t.to(x_t.dtype), region.canvas, noise)
            state = torch.cat([state, self.draw(spectrum, grid, x_t.dtype)], dim=1)

        def predicted(state: Tensor) -> Tensor:
            start = self.config.seen_channels(self.config.patch)
            drawn = state[:, start : start + self.config.cell_image_channels].contiguous()
            return padded(grid.scatter(drawn), grid.pixels, region)

        shown = None if observe is None else lambda state: observe(predicted(state))
        return predicted(run_cells(image, state, t, near, noise, observe=shown, wanted=correct.within(near)))

    def correct(self, grid: PatchGrid) -> Region:
        """Return the cells that hold correct pixels: `radius` px and more from edges inside the canvas.

        So each stage updates only cells on which correct pixels depend, not all cells around a tile. If no
        pixel is correct, all cells are returned.
        """
        inner = None if self.radius is None else grid.pixels.shrink(self.radius)
        return grid.cells if inner is None else PatchGrid(inner, self.config.patch).cells.within(grid.cells)

    def seen(self, x_t: Float[Tensor, "b n h w"], given: Tensor | None) -> Float[Tensor, "b m h w"]:
        """Return the given planes and the noisy image, which no cell step overwrites."""
        planes = self.config.given_channels
        expected = (len(x_t), planes, *x_t.shape[-2:])
        found = (len(x_t), 0, *x_t.shape[-2:]) if given is None else tuple(given.shape)
        if found != expected:
            raise ValueError(
                f"given planes of shape {found}: must be {expected}, as model.given_channels={planes}"
            )
        return x_t if given is None else torch.cat([given.to(x_t), x_t], dim=1)

    def gathered(self, seen: Float[Tensor, "b m h w"], grid: PatchGrid) -> Float[Tensor, "b s y x"]:
        """Return what cells see: the mean of each given plane, and all pixels of the image in a cell."""
        count = self.config.given_channels
        if count == 0:
            return grid.gather(seen)
        return torch.cat([grid.averaged(seen[:, :count]), grid.gather(seen[:, count:])], dim=1)

    def hand_down(
        self, coarse: Float[Tensor, "b m v u"], seen: Float[Tensor, "b s y x"], grid: PatchGrid
    ) -> Float[Tensor, "b a y x"]:
        """Return the first channels in which the cells of `grid` begin, after the coarse stage.

        These are `seen` (given planes and noisy image), an empty prediction, and the output of `coarse`.
        """
        choice, patch = self.config.coarse, self.config.patch
        assert choice is not None
        side, first = choice.patch // patch, self.config.seen_channels(choice.patch)
        handed = PatchGrid(grid.cells, side).scatter(coarse[:, first : first + choice.handed * side**2])
        empty = torch.zeros_like(seen[:, : self.config.cell_image_channels])
        return torch.cat([seen, empty, handed.to(seen.dtype)], dim=1)

    def transform(
        self, rule: Rule, context: Tensor, t: Tensor, canvas: Canvas, noise: CellNoise | None
    ) -> Float[Tensor, "b two_c r k2"]:
        """Return the spectrum of the state after the cell steps of the Fourier stage."""
        window, seen = Window(self.fourier_config, canvas), self.config.seen_channels()
        expected = (len(t), 2 * seen, len(window.rows), len(window.columns))
        if tuple(context.shape) != expected:
            raise ValueError(
                f"context of shape {tuple(context.shape)}: must be {expected} for a canvas of "
                f"{canvas.height}x{canvas.width} px; sum network.context over this canvas"
            )
        scaled = (context * window.analysis_scale().to(context.device)).to(t.dtype)
        count = self.config.given_channels
        halves = scaled.unflatten(1, (2, -1))
        hidden = (0, 0, 0, 0, 0, self.config.spectrum_channels - self.image_channels)
        others = F.pad(halves[:, :, count:], hidden)
        state = torch.cat([halves[:, :, :count].flatten(1, 2), others.flatten(1, 2)], dim=1)
        first_mask = self.config.cell.num_cell_steps  # the image stage has the smaller numbers
        return run_cells(rule, state, t, window.region, noise, window.origin, first_mask)

    def draw(self, spectrum: Tensor, grid: PatchGrid, dtype: torch.dtype) -> Float[Tensor, "b hidden y x"]:
        """Return the channels that the Fourier stage gives to the cells of `grid`."""
        window = Window(self.fourier_config, grid.pixels.canvas)
        with torch.autocast(spectrum.device.type, enabled=False):
            precise = spectrum.to(torch.promote_types(spectrum.dtype, torch.float32))
            scaled = precise * window.synthesis_scale().to(precise)
            halves = scaled[:, 2 * self.config.given_channels :].unflatten(1, (2, -1))
            hidden = halves[:, :, self.image_channels :].flatten(1, 2)
            return synthesise(hidden, grid.cells, window, max(BLOCK_PX // grid.patch, 1)).to(dtype)


def _rule_of_spectrum(config: NCAConfig, stage: FourierConfig) -> CellRule:
    planes, image, half = 2 * config.given_channels, config.drawn_channels, config.spectrum_channels
    protected = (*range(planes + image), *range(planes + half, planes + half + image))
    return CellRule(stage.cell, planes + 2 * half, protected, planes)


def _rule_of_squares(config: NCAConfig, stage: NCAConfig | CoarseConfig) -> CellRule:
    planes, seen = config.given_channels, config.seen_channels(stage.patch)
    return CellRule(stage.cell, stage.channels + planes, tuple(range(seen)), planes)
