"""Random numbers that depend on seed and place alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffnca.canvas.noise as constants
from diffnca.canvas.noise import Noise, Stream, philox, quantile_of_word, uniform_of_word
from diffnca.canvas.region import Canvas, Region

examples = settings(max_examples=50, deadline=None)  # a busy machine is slow, not wrong
DRAWN_STREAMS = [Stream.INITIAL, Stream.STEP, Stream.TASK]
CENTRAL_POLYNOMIALS = (constants.CENTRAL_NUMERATOR, constants.CENTRAL_DENOMINATOR)
TAIL_POLYNOMIALS = (constants.TAIL_NUMERATOR, constants.TAIL_DENOMINATOR)
LARGE = Canvas(400, 400).whole
WIDE = Canvas(3, 60_000).whole  # rows so long that torch computes on several threads
words = st.integers(0, 2**32 - 1)
seeds = st.integers(0, 2**64 - 1)


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Regions of any canvas, on circular axes also over the edge."""
    sides, boundary, starts, lengths = [], [], [], []
    for _ in range(2):
        size, axis = draw(st.integers(1, 12)), draw(st.sampled_from(["reflect", "circular"]))
        length = draw(st.integers(1, size))
        first = st.integers(0, size - length) if axis == "reflect" else st.integers(-2 * size, 2 * size)
        sides.append(size), boundary.append(axis), starts.append(draw(first)), lengths.append(length)
    return Region(*starts, *lengths, Canvas(*sides, tuple(boundary)))


def one_pixel(row: int, column: int) -> Region:
    return Region(row, column, 1, 1, Canvas(2**31, 2**31))


def philox_of_integers(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's unbounded integers, word by word."""
    for _ in range(10):
        first, second = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (second >> 32) ^ counter[1] ^ key[0],
            second % 2**32,
            (first >> 32) ^ counter[3] ^ key[1],
            first % 2**32,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


def philox_of_one(counter: list[int], key: list[int]) -> list[int]:
    tensors = [torch.tensor([word]) for word in counter + key]
    return [int(word) for word in philox(tuple(tensors[:4]), tuple(tensors[4:]))]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.double().flatten(), b.double().flatten()]))[0, 1])


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


# Philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that the authors publish with Random123 (kat_vectors, philox4x32 10)
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    assert philox_of_one(counter, key) == expected


@examples
@given(st.lists(words, min_size=4, max_size=4), st.lists(words, min_size=2, max_size=2))
def test_philox_in_wrapping_int64_is_philox_in_unbounded_integers(counter: list[int], key: list[int]) -> None:
    assert philox_of_one(counter, key) == philox_of_integers(counter, key)


# Distribution


@examples
@given(words)
def test_a_normal_number_is_the_quantile_of_its_word(word: int) -> None:
    expected = NormalDist().inv_cdf((word + 0.5) / 2**32)
    assert float(quantile_of_word(torch.tensor([word])).float()) == pytest.approx(
        expected, rel=1.2e-7, abs=1e-15
    )


@pytest.mark.parametrize(
    "word", [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1] + [int(0.075 * 2**32) + d for d in (-1, 0, 1)]
)
def test_a_normal_number_is_right_at_the_ends_and_seams_of_the_approximation(word: int) -> None:
    expected = NormalDist().inv_cdf((word + 0.5) / 2**32)
    assert float(quantile_of_word(torch.tensor([word])).float()) == pytest.approx(
        expected, rel=1.2e-7, abs=1e-15
    )


@examples
@given(words)
def test_the_normal_numbers_are_exactly_symmetric(word: int) -> None:
    low, high = quantile_of_word(torch.tensor([word, 2**32 - 1 - word]))
    assert low == -high


@pytest.mark.parametrize("length", [1, 7, 8, 100, 1001])
def test_the_bits_of_a_quantile_do_not_depend_on_its_place_in_the_array(length: int) -> None:
    many = torch.randint(0, 2**32, (20_011,), generator=torch.Generator().manual_seed(0))
    parts = many[: 2 * length + 200].split(length)
    in_parts = torch.cat([quantile_of_word(part) for part in parts])
    assert torch.equal(quantile_of_word(many)[: len(in_parts)], in_parts)


