"""The page of the noise (docs/noise.md) states what `diffnca.canvas.noise` computes."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from diffnca.canvas import noise
from diffnca.canvas.noise import Noise, Stream, philox, quantile_of_word, uniform_of_word
from diffnca.canvas.region import Canvas, Region
from diffnca.sampling.growth import GOLDEN
from diffnca.sampling.starts import EvenNoise

PAGE = (Path(__file__).parents[2] / "docs" / "noise.md").read_text(encoding="utf-8")


def rows_of(*head: str) -> list[list[str]]:
    """Return the rows of the table of the page whose columns have these names."""
    table = re.search(rf"^\| {re.escape(' | '.join(head))} \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table is not None
    return [[cell.strip(" `") for cell in row.strip("|").split(" | ")] for row in table[1].splitlines()]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("seed", "counter", "expected"), rows_of("seed", "counter", "words"))
def test_a_counter_gives_these_words(seed: str, counter: str, expected: str) -> None:
    key = torch.tensor(int(seed, 16) & noise.WORD), torch.tensor(int(seed, 16) >> 32)
    found = philox(tuple(torch.tensor(word) for word in words(counter)), key)  # type: ignore[arg-type]
    assert [int(word) for word in found] == words(expected)


@pytest.mark.parametrize(("word", "uniform", "normal"), rows_of("word", "uniform", "normal"))
def test_a_word_gives_these_numbers(word: str, uniform: str, normal: str) -> None:
    drawn = torch.tensor([int(word, 16)])
    assert (uniform_of_word(drawn).item(), quantile_of_word(drawn).item()) == (float(uniform), float(normal))


def test_the_coefficients_are_those_of_the_code() -> None:
    own = (
        *(noise.CENTRAL_NUMERATOR, noise.CENTRAL_DENOMINATOR),
        *(noise.TAIL_NUMERATOR, noise.TAIL_DENOMINATOR),
    )
    stated = [[float(number) for number in row[1:]] for row in rows_of("power", "a", "b", "c", "e")]
    assert list(zip(*stated, strict=True)) == list(own)


def test_the_streams_are_those_of_the_code() -> None:
    stated = {name: int(number) for number, name, *_ in rows_of("stream", "name", "numbers", "step")}
    assert stated == {stream.name.lower(): int(stream) for stream in Stream}


PLACES = rows_of("seed", "stream", "step", "row", "column", "channels from 0 on")


@pytest.mark.parametrize(("seed", "stream", "step", "row", "column", "expected"), PLACES)
def test_a_place_has_these_numbers(
    seed: str, stream: str, step: str, row: str, column: str, expected: str
) -> None:
    stated = torch.tensor([float(number) for number in expected.split()])
    region = Region(int(row), int(column), 1, 1, Canvas(2000, 3000))
    drawn = Noise((int(seed),)).normal(Stream(int(stream)), int(step), region, len(stated))
    assert drawn.flatten().tolist() == stated.tolist()


@pytest.mark.parametrize(
    ("seed", "step", "cell_step", "row", "cells"), rows_of("seed", "step", "cell step", "row", "cells")
)
def test_these_cells_update(seed: str, step: str, cell_step: str, row: str, cells: str) -> None:
    region = Region(int(row), 0, 1, len(cells), Canvas(100, 100))
    mask = Noise((int(seed),)).at(int(step)).mask(int(cell_step), region, 0.5)
    assert "".join(str(int(updates)) for updates in mask.flatten()) == cells


@pytest.mark.parametrize("constant", [*noise.MULTIPLIERS, *noise.KEY_INCREMENTS, GOLDEN])
def test_the_page_has_the_constants_of_the_code(constant: int) -> None:
    assert f"0x{constant:08X}" in PAGE


def test_the_squares_of_one_tone_are_those_of_the_page() -> None:
    height, width, side = 13, 22, 8
    region, drawn = Canvas(height, width).whole, Noise((7,))
    expected = drawn.normal(Stream.INITIAL, 0, region, 1)[0, 0].double().numpy()
    tone = drawn.normal(Stream.INITIAL, 1, Canvas(1, 1).whole, 1).item()
    squares = [
        ((np.arange(size) + 1) * math.ceil(size / side) - 1) // size * step
        for size, step in ((height, 1000), (width, 1))
    ]
    numbers = np.add.outer(*squares)
    for number in np.unique(numbers):
        inside = numbers == number
        expected[inside] += tone / math.sqrt(side * side) - expected[inside].mean()
    found = EvenNoise(1, side)(region, drawn)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
