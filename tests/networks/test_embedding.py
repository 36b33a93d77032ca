"""Positions and embeddings, written out."""

import math

import pytest
import torch

from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import CellConfig
from diffnca.networks.embedding import Embedding, FourierEmbedding, LinearEmbedding, positions

CPU = torch.device("cpu")
T = torch.tensor([0.25, 0.75])
FIRST = torch.tensor(0.0)


def test_relative_positions_run_from_one_to_zero_over_the_canvas() -> None:
    rows, columns = positions("relative", Canvas(5, 3).whole, CPU)
    torch.testing.assert_close(rows[:, 0], torch.linspace(1, 0, 5))
    torch.testing.assert_close(columns[0], torch.linspace(1, 0, 3))


def test_the_relative_position_on_a_side_of_one_pixel_is_one() -> None:
    assert positions("relative", Canvas(1, 1).whole, CPU).tolist() == [[[1.0]], [[1.0]]]


@pytest.mark.parametrize("kind", ["relative", "pixels"])
def test_positions_on_a_part_are_a_crop_of_those_on_the_canvas(kind: str) -> None:
    whole = Canvas(20, 30).whole
    part = Region(4, 7, 5, 6, whole.canvas)
    assert torch.equal(positions(kind, part, CPU), part.crop(positions(kind, whole, CPU), whole))


def test_pixel_positions_count_from_the_centre_in_units_of_32_px() -> None:
    rows, columns = positions("pixels", Canvas(3, 2).whole, CPU)
    assert (32 * rows[:, 0]).tolist() == [-1.0, 0.0, 1.0]
    assert (32 * columns[0]).tolist() == [-0.5, 0.5]


def test_pixel_positions_count_from_a_given_origin() -> None:
    rows, columns = positions("pixels", Canvas(4, 3).whole, CPU, origin=(2, 0))
    assert (32 * rows[:, 0]).tolist() == [-2.0, -1.0, 0.0, 1.0]
    assert (32 * columns[0]).tolist() == [0.0, 1.0, 2.0]


def test_there_may_be_no_positions() -> None:
    assert positions("none", Canvas(4, 3).whole, CPU) is None


def test_the_linear_embedding_multiplies_each_number_by_its_own_constants() -> None:
    embedding = LinearEmbedding(8, 4)
    seen = []
    embedding.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    numbers = torch.tensor([3.0, 5.0, 7.0, 11.0])
    embedding(numbers[None, :, None, None])
    expected = [
        number * wave(i * rate)
        for i, number in enumerate(numbers.tolist())
        for wave in (math.cos, math.sin)
        for rate in (1.0, 10000.0**-0.5)
    ]
    assert seen[0].flatten().tolist() == pytest.approx(expected, rel=1e-6)


def test_the_fourier_embedding_takes_six_octaves_of_each_number() -> None:
    embedding = FourierEmbedding(2, 8, 4)
    seen = []
    embedding.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    embedding(torch.tensor([0.3, 0.8])[None, :, None, None])
    angles = [number * math.pi / 2 * 2**octave for number in (0.3, 0.8) for octave in range(6)]
    expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
    assert seen[0].flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_an_embedding_without_positions_is_one_for_all_cells() -> None:
    embedded = Embedding(CellConfig(embedding_channels=5))(T, FIRST, Canvas(8, 9).whole)
    assert embedded.shape == (2, 5, 1, 1)


def test_an_embedding_with_positions_is_one_for_each_cell() -> None:
    config = CellConfig(embedding_channels=5, positions="pixels")
    assert Embedding(config)(T, FIRST, Canvas(8, 9).whole).shape == (2, 5, 8, 9)


def test_the_cell_step_is_counted_in_periods() -> None:
    sixteen = Embedding(CellConfig(num_cell_steps=32, cell_step_period=16))
    torch.manual_seed(0)
    whole = Embedding(CellConfig(num_cell_steps=32))
    whole.load_state_dict(sixteen.state_dict())
    region = Canvas(2, 2).whole
    torch.testing.assert_close(sixteen(T, torch.tensor(8.0), region), whole(T, torch.tensor(16.0), region))


def test_a_linear_embedding_without_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="embedding=linear needs positions"):
        Embedding(CellConfig(embedding="linear", positions="none"))
