"""All random numbers of sampling: each number is a function of the seed of its image and of its place.

A number is one 32-bit word of Philox4x32-10 [1], a cipher that turns a counter of four words into four random
words. The key is the 64-bit seed of the image. The counter is

| word | holds |
|---|---|
| 0 | row on the canvas |
| 1 | column on the canvas (of cell masks: column // 4) |
| 2 | stream << 24, + channel // 4 |
| 3 | step << 16, + cell step |

and channel % 4 (of cell masks: column % 4) selects the word. So a number does not depend on the region, the
batch, the order of calls, the number of threads or the device.

All arithmetic is exact: integers, and the IEEE float64 operations + - * /, each rounded to nearest. The bits
of torch's `log`, `exp`, `sin` and `sqrt` differ between machines (MKL's `sqrt` is 1 ulp off in 1% of its
results). `torch.compile` may round a product and a sum only once, so keep `Noise.normal` out of it.

[1] Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
[2] Wichura, "Algorithm AS 241: the percentage points of the normal distribution", 1988.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from diffnca.canvas.region import Region
from diffnca.errors import require

Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four tensors of 32-bit words, each an int64 in [0, 2**32), that broadcast."""

MAX_SEED = 2**64 - 1
MAX_CHANNELS = 2**20
MAX_STEP = 2**16 - 1

WORD = 2**32 - 1
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # [1] section 4.3, also the next two lines
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
NUM_ROUNDS = 10

CHUNK = 2**15 - 1
"""Numbers computed at once (any value gives equal numbers): few enough for the cache and for one thread."""

CENTRAL = 0.425  # [2] constants of PPND16; its far tail (p < 1.4e-11) is beyond 32 bits
CENTRAL_SQUARE = 0.180625
CENTRAL_NUMERATOR, CENTRAL_DENOMINATOR = zip(  # the coefficients of each power
    (3.3871328727963666080e0, 1.0),
    (1.3314166789178437745e2, 4.2313330701600911252e1),
    (1.9715909503065514427e3, 6.8718700749205790830e2),
    (1.3731693765509461125e4, 5.3941960214247511077e3),
    (4.5921953931549871457e4, 2.1213794301586595867e4),
    (6.7265770927008700853e4, 3.9307895800092710610e4),
    (3.3430575583588128105e4, 2.8729085735721942674e4),
    (2.5090809287301226727e3, 5.2264952788528545610e3),
    strict=True,
)
TAIL_START = 1.6
TAIL_NUMERATOR, TAIL_DENOMINATOR = zip(
    (1.42343711074968357734e0, 1.0),
    (4.63033784615654529590e0, 2.05319162663775882187e0),
    (5.76949722146069140550e0, 1.67638483018380384940e0),
    (3.64784832476320460504e0, 6.89767334985100004550e-1),
    (1.27045825245236838258e0, 1.48103976427480074590e-1),
    (2.41780725177450611770e-1, 1.51986665636164571966e-2),
    (2.27238449892691845833e-2, 5.47593808499534494600e-4),
    (7.74545014278341407640e-4, 1.05075007164441684324e-9),
    strict=True,
)
LOG_2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476
SQRT_START = (1.3, 0.16)  # within 9% of the root of 2.5 to 23
SQRT_ITERATIONS = 4
ATANH_SERIES = tuple(2.0 / (2 * n + 1) for n in range(12))  # enough for |s| < 0.172, to the last bit


class Stream(IntEnum):
    """The purpose of a number. Every image depends on the values: add streams, never renumber them."""

    INITIAL = 0
    STEP = 1
    CELL = 2
    TASK = 3
    COARSE = 4
    STYLE = 5


@runtime_checkable
class CellNoise(Protocol):
    """Decides which cells update in one call of a network."""

    def mask(self, cell_step: int, region: Region, probability: float) -> Bool[Tensor, "b 1 h w"]:
        """Return true where a cell of `region` updates in this cell step."""


