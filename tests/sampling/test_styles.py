"""Styles of new images: drawn by the seed, seen everywhere alike, and what is no style."""

import numpy as np
import torch

from diffnca import generate
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, with_fields
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.data.styles import known_styles, standard
from diffnca.diffusion.denoiser import Denoiser
from diffnca.models.build import build_denoiser
from diffnca.sampling.labels import labelled
from diffnca.sampling.styles import drawn_styles, styled

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
    torch.manual_seed(0)
    config = Config(model=NCAConfig(channels=16, cell=CELL))
    denoiser = build_denoiser(with_fields(config, {**CHANGES, "model.given_channels": given, **changes}))
    for parameter in denoiser.requires_grad_(False).parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    return denoiser


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
