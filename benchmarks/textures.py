"""Make pictures of textures by formulas, from which the bundled model `texture` learns besides photos.

    python benchmarks/textures.py textures --count 480

Each picture has a random kind, size of details, palette, light and grain. All are functions of their number:
two runs make equal pictures. They are in the public domain (CC0), like this script.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.random import Generator
from PIL import Image

Field = np.ndarray
"""Heights of a surface, (h, w) in float64."""

OVERSAMPLING = 2
"""Pictures are made this many times larger and then reduced, so that edges are smooth."""


@dataclass(frozen=True)
class Options:
    """How many pictures, and where."""

    out: tyro.conf.Positional[Path]
    """Folder of the pictures."""
    count: int = 480
    """Number of pictures."""
    side: int = 320
    """Side of a picture in pixels."""
    kind: str | None = None
    """Make only this kind."""


def main(options: Options) -> None:
    """Write the pictures as PNG files."""
    kinds = [options.kind] if options.kind else list(KINDS)
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.count):
        kind = kinds[number % len(kinds)]
        picture(kind, number, options.side).save(options.out / f"{kind}-{number:04d}.png")


def picture(kind: str, number: int, side: int) -> Image.Image:
    """Return a picture of this kind."""
    random = np.random.default_rng([number, *kind.encode()])
    large = side * OVERSAMPLING
    made = Image.fromarray(np.uint8(coloured(KINDS[kind](random, large), random) * 255.0 + 0.5))
    return made.resize((side, side), Image.Resampling.LANCZOS)


def coloured(height: Field, random: Generator) -> np.ndarray:
    """Return heights in the colours of a random palette, lit from one side, with stains and grain."""
    height = ranked(height, random.uniform(0.2, 0.8))
    stain = spectrum(random, len(height), 2.4)
    position = np.clip(height + random.uniform(0.0, 0.12) * stain, 0.0, 1.0)
    stops, colours = palette(random)
    rgb = np.stack([np.interp(position, stops, channel) for channel in colours.T], axis=-1)
    down, right = np.gradient(blurred(height, 1.5))
    angle = random.uniform(0.0, 2.0 * np.pi)
    slope = np.cos(angle) * down + np.sin(angle) * right
    light = random.choice([0.0, 0.5, 1.0]) * 0.25 * slope / (slope.std() + 1e-9)
    grain = random.choice([0.0, 0.01, 0.03]) * blurred(random.standard_normal(height.shape), 1.2) * 3.0
    return np.asarray(np.clip(rgb * np.exp(0.6 * light)[..., None] + grain[..., None], 0.0, 1.0))


def palette(random: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return increasing stops in [0, 1] and their colours (n, 3): near hues, sometimes a contrasting one."""
    count = int(random.integers(3, 6))
    stops = np.concatenate([[0.0], np.sort(random.uniform(0.15, 0.85, count - 2)), [1.0]])
    hue = random.uniform() + random.normal(0.0, 0.06, count)
    if random.uniform() < 0.3:
        hue[random.integers(count)] += 0.5
    saturation = np.clip(random.beta(1.5, 2.5) + random.normal(0.0, 0.1, count), 0.0, 1.0)
    value = np.sort(random.uniform(0.08, 1.0, count))
    if random.uniform() < 0.5:
        value = value[::-1]
    if random.uniform() < 0.2:
        random.shuffle(value)
    sector = (hue[:, None] * 6.0 + np.array([0.0, 4.0, 2.0])) % 6.0
    pure = np.clip(np.abs(sector - 3.0) - 1.0, 0.0, 1.0)
    return stops, value[:, None] * (1.0 - saturation[:, None] * (1.0 - pure))


def ranked(height: Field, share: float) -> Field:
    """Return heights scaled to [0, 1], mixed with their ranks: all colours of a palette occur."""
    low, high = np.percentile(height, [0.5, 99.5])
    scaled = np.clip((height - low) / (high - low + 1e-9), 0.0, 1.0)
    ranks = np.empty(height.size)
    ranks[np.argsort(height, axis=None, kind="stable")] = np.linspace(0.0, 1.0, height.size)
    return share * ranks.reshape(height.shape) + (1.0 - share) * scaled


