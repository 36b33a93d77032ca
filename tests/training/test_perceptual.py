"""The perceptual loss counts within its band, is the mean over the images there, and moves the weights."""

import pytest
import torch
from torch import Tensor

from diffnca.config.model import Config, LossConfig, with_fields
from diffnca.config.recipes import recipe_named
from diffnca.models.build import build_denoiser
from diffnca.training.objectives import Batch, OwnLoss
from diffnca.training.perceptual import Perceptual, with_perceptual

from .conftest import Means, small_config, stripes

CPU = torch.device("cpu")
FEATURES = Means(2, 4)
LOSS = LossConfig(perceptual=0.5, perceptual_band=(0.2, 0.6))


def distance(sigma: list[float], channels: int = 3) -> float:
    """Return the loss of estimates that are 1, 2, 3, ... too light in all channels."""
    x_0 = torch.zeros(len(sigma), 4, 8, 8)
    estimate = x_0 + torch.arange(1.0, len(sigma) + 1.0)[:, None, None, None]
    return float(Perceptual(FEATURES, LOSS, channels)(estimate, x_0, torch.tensor(sigma)))


def test_it_is_the_mean_over_the_images_within_the_band() -> None:
    assert distance([0.1, 0.3, 0.5, 0.7]) == 0.5 * (2.0**2 + 3.0**2) / 2


def test_it_is_nothing_without_an_image_within_the_band() -> None:
    assert distance([0.1, 0.9]) == 0.0


def test_planes_of_a_map_do_not_count() -> None:
    estimate = torch.zeros(1, 4, 8, 8)
    estimate[:, 3] = 1.0
    assert float(Perceptual(FEATURES, LOSS, 3)(estimate, torch.zeros(1, 4, 8, 8), torch.tensor([0.3]))) == 0.0


@pytest.mark.parametrize("prediction", ["noise", "clean", "velocity"])
def test_a_perfect_estimate_has_none_whatever_is_predicted(prediction: str) -> None:
    denoiser = build_denoiser(with_fields(small_config(8), {"prediction": prediction}))
    seen: list[Tensor] = []

    def beside(estimate: Tensor, x_0: Tensor, sigma: Tensor) -> Tensor:
        seen.extend((estimate, x_0, sigma))
        return torch.zeros(())

    def exact(x_t: Tensor, t: Tensor, *_: object) -> Tensor:
        step = (t.double() * denoiser.schedule.num_diffusion_steps).round().long()
        alpha, sigma = (
            each[step].float()[:, None, None, None]
            for each in (denoiser.schedule.alphas(), denoiser.schedule.sigmas())
        )
        noise = (x_t - alpha * x_0) / sigma
        return {"noise": noise, "clean": x_0, "velocity": alpha * noise - sigma * x_0}[prediction]

    x_0 = stripes(0)
    denoiser.network.forward = exact
    denoiser.loss(x_0, torch.Generator().manual_seed(0), beside=beside)
    sure = seen[2] < 0.99  # noise tells little of the image at the last levels
    torch.testing.assert_close(seen[0][sure], seen[1][sure], atol=1e-4, rtol=1e-4)


def gradient(objective: OwnLoss) -> Tensor:
    objective.loss("model", Batch(stripes(0), torch.Generator().manual_seed(0))).backward()
    return torch.cat([weight.grad.flatten() for weight in objective.player.module.parameters()])


def test_it_moves_the_weights() -> None:
    config = with_fields(small_config(8), {"loss.perceptual": 10.0})
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(build_denoiser(config))
    gradients = [gradient(OwnLoss(made[0], CPU)), gradient(with_perceptual(FEATURES, made[1], CPU))]
    assert gradients[1].isfinite().all()
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca", "unet_1m"])
def test_a_recipe_of_a_denoiser_takes_it(recipe: str) -> None:
    assert with_fields(recipe_named(recipe), {"loss.perceptual": 0.1}).loss.perceptual == 0.1


def test_vnca_does_not() -> None:
    with pytest.raises(ValueError, match="loss.perceptual=0.1: must be 0 for VNCA"):
        with_fields(recipe_named("vnca"), {"loss.perceptual": 0.1})


@pytest.mark.parametrize("band", [(0.8, 0.2), (-0.1, 0.5), (0.5, 1.5)])
def test_a_band_that_does_not_rise_within_0_and_1_is_refused(band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="loss.perceptual_band=.*: must be two rising numbers"):
        with_fields(Config(), {"loss.perceptual_band": band})
