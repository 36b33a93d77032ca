import pytest
import torch

from diffnca.baselines.unet import UNet
from diffnca.canvas.region import Canvas, Region
from diffnca.config.networks import UNetConfig
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_denoiser

SMALL = UNetConfig(channels=(8, 16), layers=1, groups=4)
PARAMETERS = {"unet_1m": 873_867, "unet_4m": 3_940_547, "unet_17m": 17_256_195}
"""The latter two are those of the publications (3.94 and 17.2 million)."""


def small() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALL).eval().requires_grad_(False)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_recipes_have_these_parameters(name: str) -> None:
    network = build_denoiser(recipe_named(name)).network
    assert sum(weight.numel() for weight in network.parameters()) == PARAMETERS[name]


def test_the_smallest_has_as_many_parameters_as_the_published_fourier_network_within_two_percent() -> None:
    published = build_denoiser(recipe_named("fourier_diff_nca_arxiv_v1")).network
    count = sum(weight.numel() for weight in published.parameters())
    assert abs(PARAMETERS["unet_1m"] / count - 1) < 0.02


def test_the_prediction_has_the_shape_of_the_image() -> None:
    assert small()(torch.randn(2, 3, 8, 12), torch.tensor([0.1, 0.7])).shape == (2, 3, 8, 12)


def test_the_prediction_depends_on_time() -> None:
    network, x_t = small(), torch.randn(1, 3, 8, 8)
    assert not torch.allclose(network(x_t, torch.tensor([0.1])), network(x_t, torch.tensor([0.9])))


def test_gray_images_have_one_channel() -> None:
    network = UNet(UNetConfig(image_channels=1, channels=(8, 16), layers=1, groups=4))
    assert network(torch.randn(1, 1, 8, 8), torch.tensor([0.5])).shape == (1, 1, 8, 8)


def test_a_part_of_a_canvas_is_refused() -> None:
    region = Region(0, 0, 8, 8, Canvas(16, 16))
    with pytest.raises(ValueError, match="must see the whole image"):
        small()(torch.randn(1, 3, 8, 8), torch.tensor([0.5]), region)


def test_a_seamless_canvas_is_refused() -> None:
    region = Canvas(8, 8, ("reflect", "circular")).whole
    with pytest.raises(ValueError, match="a UNet makes none"):
        small()(torch.randn(1, 3, 8, 8), torch.tensor([0.5]), region)


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="9x8 px: must have sides that are multiples of 2 px"):
        small()(torch.randn(1, 3, 9, 8), torch.tensor([0.5]))


def test_recomputing_blocks_changes_no_gradient() -> None:
    gradients = []
    for recomputes in (False, True):
        torch.manual_seed(0)
        network = UNet(SMALL)
        network.checkpoint_cells = recomputes
        network(torch.ones(1, 3, 8, 8), torch.tensor([0.5])).square().sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in network.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-6)