def filtered(field: Field, response: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Field:
    """Return a periodic field whose frequencies (cycles a picture, down and right) are weighted."""
    side = len(field)
    down, right = np.fft.fftfreq(side, 1.0 / side)[:, None], np.fft.rfftfreq(side, 1.0 / side)[None, :]
    return np.fft.irfft2(np.fft.rfft2(field) * response(down, right), s=field.shape)


def standard(field: Field) -> Field:
    """Return a field of mean 0 and deviation 1."""
    return (field - field.mean()) / (field.std() + 1e-12)


def spectrum(random: Generator, side: int, slope: float, lowest: float = 1.0) -> Field:
    """Return noise whose amplitude falls as the frequency to the power of `-slope / 2 - 0.5`."""
    white = random.standard_normal((side, side))

    def response(down: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.maximum(np.hypot(down, right), lowest) ** (-slope / 2.0 - 0.5)

    return standard(filtered(white, response))


def band(random: Generator, side: int, waves: float, width: float, stretch: float = 1.0) -> Field:
    """Return noise of about `waves` waves a picture; a `stretch` above 1 makes streaks."""
    white, angle = random.standard_normal((side, side)), random.uniform(0.0, np.pi)

    def response(down: np.ndarray, right: np.ndarray) -> np.ndarray:
        along, across = (
            np.cos(angle) * down + np.sin(angle) * right,
            np.cos(angle) * right - np.sin(angle) * down,
        )
        radius = np.hypot(along * stretch, across) + 1e-9
        return np.exp(-0.5 * (np.log(radius / waves) / width) ** 2)

    return standard(filtered(white, response))


def blurred(field: Field, sigma_px: float) -> Field:
    """Return a periodic field after a Gaussian blur."""
    unit = 2.0 * np.pi * sigma_px / len(field)
    return filtered(field, lambda down, right: np.exp(-0.5 * unit**2 * (down**2 + right**2)))


def warped(random: Generator, field: Field, strength: float) -> Field:
    """Return a periodic field whose pixels have moved by up to about `strength` of its side."""
    side = len(field)
    shift = [np.rint(strength * side * spectrum(random, side, 2.6, 2.0)).astype(int) for _ in range(2)]
    rows, columns = np.indices(field.shape)
    return field[(rows + shift[0]) % side, (columns + shift[1]) % side]


def worley(random: Generator, side: int, cells: int, disorder: float) -> tuple[Field, Field, np.ndarray]:
    """Return the distances (in cells) to the two nearest of `cells**2` points, and which is the nearest."""
    jitter = random.uniform(-0.5, 0.5, (cells, cells, 2)) * disorder + 0.5
    at = (np.arange(side) + 0.5) * cells / side
    row, column = np.meshgrid(at.astype(int), at.astype(int), indexing="ij")
    nearest, second = np.full((side, side), np.inf), np.full((side, side), np.inf)
    number = np.zeros((side, side), int)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            near = jitter[(row + down) % cells, (column + right) % cells]
            apart = np.hypot(
                at[:, None] - row - down - near[..., 0], at[None, :] - column - right - near[..., 1]
            )
            is_nearest = apart < nearest
            second = np.where(is_nearest, nearest, np.minimum(second, apart))
            number = np.where(is_nearest, ((row + down) % cells) * cells + (column + right) % cells, number)
            nearest = np.where(is_nearest, apart, nearest)
    return nearest, second, number


def tile_tones(random: Generator, number: np.ndarray) -> Field:
    """Return a random height for each numbered piece."""
    return random.uniform(0.0, 1.0, int(number.max()) + 1)[number]


def clouds(random: Generator, side: int) -> Field:
    """Noise with a falling spectrum: plaster, clouds, stone, sand."""
    return spectrum(random, side, random.uniform(0.4, 2.6), random.uniform(2.0, 20.0))


def marble(random: Generator, side: int) -> Field:
    """Veins: distances from the zeros of noise, warped."""
    veins = -(np.abs(spectrum(random, side, random.uniform(1.6, 2.4), random.uniform(2.0, 6.0))) ** 0.5)
    return warped(random, veins, 0.03) + 0.15 * spectrum(random, side, 1.5)


def cells(random: Generator, side: int) -> Field:
    """Voronoi cells with walls: tissue, foam, leather."""
    near, second, number = worley(random, side, int(random.integers(8, 30)), random.uniform(0.5, 1.0))
    wall = np.clip((second - near) / random.uniform(0.1, 0.4), 0.0, 1.0)
    return wall * (1.0 + random.uniform(0.0, 1.0) * tile_tones(random, number))


def pebbles(random: Generator, side: int) -> Field:
    """Round stones, each of its own tone."""
    near, second, number = worley(random, side, int(random.integers(6, 24)), random.uniform(0.4, 0.9))
    dome = np.sqrt(np.clip(second - near, 0.0, None))
    return warped(random, dome * (0.5 + 0.8 * tile_tones(random, number)), 0.01)


def cracks(random: Generator, side: int) -> Field:
    """Thin dark cracks over a rough ground: mud, varnish, paving."""
    near, second, _ = worley(random, side, int(random.integers(5, 16)), 1.0)
    ground = 0.3 * spectrum(random, side, random.uniform(1.0, 2.0), 4.0)
    crack = np.exp(-(((second - near) / random.uniform(0.03, 0.1)) ** 2))
    return ground - 2.0 * warped(random, crack, 0.02)


def spots(random: Generator, side: int) -> Field:
    """Discs of several sizes on a ground: nuclei, seeds, lichen."""
    field = 0.15 * spectrum(random, side, 1.5)
    for _ in range(int(random.integers(1, 4))):
        near, _, number = worley(random, side, int(random.integers(8, 32)), 1.0)
        radius = 0.15 + 0.3 * tile_tones(random, number)
        field += random.choice([-1.0, 1.0]) * np.clip((radius - near) / 0.06, 0.0, 1.0)
    return warped(random, field, random.uniform(0.0, 0.02))


def labyrinth(random: Generator, side: int) -> Field:
    """Winding stripes of one width: fingerprints, corals, zebras."""
    field = band(
        random, side, random.uniform(14.0, 50.0), random.uniform(0.08, 0.25), random.choice([1.0, 2.0])
    )
    return np.asarray(np.tanh(field * random.uniform(0.8, 4.0)))


def stripes(random: Generator, side: int) -> Field:
    """Straight stripes, slightly bent: corduroy, sand ripples, shutters."""
    angle, waves = random.uniform(0.0, np.pi), random.uniform(10.0, 45.0)
    rows, columns = np.indices((side, side)) / side
    phase = waves * (np.cos(angle) * rows + np.sin(angle) * columns)
    phase += random.uniform(0.0, 0.8) * spectrum(random, side, 2.5)
    return np.tanh(random.uniform(0.5, 3.0) * np.sin(2.0 * np.pi * phase)) + 0.2 * spectrum(random, side, 1.0)


def weave(random: Generator, side: int) -> Field:
    """Threads over and under each other: cloth, baskets."""
    count, twill = int(random.integers(12, 40)), int(random.integers(1, 4))
    at = np.arange(side) * count / side
    bend = 0.15 * spectrum(random, side, 2.2)
    rows, columns = at[:, None] + bend, at[None, :] + bend.T
    over = (np.floor(rows) + np.floor(columns)) % (twill + 1) < 1
    warp, weft = np.abs(np.sin(np.pi * rows)), np.abs(np.sin(np.pi * columns))
    tone = random.uniform(-0.5, 0.5)
    return np.where(over, warp, weft + tone) + 0.15 * band(random, side, side / 6.0, 0.4)


def bricks(random: Generator, side: int) -> Field:
    """Rows of rough blocks with joints."""
    rows_count, per_row = int(random.integers(6, 20)), int(random.integers(3, 10))
    bend = 0.04 * spectrum(random, side, 2.0, 4.0)
    down = np.arange(side)[:, None] * rows_count / side + bend
    row = np.floor(down)
    right = np.arange(side)[None, :] * per_row / side + 0.5 * (row % 2) + bend
    number = (row % rows_count * per_row + np.floor(right) % per_row).astype(int)
    joint = random.uniform(0.04, 0.12)
    inside = np.minimum.reduce([down % 1, 1 - down % 1, (right % 1) * 2, (1 - right % 1) * 2])
    rough = 0.25 * spectrum(random, side, 1.0, 4.0)
    return np.clip(inside / joint, 0.0, 1.0) * (1.0 + tile_tones(random, number) + rough)


def wood(random: Generator, side: int) -> Field:
    """Long fibres and year rings."""
    fibre = band(random, side, random.uniform(20.0, 60.0), 0.5, 12.0)
    rings = np.sin(2.0 * np.pi * random.uniform(1.0, 4.0) * band(random, side, 3.0, 0.4, 6.0))
    return 0.6 * fibre + rings


def bark(random: Generator, side: int) -> Field:
    """Ridges that run in one direction and split."""
    ridges = np.abs(band(random, side, random.uniform(10.0, 24.0), 0.3, 3.5)) ** 0.7
    return ridges + 0.3 * spectrum(random, side, 1.0, 4.0)


def fur(random: Generator, side: int) -> Field:
    """Short hairs whose direction changes slowly: grass, fur, needles."""
    turn = 2.0 * spectrum(random, side, 3.0, 1.0)
    layers = [band(random, side, random.uniform(30.0, 60.0), 0.35, 6.0) for _ in range(6)]
    chosen = np.floor((turn - turn.min()) / (np.ptp(turn) + 1e-9) * 5.999)
    return sum((blurred(chosen == i, 6.0) * layer for i, layer in enumerate(layers)), np.zeros((side, side)))


def canopy(random: Generator, side: int) -> Field:
    """Lumps on lumps on lumps: foliage, moss, cauliflower."""
    field = np.zeros((side, side))
    count, weight = int(random.integers(5, 12)), 1.0
    for _ in range(4):
        near, _, _ = worley(random, side, count, 1.0)
        field += weight * np.sqrt(np.clip(1.0 - near, 0.0, None))
        count, weight = count * 2, weight * 0.6
    return warped(random, field, 0.01)


MADE = (
    clouds,
    marble,
    cells,
    pebbles,
    cracks,
    spots,
    labyrinth,
    stripes,
    weave,
    bricks,
    wood,
    bark,
    fur,
    canopy,
)
KINDS: dict[str, Callable[[Generator, int], Field]] = {kind.__name__: kind for kind in MADE}
"""All kinds of textures by name."""


if __name__ == "__main__":
    main(tyro.cli(Options))
