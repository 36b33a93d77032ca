"""A discriminator: its loss, the spread of a batch, its memory."""

import torch

from diffnca.training.discriminator import MEMORY, Memory, colour_widths, colours, hinge, spread

from .conftest import stripes


def test_the_discriminator_minimises_the_hinge_loss() -> None:
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.5])
    assert float(hinge([real], [made])) == (0.0 + 0.5) / 2 + (0.0 + 1.5) / 2
    assert float(hinge([real, torch.full((1,), 3.0)], [made, torch.full((1,), -3.0)])) == (1.0 + 0.0) / 2


def test_images_that_are_all_alike_have_no_spread() -> None:
    assert float(spread(stripes(0)[:1].expand(4, -1, -1, -1)).max()) < 0.01


def test_the_spread_is_the_mean_deviation_of_the_features_of_a_place() -> None:
    level = torch.tensor([[1.0, 5.0], [3.0, 5.0]])[:, :, None, None].repeat(1, 1, 2, 3)
    torch.testing.assert_close(spread(level), torch.full((2, 1, 2, 3), 3.0 * (1.0 + 0.001) / 2))


def test_coarse_colours_are_means_of_squares() -> None:
    images = torch.arange(64.0).reshape(1, 1, 8, 8).repeat_interleave(2, -1).repeat_interleave(2, -2)
    places, whole = colours(images)
    assert torch.equal(places, 2.0 * torch.arange(64.0).reshape(1, 1, 8, 8))
    assert whole[0, :2, 0, 0].tolist() == [2.0 * (0 + 1 + 8 + 9) / 4, 2.0 * (2 + 3 + 10 + 11) / 4]
    assert (places.shape[1], whole.shape[1]) == colour_widths(1)


def test_the_memory_holds_the_last_images() -> None:
    memory = Memory([torch.Size((1, 1, 1)), torch.Size((2, 1, 1))])
    for number in range(MEMORY + 3):
        level = torch.full((1, 1, 1, 1), float(number))
        memory.add([level, level.repeat(1, 2, 1, 1)], [-level, -level.repeat(1, 2, 1, 1)])
    real, made = memory.drawn(1000, torch.Generator().manual_seed(0))
    assert set(real[0].flatten().tolist()) == set(map(float, range(3, MEMORY + 3)))
    assert torch.equal(real[0].expand(-1, 2, -1, -1), real[1])
    assert made[0].shape == (1000, 1, 1, 1)
    assert float(made[0].max()) < 0.0


def test_the_memory_gives_only_what_it_has_seen() -> None:
    memory = Memory([torch.Size((1, 1, 1))])
    memory.add([torch.ones(2, 1, 1, 1)], [torch.ones(2, 1, 1, 1)])
    assert all(bool(level.all()) for levels in memory.drawn(50, torch.Generator()) for level in levels)