def polynomial_in_floats(coefficients: tuple[float, ...], x: float) -> float:
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def quantile_in_floats(word: int) -> float:
    """The documented arithmetic in Python's floats, which are IEEE float64 and never fused."""
    offset = (word + 0.5 - 2**31) / 2**32
    if abs(offset) <= constants.CENTRAL:
        x, above, below = constants.CENTRAL_SQUARE - offset * offset, *CENTRAL_POLYNOMIALS
        return offset * (polynomial_in_floats(above, x) / polynomial_in_floats(below, x))
    mantissa, exponent = math.frexp(0.5 - abs(offset))
    if mantissa < constants.SQRT_HALF:
        mantissa, exponent = 2 * mantissa, exponent - 1
    ratio = (mantissa - 1) / (mantissa + 1)
    log = exponent * constants.LOG_2 + ratio * polynomial_in_floats(constants.ATANH_SERIES, ratio * ratio)
    root = polynomial_in_floats(constants.SQRT_START, -log)
    for _ in range(constants.SQRT_ITERATIONS):
        root = (root + -log / root) * 0.5
    x, above, below = root - constants.TAIL_START, *TAIL_POLYNOMIALS
    return math.copysign(polynomial_in_floats(above, x) / polynomial_in_floats(below, x), offset)


def test_the_bits_of_a_quantile_are_those_of_python_floats() -> None:
    many = torch.randint(0, 2**32, (20_011,), generator=torch.Generator().manual_seed(1))
    expected = torch.tensor([quantile_in_floats(word) for word in many.tolist()], dtype=torch.float64)
    assert torch.equal(quantile_of_word(many), expected)


@examples
@given(words)
def test_a_quantile_is_right_to_the_last_bits_of_float64(word: int) -> None:
    expected = NormalDist().inv_cdf((word + 0.5) / 2**32)
    assert float(quantile_of_word(torch.tensor([word]))) == pytest.approx(expected, rel=1e-15, abs=1e-24)


def test_the_largest_word_is_a_uniform_number_below_one() -> None:
    assert float(uniform_of_word(torch.tensor([2**32 - 1]))) == 1 - 2**-24


def test_the_uniform_numbers_begin_at_zero() -> None:
    assert float(uniform_of_word(torch.tensor([0]))) == 0.0


@pytest.mark.parametrize(("power", "expected", "variance"), [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)])
def test_the_normal_numbers_have_the_moments_of_the_normal(power: int, expected: int, variance: int) -> None:
    drawn = Noise((1,)).normal(Stream.INITIAL, 0, LARGE, 4).double()
    assert abs(float((drawn**power).mean()) - expected) < 5 * math.sqrt(variance / drawn.numel())


def test_the_uniform_numbers_are_evenly_spread() -> None:
    drawn = Noise((1,)).uniform(Stream.INITIAL, 0, LARGE, 4).flatten().sort().values
    largest_gap = (drawn - torch.linspace(0, 1, drawn.numel())).abs().max()
    assert float(largest_gap) < 2 / math.sqrt(drawn.numel())  # Kolmogorov-Smirnov, p = 7e-4


# Place


@examples
@given(regions(), seeds, st.sampled_from(DRAWN_STREAMS), st.integers(0, 65535), st.integers(1, 9))
def test_the_normal_numbers_of_a_region_are_a_crop_of_those_of_the_canvas(
    region: Region, seed: int, stream: Stream, step: int, channels: int
) -> None:
    noise, whole = Noise((seed,)), region.canvas.whole
    of_whole = noise.normal(stream, step, whole, channels)
    assert torch.equal(noise.normal(stream, step, region, channels), region.crop(of_whole, of=whole))


@examples
@given(regions(), seeds, st.integers(0, 65535), st.integers(1, 9))
def test_the_uniform_numbers_of_a_region_are_a_crop_of_those_of_the_canvas(
    region: Region, seed: int, step: int, channels: int
) -> None:
    noise, whole = Noise((seed,)), region.canvas.whole
    of_whole = noise.uniform(Stream.TASK, step, whole, channels)
    assert torch.equal(noise.uniform(Stream.TASK, step, region, channels), region.crop(of_whole, of=whole))


