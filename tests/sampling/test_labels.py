"""Labels of new images: their planes, with a map and without, and what is no label."""

from functools import partial

import pytest
import torch

from diffnca import extend, generate, inpaint, interpolate, upscale, vary
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.sampling.guidance import Guided
from diffnca.sampling.labels import labelled, mixed
from diffnca.sampling.layouts import layout_of

from .conftest import denoiser_of

CELL = CellConfig(hidden=16, num_cell_steps=2, embedding_width=8, embedding_channels=8)
LABELS = {"layout.labels": ("bark", "moss"), "data.crop": 16, "sampling.steps": 2}
CLASSES = {"layout.classes": ("stroma", "gland")}
MAP = torch.tensor([[0, 1, -1], [1, 1, 0]])


def model_of(given: int = 2, **changes: object) -> Denoiser:
    """Return a denoiser with random weights that knows two labels."""
    config = Config(model=NCAConfig(channels=16, cell=CELL))
    return denoiser_of(with_fields(config, {**LABELS, "model.given_channels": given, **changes}))


def with_classes(coarse: int = 0) -> Denoiser:
    return model_of(8 if coarse else 4, **CLASSES, **{"layout.coarse": coarse})


def test_planes_of_a_label_follow_all_planes_of_a_map() -> None:
    config, whole = with_classes(coarse=4).config, Canvas(8, 12).whole
    map_alone = layout_of(MAP, 1.0, config, 1)
    planes = labelled(map_alone, "moss", config)
    assert planes is not None and map_alone is not None
    expected = torch.zeros(1, 8, 8, 12)
    expected[:, :2], expected[:, 7] = map_alone(whole), 1.0
    assert torch.equal(planes(whole), expected)


def test_an_image_depends_on_its_label() -> None:
    made = [generate(model_of(), height=16, width=24, label=label) for label in ("bark", "moss", None)]
    assert not any(torch.equal(made[one], made[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_each_image_of_a_batch_may_have_its_own_label() -> None:
    labels = ["moss", "bark"]
    both = generate(with_classes(), height=16, width=24, label=labels, layout=MAP, seed=[3, 3])
    alone = [generate(with_classes(), height=16, width=24, label=each, layout=MAP, seed=3) for each in labels]
    assert torch.equal(both, torch.cat(alone))


def test_an_image_depends_on_its_map_beside_its_label() -> None:
    made = [
        generate(with_classes(), height=16, width=24, label="moss", layout=layout) for layout in (MAP, None)
    ]
    assert not torch.equal(*made)


def test_a_region_equals_the_crop_of_the_whole_to_the_bit() -> None:
    canvas = Canvas(64, 40)
    part, options = Region(20, 3, 9, 10, canvas), {"height": 64, "width": 40, "label": "moss", "obey": 2.0}
    whole, alone = (generate(model_of(), region=region, **options) for region in (None, part))
    assert torch.equal(alone, part.crop(whole, canvas.whole))


def test_what_is_edited_depends_on_the_label() -> None:
    image, mask = torch.zeros(1, 3, 16, 16), torch.zeros(16, 16, dtype=torch.bool)
    mask[4:, 4:] = True
    edits = (
        partial(inpaint, mask=mask, method="paste"),
        partial(extend, right=8, method="paste"),
        partial(upscale, factor=1.5),
        vary,
    )
    for edit in edits:
        made = [
            edit(model_of(), image, label=label, obey=obey)
            for label, obey in (("bark", 1.0), ("moss", 1.0), ("moss", 2.0), (None, 1.0))
        ]
        assert len({each.numpy().tobytes() for each in made}) == 4


def test_a_film_leads_from_one_label_to_the_other() -> None:
    size = {"height": 16, "width": 24}
    frames = interpolate(model_of(), (3, 3), [0.0, 0.5, 1.0], label=["bark", "moss"], **size)
    first, last = (generate(model_of(), seed=3, label=label, **size) for label in ("bark", "moss"))
    torch.testing.assert_close(frames[::2], torch.cat([first, last]))
    assert not torch.equal(frames[1], frames[0]) and not torch.equal(frames[1], frames[2])


def test_a_mix_of_labels_has_their_planes_in_these_shares() -> None:
    planes = labelled(None, mixed(["moss", "bark"], (0.25,)), model_of().config)
    assert planes is not None
    assert planes(Canvas(1, 1).whole).flatten().tolist() == [0.25, 0.75]


def test_a_label_is_obeyed_by_what_the_model_makes_without_it() -> None:
    free, followed, none = (
        generate(model_of(), height=16, width=16, steps=1, sampler="ddim", **choices)
        for choices in ({}, {"label": "moss"}, {"label": "moss", "obey": 0.0})
    )
    torch.testing.assert_close(none, free, atol=1e-5, rtol=1e-4)
    assert not torch.equal(free, followed)


def test_the_map_that_a_model_makes_depends_on_the_label() -> None:
    filler = model_of(6, **CLASSES, **{"layout.coarse": 4, "layout.labels": ()})
    maker = model_of(2, **CLASSES, **{"layout.made": True, "model.made_channels": 2})
    labels = ("bark", "moss", None)
    made = [generate(filler, height=16, width=16, maker=maker, label=each) for each in labels]
    assert not any(torch.equal(made[one], made[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("oak", "^label=oak: must be one of the labels of the model: bark, moss$"),
        (["bark"] * 3, "^label of 3 names: must be one, or one for each of 1 images$"),
    ],
)
def test_what_is_no_label_of_the_model_is_refused_in_one_line(label: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model_of(), height=16, width=16, label=label)


def test_a_model_without_labels_takes_none() -> None:
    plain = model_of(0, **{"layout.labels": ()})
    with pytest.raises(ValueError, match="^label: must be left out for a model that"):
        generate(plain, height=16, width=16, label="bark")


def test_a_guide_knows_the_labels_of_the_model() -> None:
    with pytest.raises(ValueError, match=r"guide: must have labels of \('bark', 'moss'\)"):
        Guided(model_of(), model_of(0, **{"layout.labels": ()}), 2.0)
