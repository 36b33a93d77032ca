"""Styles of new images: drawn by the seed, seen everywhere alike, and what is no style."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffnca import generate, inpaint, interpolate, upscale, vary
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.sampling.known import KnownPixels, Picture
from diffnca.sampling.labels import labelled
from diffnca.sampling.layouts import Obeying
from diffnca.sampling.styles import drawn_styles, known_styles, standard, styled, styles_of_known

from .conftest import denoiser_of

CELL = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
STYLES = np.random.default_rng(0).normal(size=(40, 6)).round(4)
CHANGES = {
    "layout.style": True,
    "layout.styles": tuple(STYLES.ravel().tolist()),
    "data.crop": 16,
    "sampling.steps": 2,
}


def model_of(given: int = 6, **changes: object) -> Denoiser:
    """Return a denoiser with random weights that knows forty styles."""
    config = Config(model=NCAConfig(channels=16, cell=CELL))
    return denoiser_of(with_fields(config, {**CHANGES, "model.given_channels": given, **changes}))


def drawn(*seeds: int) -> torch.Tensor:
    styles = drawn_styles(model_of().config, Noise(seeds))
    assert styles is not None
    return styles


def test_a_style_is_a_function_of_the_seed_alone() -> None:
    assert torch.equal(drawn(7, 2, 2**63)[1:], torch.cat([drawn(2), drawn(2**63)]))


def test_seeds_draw_the_styles_of_all_training_images() -> None:
    assert {tuple(style) for style in drawn(*range(400)).tolist()} == {
        tuple(each) for each in STYLES.tolist()
    }


def test_an_untrained_model_draws_no_style() -> None:
    assert drawn_styles(model_of(**{"layout.styles": ()}).config, Noise((0,))) is None


def test_planes_of_a_style_are_constant_and_follow_all_others() -> None:
    config = model_of(8, **{"layout.labels": ("bark", "moss")}).config
    planes = styled(labelled(None, "moss", config), known_styles(config)[:2], config)
    assert planes is not None
    seen = standard(known_styles(config)[:2], config)
    expected = torch.cat([torch.tensor([[0.0, 1.0]]).expand(2, -1), seen], dim=1)
    assert torch.equal(planes(Canvas(5, 7).whole), expected[:, :, None, None].expand(-1, -1, 5, 7))


def test_an_image_depends_on_its_drawn_style() -> None:
    one, other = model_of(), model_of(**{"layout.styles": tuple(STYLES[::-1].ravel().tolist())})
    assert not torch.equal(*(generate(each, height=16, width=16) for each in (one, other)))


def test_each_image_of_a_batch_has_the_style_of_its_seed() -> None:
    both = generate(model_of(), height=16, width=24, seed=[3, 9])
    alone = [generate(model_of(), height=16, width=24, seed=seed) for seed in (3, 9)]
    assert torch.equal(both, torch.cat(alone))


def test_a_region_equals_the_crop_of_the_whole_to_the_bit() -> None:
    canvas = Canvas(64, 40)
    part = Region(20, 3, 9, 10, canvas)
    whole, alone = (generate(model_of(), height=64, width=40, region=region) for region in (None, part))
    assert torch.equal(alone, part.crop(whole, canvas.whole))


def test_an_image_has_the_style_of_a_picture_whatever_its_seed_draws() -> None:
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    both = generate(model_of(), height=16, width=16, like=pictures, seed=[3, 3])
    alone = [generate(model_of(), height=16, width=16, like=each[None], seed=3) for each in pictures]
    assert torch.equal(both, torch.cat(alone)) and not torch.equal(*alone)


def test_what_is_filled_has_the_style_of_what_is_known() -> None:
    image, mask = (
        torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0)),
        torch.zeros(16, 32) > 0,
    )
    mask[:, 16:] = True
    own = inpaint(model_of(), image, mask, method="paste")
    assert torch.equal(own, inpaint(model_of(), image, mask, method="paste", like=image[..., :16]))
    assert not torch.equal(own, inpaint(model_of(), image, mask, method="paste", like=-image))


@pytest.mark.parametrize(("edit", "share"), [(vary, 0.7), (upscale, 1.5)])
def test_an_edit_has_the_style_of_the_given_image(edit: Callable[..., torch.Tensor], share: float) -> None:
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    own = edit(model_of(), image, share)
    assert torch.equal(own, edit(model_of(), image, share, like=image))
    assert not torch.equal(own, edit(model_of(), image, share, like=-image))


def test_too_little_that_is_known_has_no_style() -> None:
    known = KnownPixels(Picture(torch.zeros(1, 3, 15, 15)))
    assert styles_of_known(known, model_of().config) is None


def test_a_film_begins_with_the_image_of_its_first_seed_and_its_style() -> None:
    changed = model_of(**{"layout.styles": tuple(STYLES[::-1].ravel().tolist())})
    for model in (model_of(), changed):
        first = interpolate(model, (3, 9), (0.0, 0.5), height=16, width=16)[:1]
        assert torch.equal(first, generate(model, height=16, width=16, seed=3))


def test_obeying_a_map_keeps_the_style() -> None:
    model = model_of(8, **{"layout.classes": ("stroma", "gland")})
    query = Query(torch.ones(1, 3, 8, 8), model.schedule.level(100), Canvas(8, 8).whole)
    planes = torch.ones(1, 8, 8, 8)
    free = planes.clone()
    free[:, :2] = 0.0
    followed, unled = (model.estimate(replace(query, given=each)) for each in (planes, free))
    led = Obeying(model, 2.0).estimate(replace(query, given=planes))
    torch.testing.assert_close(led, 2.0 * followed - unled)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (torch.zeros(3, 16, 16), "^like: image of shape .3, 16, 16.: must be .b, 3, height, width. for this"),
        (torch.zeros(1, 3, 15, 15), "^like of 15x15 px: must have 16x16 px or more"),
        (torch.zeros(3, 3, 16, 16), "^like of 3 pictures: must be one, or one for each of 1 images$"),
    ],
)
def test_what_is_no_picture_of_a_style_is_refused_in_one_line(like: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model_of(), height=16, width=16, like=like)


def test_a_model_without_styles_is_like_no_picture() -> None:
    plain = model_of(0, **{"layout.style": False, "layout.styles": ()})
    with pytest.raises(ValueError, match="^like: must be left out for a model that was trained"):
        generate(plain, height=16, width=16, like=torch.zeros(1, 3, 16, 16))