@examples
@given(regions(), seeds, st.integers(0, 65535), st.integers(0, 65535))
def test_the_cell_mask_of_a_region_is_a_crop_of_that_of_the_canvas(
    region: Region, seed: int, step: int, cell_step: int
) -> None:
    noise, whole = Noise((seed,)).at(step), region.canvas.whole
    of_whole = noise.mask(cell_step, whole, 0.5)
    assert torch.equal(noise.mask(cell_step, region, 0.5), region.crop(of_whole, of=whole))


@examples
@given(regions(), st.integers(0, 8))
def test_a_halo_over_an_edge_has_the_numbers_of_the_grown_region(region: Region, n: int) -> None:
    grown, noise = region.grow(n), Noise((3,))
    of_grown = noise.normal(Stream.STEP, 1, grown, 3)
    assert torch.equal(noise.normal(Stream.STEP, 1, region, 3), region.crop(of_grown, of=grown))


@examples
@given(*[st.integers(0, 2**31 - 1)] * 2, seeds, st.sampled_from(DRAWN_STREAMS), *[st.integers(0, 65535)] * 2)
def test_a_number_is_the_documented_word_of_the_documented_counter(
    row: int, column: int, seed: int, stream: Stream, step: int, channel: int
) -> None:
    counter = [row, column, (stream << 24) + channel // 4, step << 16]
    word = philox_of_integers(counter, [seed % 2**32, seed // 2**32])[channel % 4]
    drawn = Noise((seed,)).uniform(stream, step, one_pixel(row, column), channel + 1)
    assert float(drawn[0, channel]) == (word >> 8) / 2**24


@examples
@given(*[st.integers(0, 2**31 - 1)] * 2, seeds, *[st.integers(0, 65535)] * 2, st.floats(0, 1))
def test_a_cell_updates_if_the_documented_word_is_below_the_probability(
    row: int, column: int, seed: int, step: int, cell_step: int, probability: float
) -> None:
    counter = [row, column // 4, Stream.CELL << 24, (step << 16) + cell_step]
    word = philox_of_integers(counter, [seed % 2**32, seed // 2**32])[column % 4]
    mask = Noise((seed,)).at(step).mask(cell_step, one_pixel(row, column), probability)
    assert bool(mask) == (word < round(probability * 2**32))


def test_the_last_channel_that_is_allowed_has_its_own_number() -> None:
    counter = [7, 9, (Stream.STEP << 24) + 2**18 - 1, 5 << 16]
    word = philox_of_integers(counter, [11, 0])[3]
    drawn = Noise((11,)).uniform(Stream.STEP, 5, one_pixel(7, 9), 2**20)
    assert float(drawn[0, -1]) == (word >> 8) / 2**24


def test_fewer_channels_are_the_first_of_more() -> None:
    noise = Noise((0,))
    more = noise.normal(Stream.STEP, 0, Canvas(5, 6).whole, 9)
    assert torch.equal(noise.normal(Stream.STEP, 0, Canvas(5, 6).whole, 6), more[:, :6])


def test_the_canvas_does_not_change_the_numbers_of_a_place() -> None:
    small, large = Canvas(5, 6).whole, Canvas(50, 60, ("circular", "circular")).whole
    drawn = Noise((0,)).normal(Stream.STEP, 0, large, 3)
    assert torch.equal(Noise((0,)).normal(Stream.STEP, 0, small, 3), drawn[..., :5, :6])


# Batch


@examples
@given(st.lists(seeds, min_size=1, max_size=4), regions())
def test_an_image_has_the_same_numbers_in_any_batch(batch: list[int], region: Region) -> None:
    drawn = Noise(tuple(batch)).normal(Stream.STEP, 2, region, 3)
    alone = torch.cat([Noise((seed,)).normal(Stream.STEP, 2, region, 3) for seed in batch])
    assert torch.equal(drawn, alone)


@examples
@given(st.lists(seeds, min_size=1, max_size=4), regions())
def test_an_image_has_the_same_cell_masks_in_any_batch(batch: list[int], region: Region) -> None:
    mask = Noise(tuple(batch)).at(2).mask(3, region, 0.5)
    assert torch.equal(mask, torch.cat([Noise((seed,)).at(2).mask(3, region, 0.5) for seed in batch]))


# Machine


@pytest.mark.usefixtures("four_threads")
def test_four_threads_draw_the_same_bits_as_one() -> None:
    with_four = Noise((5, 6)).normal(Stream.STEP, 1, WIDE, 3)
    torch.set_num_threads(1)
    assert torch.equal(Noise((5, 6)).normal(Stream.STEP, 1, WIDE, 3), with_four)


@pytest.mark.usefixtures("four_threads")
def test_four_threads_draw_the_same_cell_mask_as_one() -> None:
    with_four = Noise((5, 6)).at(1).mask(2, WIDE, 0.9)
    torch.set_num_threads(1)
    assert torch.equal(Noise((5, 6)).at(1).mask(2, WIDE, 0.9), with_four)


def test_tiles_drawn_by_four_workers_make_up_the_canvas() -> None:
    noise, whole = Noise((5,)), Canvas(90, 70).whole
    tiles = list(whole.tiles(17, 23))
    with ThreadPoolExecutor(4) as workers:
        parts = workers.map(lambda tile: noise.normal(Stream.STEP, 1, tile, 3), tiles)
    of_whole = noise.normal(Stream.STEP, 1, whole, 3)
    assert all(
        torch.equal(part, tile.crop(of_whole, of=whole)) for tile, part in zip(tiles, parts, strict=True)
    )


@pytest.mark.parametrize("numbers", [1, 70, 200])
def test_drawing_in_chunks_changes_no_number(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    region, noise = Canvas(9, 11).whole, Noise((1, 2))
    at_once = noise.normal(Stream.STEP, 0, region, 5)
    monkeypatch.setattr(constants, "CHUNK", numbers)
    assert torch.equal(noise.normal(Stream.STEP, 0, region, 5), at_once)


@pytest.mark.parametrize("numbers", [1, 70, 200])
def test_masking_in_chunks_changes_no_cell(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    region, noise = Canvas(9, 11).whole, Noise((1, 2)).at(0)
    at_once = noise.mask(0, region, 0.5)
    monkeypatch.setattr(constants, "CHUNK", numbers)
    assert torch.equal(noise.mask(0, region, 0.5), at_once)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_bits() -> None:
    on_gpu = Noise((5, 6), "cuda").normal(Stream.STEP, 1, LARGE, 3)
    assert torch.equal(on_gpu.cpu(), Noise((5, 6)).normal(Stream.STEP, 1, LARGE, 3))


def test_a_device_without_float64_has_its_numbers_computed_on_the_cpu() -> None:
    assert Noise((0,), "mps").computed_on == torch.device("cpu")


def test_the_default_type_of_torch_does_not_change_the_numbers() -> None:
    expected = Noise((0,)).normal(Stream.STEP, 0, Canvas(5, 5).whole, 3)
    torch.set_default_dtype(torch.float64)
    try:
        drawn = Noise((0,)).normal(Stream.STEP, 0, Canvas(5, 5).whole, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(drawn, expected)


# Independence

DRAWS = {
    "stream": lambda: [Noise((1,)).normal(stream, 0, LARGE, 1) for stream in DRAWN_STREAMS],
    "step": lambda: [Noise((1,)).normal(Stream.STEP, step, LARGE, 1) for step in (0, 1, 2, 256)],
    "seed": lambda: [Noise((seed,)).normal(Stream.STEP, 0, LARGE, 1) for seed in (1, 2, 1 + 2**32, 2**63)],
    "channel": lambda: list(Noise((1,)).normal(Stream.STEP, 0, LARGE, 6).unbind(1)),
    "cell_step": lambda: [Noise((1,)).at(0).mask(k, LARGE, 0.5) for k in (0, 1, 2, 256)],
    "step of masks": lambda: [Noise((1,)).at(step).mask(0, LARGE, 0.5) for step in (0, 1, 2, 256)],
    "seed of masks": lambda: [Noise((seed,)).at(0).mask(0, LARGE, 0.5) for seed in (1, 2, 1 + 2**32, 2**63)],
}


@pytest.mark.parametrize("what", DRAWS)
def test_draws_that_differ_in_one_thing_are_uncorrelated(what: str) -> None:
    draws = torch.stack([draw.double().flatten() for draw in DRAWS[what]()])
    between = torch.corrcoef(draws) - torch.eye(len(draws))
    assert float(between.abs().max()) < 5 / math.sqrt(draws.shape[1])


@pytest.mark.parametrize(("down", "right"), [(0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (0, 4), (4, 0)])
def test_neighbouring_pixels_are_uncorrelated(down: int, right: int) -> None:
    drawn = Noise((1,)).normal(Stream.STEP, 0, LARGE, 1)[0, 0]
    near = drawn[: 400 - down, : 400 - right]
    assert abs(correlation(near, drawn[down:, right:])) < 5 / math.sqrt(near.numel())


@pytest.mark.parametrize(("down", "right"), [(0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (0, 4), (4, 0)])
def test_neighbouring_cells_update_independently(down: int, right: int) -> None:
    mask = Noise((1,)).at(0).mask(0, LARGE, 0.5)[0, 0]
    near = mask[: 400 - down, : 400 - right]
    assert abs(correlation(near, mask[down:, right:])) < 5 / math.sqrt(near.numel())


# Masks


@pytest.mark.parametrize("probability", [0.01, 0.5, 0.9])
def test_the_share_of_updating_cells_is_the_probability(probability: float) -> None:
    mask = Noise((1,)).at(0).mask(0, LARGE, probability)
    deviation = math.sqrt(probability * (1 - probability) / mask.numel())
    assert abs(float(mask.double().mean()) - probability) < 5 * deviation


def test_every_cell_updates_at_probability_one() -> None:
    assert bool(Noise((1,)).at(0).mask(0, LARGE, 1.0).all())


def test_no_cell_updates_at_probability_zero() -> None:
    assert not bool(Noise((1,)).at(0).mask(0, LARGE, 0.0).any())


def test_a_cell_that_updates_also_does_at_a_higher_probability() -> None:
    rare, often = (Noise((1,)).at(0).mask(0, LARGE, probability) for probability in (0.3, 0.6))
    assert bool((often | ~rare).all())


def test_a_mask_has_one_channel_per_image() -> None:
    assert Noise((1, 2)).at(0).mask(0, Canvas(3, 5).whole, 0.5).shape == (2, 1, 3, 5)


# Errors


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**64])
def test_a_seed_that_is_no_64_bit_key_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed={seed}: must be from 0 to 2\*\*64-1"):
        Noise((0, seed))


def test_a_batch_of_no_images_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Noise(())


@pytest.mark.parametrize("step", [-1, 65536])
def test_a_step_beyond_the_counter_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=f"step={step}: must be from 0 to 65535"):
        Noise((0,)).normal(Stream.STEP, step, Canvas(1, 1).whole, 1)


@pytest.mark.parametrize("cell_step", [-1, 65536])
def test_a_cell_step_beyond_the_counter_is_refused(cell_step: int) -> None:
    with pytest.raises(ValueError, match=f"cell_step={cell_step}: must be from 0 to 65535"):
        Noise((0,)).at(0).mask(cell_step, Canvas(1, 1).whole, 0.5)


@pytest.mark.parametrize("channels", [0, -1, 2**20 + 1])
def test_channels_beyond_the_counter_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"channels={channels}: must be from 1 to 1048576"):
        Noise((0,)).normal(Stream.STEP, 0, Canvas(1, 1).whole, channels)


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_beyond_zero_and_one_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        Noise((0,)).at(0).mask(0, Canvas(1, 1).whole, probability)


def test_numbers_that_would_repeat_those_of_the_cell_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at\(step\)\.mask"):
        Noise((0,)).normal(Stream.CELL, 0, Canvas(1, 1).whole, 1)