@dataclass(frozen=True)
class Noise:
    """The random numbers of a batch of images, one seed from 0 to 2**64-1 per image.

    Image i has the numbers of `seeds[i]` in any batch. `normal` and `uniform` of one stream and step come
    from equal words; take another stream for independent numbers. The device changes no number.

    Raises:
        ValueError: a seed is out of range, or there are no seeds.
    """

    seeds: tuple[int, ...]
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds=(): must hold at least one; give one seed per image")
        allowed = f"from 0 to 2**64-1 ({MAX_SEED}); choose another seed"
        for seed in self.seeds:
            require(0 <= seed <= MAX_SEED, "seed", seed, allowed)

    def normal(self, stream: Stream, step: int, region: Region, channels: int) -> Float32[Tensor, "b c h w"]:
        """Return standard normal numbers, rounded from float64 quantiles of the 32-bit words."""
        return self._draw(quantile_of_word, stream, step, region, channels)

    def uniform(self, stream: Stream, step: int, region: Region, channels: int) -> Float32[Tensor, "b c h w"]:
        """Return uniform numbers in [0, 1), multiples of 2**-24."""
        return self._draw(uniform_of_word, stream, step, region, channels)

    def at(self, step: int) -> CellNoise:
        """Return the cell masks of one diffusion step."""
        return CellMasks(self, step)

    def key(self) -> tuple[Int64[Tensor, "b 1 1 1"], Int64[Tensor, "b 1 1 1"]]:
        """Return the low and the high word of each seed."""
        words = [(seed & WORD, seed >> 32) for seed in self.seeds]
        low, high = torch.tensor(words, device=self.computed_on)[:, :, None, None, None].unbind(1)
        return low, high

    @property
    def computed_on(self) -> torch.device:
        """The device that computes: `device`, or the CPU if `device` has no float64."""
        device = torch.device(self.device)
        return torch.device("cpu") if device.type == "mps" else device

    def _draw(
        self, of_word: Callable[[Tensor], Tensor], stream: Stream, step: int, region: Region, channels: int
    ) -> Float32[Tensor, "b c h w"]:
        if stream is Stream.CELL:
            raise ValueError("stream=CELL: must be INITIAL, STEP or TASK; cell masks come from at(step).mask")
        allowed = f"from 1 to {MAX_CHANNELS}; draw fewer at once"
        require(1 <= channels <= MAX_CHANNELS, "channels", channels, allowed)
        device, key = self.computed_on, self.key()
        groups = torch.arange((channels + 3) // 4, device=device)[:, None, None]
        place, clock = groups + (int(stream) << 24), torch.tensor(_clock_word(step, 0), device=device)
        columns = region.columns().to(device)
        shape = (len(self.seeds), channels, region.height, region.width)
        drawn = torch.empty(shape, dtype=torch.float32, device=device)
        first = 0
        for rows in _row_chunks(region, len(self.seeds) * len(groups) * region.width):
            words = philox((rows.to(device)[:, None], columns, place, clock), key)
            for remainder, word in enumerate(words[:channels]):
                part = drawn[:, remainder::4, first : first + len(rows)]
                part.copy_(of_word(word[:, : part.shape[1]]))
            first += len(rows)
        return drawn.to(self.device)


@dataclass(frozen=True)
class CellMasks:
    """The cells that update, in the cell steps of one diffusion step (0 to 65535)."""

    noise: Noise
    step: int

    def mask(self, cell_step: int, region: Region, probability: float) -> Bool[Tensor, "b 1 h w"]:
        """Return where cells update in a cell step (0 to 65535): at a word below `probability * 2**32`."""
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability={probability}: must be from 0 to 1; give the share that updates")
        device, key = self.noise.computed_on, self.noise.key()
        threshold = round(probability * 2**32)
        place, clock = torch.tensor([Stream.CELL << 24, _clock_word(self.step, cell_step)], device=device)
        columns = region.columns().to(device)
        blocks, block_of_column = torch.unique(columns // 4, return_inverse=True)
        word_of_column = 4 * block_of_column + columns % 4
        masks = []
        for rows in _row_chunks(region, len(self.noise.seeds) * len(blocks) * 4):
            words = philox((rows.to(device)[:, None], blocks, place, clock), key)
            updates = torch.stack([word < threshold for word in words], dim=-1)
            masks.append(updates.flatten(-2).index_select(-1, word_of_column))
        return torch.cat(masks, dim=-2).to(self.noise.device)


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Return the four words that Philox4x32-10 makes of a counter; words broadcast, and int64 wraps."""
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(NUM_ROUNDS):  # [1] Fig. 2: one round swaps low and high halves of two products
        product_0, product_2 = word_0 * MULTIPLIERS[0], word_2 * MULTIPLIERS[1]
        word_0 = (product_2 >> 32 ^ word_1 ^ key_0) & WORD
        word_2 = (product_0 >> 32 ^ word_3 ^ key_1) & WORD
        word_1, word_3 = product_2 & WORD, product_0 & WORD
        key_0, key_1 = key_0 + KEY_INCREMENTS[0] & WORD, key_1 + KEY_INCREMENTS[1] & WORD
    return word_0, word_1, word_2, word_3


def uniform_of_word(word: Int64[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Return the upper 24 bits as a number in [0, 1); 32 bits could round to 1."""
    return (word >> 8).to(torch.float32) * 2.0**-24


def quantile_of_word(word: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return the quantile of the normal distribution at (word + 0.5) / 2**32, from -6.34 to 6.34."""
    offset = (word.to(torch.float64) + (0.5 - 2.0**31)) * 2.0**-32  # p - 0.5, exact
    square = CENTRAL_SQUARE - offset * offset  # [2] the central region, |p - 0.5| <= 0.425
    central = offset * (_polynomial(CENTRAL_NUMERATOR, square) / _polynomial(CENTRAL_DENOMINATOR, square))
    is_tail = offset.abs() > CENTRAL
    return central.masked_scatter_(is_tail, _tail_quantile(offset.masked_select(is_tail)))


def _tail_quantile(offset: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Return the normal quantile at `offset + 0.5`, within 0.075 of 0 or 1."""
    radius = _sqrt(-_log(0.5 - offset.abs())) - TAIL_START  # [2] the near tail
    magnitude = _polynomial(TAIL_NUMERATOR, radius) / _polynomial(TAIL_DENOMINATOR, radius)
    return torch.copysign(magnitude, offset)


def _log(x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    mantissa, exponent = torch.frexp(x)
    is_small = mantissa < SQRT_HALF
    mantissa = torch.where(is_small, 2.0 * mantissa, mantissa)  # in [sqrt(1/2), sqrt(2))
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    log_of_mantissa = ratio * _polynomial(ATANH_SERIES, ratio * ratio)  # log(m) = 2 atanh((m - 1) / (m + 1))
    return (exponent - is_small.to(exponent.dtype)).to(torch.float64) * LOG_2 + log_of_mantissa


def _sqrt(x: Float64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """Return the square root of numbers from 2.5 to 23 by Heron's rule."""
    root = _polynomial(SQRT_START, x)
    for _ in range(SQRT_ITERATIONS):
        root = (root + x / root) * 0.5
    return root


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total.add_(coefficient).mul_(x)
    return total.add_(coefficients[0])


def _clock_word(step: int, cell_step: int) -> int:
    for name, value in (("step", step), ("cell_step", cell_step)):
        require(0 <= value <= MAX_STEP, name, value, f"from 0 to {MAX_STEP}; use fewer steps")
    return step << 16 | cell_step


def _row_chunks(region: Region, numbers_per_row: int) -> Sequence[Int64[Tensor, " h"]]:
    return torch.split(region.rows(), max(CHUNK // numbers_per_row, 1))
