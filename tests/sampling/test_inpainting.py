"""Holes and margins: what is known stays, what is drawn fits it, what is wrong is said."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffnca.config.model import Config, SamplingConfig
from diffnca.config.recipes import recipe_named
from diffnca.diffusion.denoiser import Query
from diffnca.diffusion.samplers import SAMPLERS
from diffnca.diffusion.schedule import CLEAN, Level, NoiseSchedule
from diffnca.models.build import build_model
from diffnca.sampling.inpaint import extend, inpaint, path_of

each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
each_method = pytest.mark.parametrize("method", ["repaint", "paste"])


@dataclass
class PlainDenoiser:
    """The exact denoiser of images of a single value, which is Gaussian; remembers the levels it is given."""

    image_channels: int = 1
    radius: int | None = None
    has_context: bool = False
    deviation: float = 0.5
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.cosine)
    config: Config = field(default_factory=lambda: Config(sampling=SamplingConfig("ddpm", 20)))
    levels: list[Level] = field(default_factory=list)

    def context(self, query: Query) -> None:
        return None

    def estimate(self, query: Query) -> Tensor:
        x_t, level = query.x_t, query.level
        self.levels.append(level)
        precision = level.alpha**2 * query.region.area / level.sigma**2
        mean = x_t.mean((-2, -1), keepdim=True) / level.alpha
        return (mean * precision / (precision + self.deviation**-2)).expand_as(x_t)


def square_mask(height: int, width: int) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[1 : height - 1, 1 : width - 1] = True
    return mask


def picture(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


@each_method
@each_sampler
def test_known_pixels_stay_to_the_bit(method: Any, sampler: str) -> None:
    image, mask = picture(2, 1, 6, 7), square_mask(6, 7)
    filled = inpaint(PlainDenoiser(), image, mask, method=method, sampler=sampler, steps=5, seed=3)
    assert torch.equal(filled[..., ~mask], image[..., ~mask])


@settings(max_examples=20)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32), st.data())
def test_known_pixels_stay_whatever_the_mask(height: int, width: int, seed: int, data: st.DataObject) -> None:
    area = height * width
    if area == 1:
        return
    bits = data.draw(
        st.lists(st.booleans(), min_size=area, max_size=area).filter(lambda b: any(b) and not all(b))
    )
    image, mask = picture(1, 1, height, width), torch.tensor(bits).reshape(height, width)
    filled = inpaint(PlainDenoiser(), image, mask, steps=3, rounds=2, jump=2, seed=seed)
    assert torch.equal(filled[..., ~mask], image[..., ~mask])


def test_holes_are_filled_anew() -> None:
    image, mask = picture(1, 1, 6, 7), square_mask(6, 7)
    filled = inpaint(PlainDenoiser(), image, mask, steps=5)
    assert not bool((filled[..., mask] == image[..., mask]).any())


def test_the_fill_follows_what_is_known() -> None:
    mask = square_mask(8, 8)
    fills = [
        inpaint(PlainDenoiser(), torch.full((1, 1, 8, 8), value), mask)[..., mask] for value in (-0.4, 0.4)
    ]
    assert float(fills[0].mean()) < -0.2 < 0.2 < float(fills[1].mean())


def test_more_rounds_fit_the_hole_better_to_what_is_known() -> None:
    image, mask = torch.full((16, 1, 8, 8), 0.6), torch.ones(8, 8, dtype=torch.bool)
    mask[0] = False

    def error(rounds: int) -> float:
        filled = inpaint(PlainDenoiser(), image, mask, rounds=rounds, jump=2)
        return float((filled[..., mask] - 0.6).square().mean())

    assert error(8) < 0.5 * error(1)


def test_repaint_calls_the_denoiser_for_each_step_of_each_round() -> None:
    denoiser = PlainDenoiser()
    inpaint(denoiser, picture(1, 1, 4, 4), square_mask(4, 4), steps=7, jump=3, rounds=4)
    assert len(denoiser.levels) == 7 * 4


def test_rounds_go_back_to_where_a_part_begins() -> None:
    a, b, c, d, e = levels = tuple(NoiseSchedule.cosine(9).level(index) for index in (8, 6, 4, 2, 0))
    assert path_of(levels, "repaint", 2, 2) == (a, b, c, a, b, c, d, e, c, d, e, CLEAN, e)


def test_one_round_and_paste_walk_once() -> None:
    levels = tuple(NoiseSchedule.cosine(9).level(index) for index in (8, 6, 4))
    assert path_of(levels, "repaint", 2, 1) == path_of(levels, "paste", 2, 5) == levels


def test_images_are_filled_alike_in_any_batch() -> None:
    image, mask = picture(3, 1, 6, 7), square_mask(6, 7)
    together = inpaint(PlainDenoiser(), image, mask, steps=5, seed=4)
    assert torch.equal(inpaint(PlainDenoiser(), image[2:], mask, steps=5, seed=6), together[2:])


def test_one_image_is_filled_once_for_each_seed() -> None:
    image, mask = picture(1, 1, 6, 7), square_mask(6, 7)
    several = inpaint(PlainDenoiser(), image, mask, steps=5, seed=[5, 9])
    assert torch.equal(several[1:], inpaint(PlainDenoiser(), image, mask, steps=5, seed=9))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(4, 5, dtype=torch.bool), "marks nothing to fill"),
        (torch.ones(4, 5, dtype=torch.bool), "nothing is known"),
        (torch.ones(5, 4, dtype=torch.bool), "4x5 px, as its image"),
        (torch.ones(4, 5), "must be boolean"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inpaint(PlainDenoiser(), picture(1, 1, 4, 5), mask)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(1, 3, 4, 4), r"must be \(b, 1, height, width\)"),
        (picture(1, 4, 4), r"must be \(b, 1, height, width\)"),
        (2.0 * picture(1, 1, 4, 4), "from -1 to 1"),
        (torch.full((1, 1, 4, 4), torch.nan), "from -1 to 1"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "from -1 to 1"),
    ],
)
def test_images_that_do_not_fit_are_refused(image: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extend(PlainDenoiser(), image, top=1)


@pytest.mark.parametrize(("options", "name"), [({"jump": 0}, "jump=0"), ({"rounds": 0}, "rounds=0")])
def test_walks_that_do_not_exist_are_refused(options: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        inpaint(PlainDenoiser(), picture(1, 1, 4, 4), square_mask(4, 4), **options)


def test_models_that_only_make_new_images_are_refused() -> None:
    vnca = build_model(recipe_named("vnca"))
    with pytest.raises(ValueError, match="must be a denoiser"):
        inpaint(vnca, picture(1, 3, 8, 8), square_mask(8, 8))


@each_sampler
def test_an_extended_image_holds_the_image_to_the_bit(sampler: str) -> None:
    image = picture(2, 1, 5, 6)
    grown = extend(PlainDenoiser(), image, top=1, bottom=2, left=3, right=4, sampler=sampler, steps=5)
    assert grown.shape == (2, 1, 8, 13)
    assert torch.equal(grown[..., 1:6, 3:9], image)


@pytest.mark.parametrize("sides", [{}, {"top": 0}, {"left": -1, "right": 2}])
def test_margins_that_add_nothing_are_refused(sides: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="margins"):
        extend(PlainDenoiser(), picture(1, 1, 4, 4), **sides)


def test_a_walk_that_no_noise_is_long_enough_for_is_refused_before_it_begins() -> None:
    schedule = PlainDenoiser().schedule
    levels = tuple(schedule.level(index) for index in range(299, -1, -1))
    with pytest.raises(
        ValueError, match="rounds=200: must be few enough for a walk of 65536 steps, not 71940"
    ):
        path_of(levels, "repaint", 5, 200)
