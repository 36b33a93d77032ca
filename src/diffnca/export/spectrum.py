"""The window of low frequencies as nodes of a graph: what `diffnca.networks.fourier` computes on a canvas.

Sums are in float32 here, so they are not exact: an estimate of 512x512 px by `faces` differs by 2e-6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diffnca.config.networks import FourierConfig
from diffnca.export.graph import Graph, Value
from diffnca.export.grid import Grid
from diffnca.networks.fourier import IMAGE_POWER, MEAN_FREQUENCY_SQUARED

Wave = tuple[Value, Value]
"""Cosines and sines."""


@dataclass(frozen=True, eq=False)
class Window:
    """The low frequencies of a canvas whose pixels are the grid `pixels`."""

    config: FourierConfig
    pixels: Grid

    @property
    def graph(self) -> Graph:
        """The graph of all values."""
        return self.pixels.graph

    @property
    def first_row(self) -> Value:
        """The smallest vertical frequency."""
        half = -(self.pixels.height / 2)
        return (
            half * 0
            if self.config.spectrum == "quadrant"
            else self.graph.add("Max", half, -self.config.window)
        )

    @property
    def rows(self) -> Value:
        """Vertical frequencies."""
        end = self.graph.add("Min", (self.pixels.height + 1) / 2, self.config.window)
        return self.graph.range(self.first_row, end)

    @property
    def columns(self) -> Value:
        """Horizontal frequencies."""
        width = self.pixels.width
        available = (width + 1) / 2 if self.config.spectrum == "quadrant" else width / 2 + 1
        return self.graph.range(width * 0, self.graph.add("Min", available, self.config.window))

    @property
    def grid(self) -> Grid:
        """The window as a grid with a cell per frequency; positions count from frequency zero."""
        origin = (-self.first_row.to(np.float32), 0.0)
        return Grid(self.rows.side(0), self.columns.side(0), ("reflect", "reflect"), origin)

    def analyse(self, x: Value) -> Value:
        """Return the DFT of an image, as the cells see it: real parts, then imaginary parts."""
        cosine, sine = (wave @ x for wave in self._waves(self.rows, self.pixels.height, is_across=False))
        across, around = self._waves(self.columns, self.pixels.width, is_across=True)
        real, imaginary = cosine @ across - sine @ around, -(sine @ across + cosine @ around)
        return self.graph.concat([real, imaginary]) * self._analysis_scale()

    def synthesise(self, real: Value, imaginary: Value, cells: Grid) -> Value:
        """Return the sum of the waves of coefficients on the cells of the canvas."""
        scale = self._synthesis_scale()
        real, imaginary = real * scale, imaginary * scale
        across, around = (wave for wave in self._waves(self.columns, cells.width, is_across=False))
        cosine, sine = self._waves(self.rows, cells.height, is_across=True)
        even, odd = real @ across - imaginary @ around, real @ around + imaginary @ across
        return cosine @ even - sine @ odd

    def _waves(self, frequencies: Value, size: Value, is_across: bool) -> Wave:
        """Return waves over an axis: a row for each frequency, or a column if `is_across`."""
        numbers = self.graph.range(size * 0, size)
        shapes = ((1, -1), (-1, 1)) if is_across else ((-1, 1), (1, -1))
        turns = self.graph.add("Mod", frequencies.shaped(*shapes[0]) * numbers.shaped(*shapes[1]), size)
        angles = turns.to(np.float32) * (size.to(np.float32) ** -1 * (2.0 * math.pi))
        return self.graph.add("Cos", angles), self.graph.add("Sin", angles)

    def _analysis_scale(self) -> Value:
        pixels, known = self._pixels, self._known
        if self.config.scaling == "forward":
            return pixels**-1
        return known / pixels / (self._deviation() * self.graph.add("Sqrt", known))

    def _synthesis_scale(self) -> Value:
        scale = self._pixels * 0.0 + 1.0
        if self.config.scaling == "ortho":
            scale = self._deviation() / self.graph.add("Sqrt", self._known)
        if self.config.spectrum == "half_plane":
            mirrored = self.graph.add("Mod", self.columns * 2, self.pixels.width)
            mirrored = self.graph.add("Min", mirrored, 1).to(np.float32)  # 0 where a column holds its mirror
            scale = scale * (mirrored + 1.0)
        return scale

    @property
    def _pixels(self) -> Value:
        return self.pixels.height.to(np.float32) * self.pixels.width.to(np.float32)

    @property
    def _known(self) -> Value:
        return self.graph.add("Min", self._pixels, float(self.config.trained_px**2))

    def _deviation(self) -> Value:
        """Return the expected deviation of each coefficient."""
        rows, columns = self.rows.to(np.float32).shaped(-1, 1), self.columns.to(np.float32)
        squared = rows * rows + columns * columns + MEAN_FREQUENCY_SQUARED
        return self.graph.add("Sqrt", self._known / squared * IMAGE_POWER + 1.0)
