"""A denoiser as nodes of a graph: one estimate on a whole canvas, or the complete walk of a student."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from diffnca.diffusion.denoiser import Denoiser, clean_of
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.export.cells import Drawing, padded_channels
from diffnca.export.graph import Graph, Value
from diffnca.export.grid import Grid
from diffnca.export.spectrum import Window
from diffnca.export.steps import factors_of
from diffnca.networks.automaton import Automaton


@dataclass(frozen=True, eq=False)
class Estimator:
    """A denoiser on the whole canvas of a graph; `given` and `masks` are inputs of the graph."""

    denoiser: Denoiser
    pixels: Grid
    given: Value | None
    masks: dict[str, Value]

    @property
    def graph(self) -> Graph:
        """The graph of all values."""
        return self.pixels.graph

    @property
    def network(self) -> Automaton:
        """The network of the denoiser."""
        network = self.denoiser.network
        assert isinstance(network, Automaton)
        return network

    def estimate(self, x_t: Value, step: Value, call: int = 0) -> Value:
        """Return the estimate of the clean image at a step of the schedule, one for all images or each.

        Each `call` has its own masks of the cells that update.
        """
        numbers = self.graph.add("Gather", self.graph.constant(self._table()), step, dtype=np.float32)
        t, of_image, of_output = (numbers.shaped(-1, 3, 1, 1).channels(i, i + 1) for i in range(3))
        return x_t * of_image + self.predict(x_t, t, call) * of_output

    def _table(self) -> np.ndarray:
        """Return time of each step, and the factors of image and output in the estimate."""
        schedule, network = self.denoiser.schedule, torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        alphas, sigmas = schedule.alphas()[:, None], schedule.sigmas()[:, None]
        factors = clean_of(self.denoiser.prediction, network, network.flip(1), alphas, sigmas)
        times = torch.arange(len(alphas), dtype=torch.float64)[:, None] / len(alphas)
        return torch.cat([times, factors.expand(len(alphas), 2)], dim=1).float().numpy()

    def predict(self, x_t: Value, t: Value, call: int) -> Value:
        """Return the output of the network, as `Automaton.forward` does."""
        config, patch = self.network.config, self.network.config.patch
        seen, cells = config.seen_channels(patch), self.pixels.divided(patch)
        state, known = self.gathered(x_t, patch), seen
        if config.coarse is not None:
            handed = self._handed_down(x_t, t, cells, call)
            state = self.graph.concat([padded_channels(state, config.cell_image_channels), handed])
            known += config.cell_image_channels + config.coarse.handed
        elif config.fourier is not None:
            state = self.graph.concat([state, self._drawn(x_t, t, cells, call)])
            known += config.channels - config.cell_image_channels
        state = self._run("image", state, known, t, cells, call)
        return self.pixels.scatter(state.channels(seen, seen + config.cell_image_channels), patch)

    def gathered(self, x_t: Value, patch: int) -> Value:
        """Return what cells see: the mean of each given plane, and all pixels of the image in a cell."""
        config = self.network.config
        seen = self.pixels.gather(x_t, patch, config.drawn_channels)
        if self.given is None:
            return seen
        return self.graph.concat([self.pixels.averaged(self.given, patch, config.given_channels), seen])

    def _handed_down(self, x_t: Value, t: Value, cells: Grid, call: int) -> Value:
        """Return the channels that the coarse stage gives to the cells."""
        config = self.network.config
        assert config.coarse is not None
        patch, seen = config.coarse.patch, config.seen_channels(config.coarse.patch)
        squares = self.pixels.divided(patch)
        state = self._run("coarse", self.gathered(x_t, patch), seen, t, squares, call)
        side = patch // config.patch
        return cells.scatter(state.channels(seen, seen + config.coarse.handed * side**2), side)

    def _drawn(self, x_t: Value, t: Value, cells: Grid, call: int) -> Value:
        """Return the channels that the Fourier stage gives to the cells."""
        config = self.network.config
        assert config.fourier is not None
        window, planes = Window(config.fourier, self.pixels), config.given_channels
        count, image = config.spectrum_channels, config.drawn_channels
        seen = x_t if self.given is None else self.graph.concat([self.given, x_t])
        spectrum, each = window.analyse(seen), planes + image
        halves = [spectrum.channels(first, first + each) for first in (0, each)]
        parts = [half.channels(0, planes) for half in halves] if planes else []
        parts += [padded_channels(half.channels(planes, each), count - image) for half in halves]
        known = 2 * planes + 2 * count
        state = self._run("fourier", self.graph.concat(parts), known, t, window.grid, call)
        real, imaginary = (
            state.channels(2 * planes + start + image, 2 * planes + start + count) for start in (0, count)
        )
        return window.synthesise(real, imaginary, cells)

    def _run(self, stage: str, state: Value, known: int, t: Value, grid: Grid, call: int) -> Value:
        rule, masks = getattr(self.network, stage), self.masks.get(stage)
        first_mask = call * rule.config.num_cell_steps
        return Drawing(self.graph, rule).run(state, known, t, grid, masks, first_mask)

    def walk(self, noise: Value, levels: tuple[Level, ...], sampler: Sampler, fresh: Value | None) -> Value:
        """Return the image at the end of all steps from noise; `fresh` has the noise of the steps between."""
        x, before, channels = noise, None, self.network.config.drawn_channels
        for number, (level_t, level_s) in enumerate(zip(levels, (*levels[1:], CLEAN), strict=True)):
            step = self.graph.constant(np.array([level_t.index], np.int32))
            clean = self.estimate(x, step, number)
            drawn = None
            if sampler.is_stochastic and fresh is not None and level_s.sigma > 0.0:
                drawn = fresh.channels(number * channels, (number + 1) * channels)
            memory = None if before is None else levels[number - 1]
            parts = zip((x, clean, drawn, before), factors_of(sampler, level_t, level_s, memory), strict=True)
            terms = [part * factor for part, factor in parts if part is not None and factor != 0.0]
            x, before = sum(terms[1:], terms[0]), clean if sampler.is_multistep else None
        return self.graph.add("Min", self.graph.add("Max", x, -1.0), 1.0)
