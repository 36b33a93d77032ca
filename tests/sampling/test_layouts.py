"""Layouts of new images: planes of any region of any canvas, and a model that is led to them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffnca import generate
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.data.layouts import UNKNOWN
from diffnca.diffusion.denoiser import Denoiser, Query, estimate_alone
from diffnca.models.build import build_denoiser
from diffnca.sampling.guidance import Guided
from diffnca.sampling.layouts import Layout, Obeying, layout_of, shown_layout

CELL = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
LEGEND = {"layout.classes": ("stroma", "gland"), "model.given_channels": 2, "sampling.steps": 2}
MODELS = {
    "coarse": NCAConfig(patch=2, channels=27, cell=CELL, coarse=CoarseConfig(4, 60, 3, CELL)),
    "fourier": NCAConfig("fourier_diff_nca", channels=9, cell=CELL, fourier=FourierConfig(4, cell=CELL)),
}
MAP = torch.tensor([[0, 1, -1], [1, 1, 0]])


def model_of(name: str = "coarse", **changes: object) -> Denoiser:
    """Return a denoiser with random weights that knows layouts, and grows from images of 16 px."""
    torch.manual_seed(0)
    config = with_fields(Config(model=MODELS[name]), {**LEGEND, "data.crop": 16, **changes})
    denoiser = build_denoiser(config).requires_grad_(False)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    return denoiser


def layout(numbers: Tensor = MAP) -> Layout:
    return layout_of(numbers, 1.0, model_of().config, 1)


def test_a_plane_is_full_where_its_class_is() -> None:
    planes = layout()(Canvas(2, 3).whole)[0]
    assert torch.equal(planes, torch.stack([MAP == 0, MAP == 1]).float())


def test_the_planes_of_a_map_are_read_back_as_the_map() -> None:
    assert torch.equal(shown_layout(layout()(Canvas(2, 3).whole)).signed[0], MAP)


@pytest.mark.parametrize("name", MODELS)
def test_an_image_depends_on_its_layout(name: str) -> None:
    made = [
        generate(model_of(name), height=16, width=24, layout=numbers)
        for numbers in (MAP, 1 - MAP.abs(), None)
    ]
    assert all(not torch.equal(one, other) for one, other in ((made[0], made[1]), (made[0], made[2])))


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_layout_is_no_layout(name: str) -> None:
    unknown = torch.full((4, 4), -1)
    found = generate(model_of(name), height=16, width=16, layout=unknown)
    assert torch.equal(found, generate(model_of(name), height=16, width=16))


def test_each_image_of_a_batch_may_have_its_own_layout() -> None:
    maps = torch.stack([MAP, 1 - MAP.abs()])
    both = generate(model_of(), height=16, width=24, layout=maps, seed=[3, 3])
    alone = [generate(model_of(), height=16, width=24, layout=each, seed=3) for each in maps]
    assert torch.equal(both, torch.cat(alone))


def test_a_region_equals_the_crop_of_the_whole_to_the_bit() -> None:
    canvas = Canvas(64, 40)
    part, options = Region(20, 3, 9, 10, canvas), {"height": 64, "width": 40, "layout": MAP, "obey": 2.0}
    whole, alone = (generate(model_of(), region=region, **options) for region in (None, part))
    assert torch.equal(alone, part.crop(whole, canvas.whole))


def test_the_layout_leads_the_growth_of_an_image_too() -> None:
    found = [generate(model_of("fourier"), height=40, width=40, layout=each) for each in (MAP, -MAP.abs())]
    assert not torch.equal(*found)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("obey", [0.0, 1.0, 3.0])
def test_an_obedient_estimate_lies_on_the_line_from_the_one_without_to_the_one_with(
    name: str, obey: float
) -> None:
    model, whole = model_of(name), Canvas(16, 24).whole
    x_t = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    query = Query(x_t, model.schedule.level(100), whole, Noise((1,)).at(0), given=layout()(whole))
    followed, free = (estimate_alone(model, each) for each in (query, replace(query, given=None)))
    found = estimate_alone(Obeying(model, obey), query)
    torch.testing.assert_close(found, free + obey * (followed - free), atol=1e-4, rtol=1e-4)


def test_without_a_layout_there_is_nothing_to_obey() -> None:
    model, whole = model_of(), Canvas(16, 24).whole
    query = Query(torch.ones(1, 3, 16, 24), model.schedule.level(100), whole)
    assert torch.equal(estimate_alone(Obeying(model, 3.0), query), estimate_alone(model, query))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": MAP + 1}, r"^layout=2: must be from 0 to 1 \(stroma, gland\), or -1 where unknown$"),
        ({"layout": MAP - 1}, r"^layout=-2: must be from 0 to 1"),
        ({"layout": MAP.float()}, "^layout: must be a tensor of whole numbers, "),
        ({"layout": MAP[None, None]}, "^layout: must be a tensor of whole numbers, "),
        ({"layout": MAP.expand(3, 2, 3)}, "^layout of 3 maps: must be one map, or one for each of 1 images$"),
        ({"layout": MAP, "obey": 11.0}, "^obey=11.0: must be from 0 to 10$"),
        ({"obey": 2.0}, "^obey=2.0: must be 1 without layout and label; give one$"),
    ],
)
def test_what_is_no_layout_of_the_model_is_refused_in_one_line(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        generate(model_of(), height=16, width=16, **options)


def test_a_model_without_a_legend_takes_no_layout() -> None:
    plain = build_denoiser(Config(model=MODELS["coarse"]))
    with pytest.raises(ValueError, match="^layout: must be left out for a model that was trained"):
        generate(plain, height=16, width=16, layout=MAP)


def test_a_guide_knows_the_classes_of_the_model() -> None:
    with pytest.raises(ValueError, match="guide: must have a legend of "):
        Guided(model_of(), build_denoiser(Config(model=MODELS["coarse"])), 2.0)


def test_255_stands_for_an_unknown_class() -> None:
    assert layout().map.numbers[0, 0].tolist() == [0, 1, UNKNOWN]
