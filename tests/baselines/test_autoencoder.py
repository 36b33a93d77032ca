import math
from dataclasses import replace

import pytest
import torch

from diffnca import generate
from diffnca.baselines.autoencoder import Autoencoder, damaged
from diffnca.config.json import from_json, to_json
from diffnca.config.model import Config, DataConfig, TrainingConfig
from diffnca.config.networks import VNCAConfig
from diffnca.models.build import build_model
from diffnca.training.objectives import Batch

MODEL = VNCAConfig(size=16, latent=16, hidden=16, num_residual_blocks=1, encoder_channels=4, num_cell_steps=2)
CONFIG = Config(name="small", model=MODEL, training=TrainingConfig(), data=DataConfig(crop=16))
REGROWS = replace(CONFIG, model=replace(MODEL, start=16, num_cell_steps=8, damage=6))
SPARSE = replace(REGROWS, model=replace(REGROWS.model, update_probability=0.5))


def made(config: Config = CONFIG) -> Autoencoder:
    torch.manual_seed(0)
    model = build_model(config)
    assert isinstance(model, Autoencoder)
    return model


def blobs(count: int) -> torch.Tensor:
    """Return images, of one colour each on the left, of another on the right, in 8-bit levels."""
    generator = torch.Generator().manual_seed(1)
    halves = torch.randint(256, (count, 3, 1, 2), generator=generator)
    return (2.0 * halves - 255).repeat_interleave(16, 2).repeat_interleave(8, 3) / 255


def trained(config: Config, steps: int, images: torch.Tensor, rate: float = 2e-3) -> Autoencoder:
    model = made(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        shuffled = images[torch.randperm(len(images), generator=generator)]
        model(shuffled, generator, Batch(images, generator)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
    return model.eval().requires_grad_(False)


def test_the_loss_is_the_divergence_from_the_prior_minus_the_log_likelihood() -> None:
    model, images = made(), blobs(4)
    latent_noise = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    mean, log_deviation = model.network.encode(images)
    posterior = torch.distributions.Normal(mean, log_deviation.exp())
    prior = torch.distributions.Normal(0.0, 1.0)
    divergence = torch.distributions.kl_divergence(posterior, prior).sum(1)
    grown = model.network.grow(model.network.seed(mean + log_deviation.exp() * latent_noise))
    expected = (divergence - model._distribution(grown).log_prob(images)).mean()
    assert torch.allclose(model(images, torch.Generator().manual_seed(5)), expected)


def test_a_fresh_model_needs_about_as_many_nats_as_a_wide_logistic_takes() -> None:
    images = torch.zeros(2, 3, 16, 16)  # between two levels, where every sigmoid has its steepest slope
    loss = made()._distribution(torch.zeros(2, 16, 16, 16)).log_prob(images)
    slope = 2 / 255 / 4
    assert torch.allclose(loss, torch.tensor(768 * math.log(slope)), rtol=1e-4)


def test_training_teaches_to_reconstruct() -> None:
    images = blobs(8)
    before = (made().reconstruct(images) - images).square().mean()
    after = (trained(CONFIG, 100, images, 6e-3).reconstruct(images) - images).square().mean()
    assert after < 0.3 * before


def test_training_with_damage_teaches_to_regrow_what_is_wiped_out() -> None:
    images = blobs(1)[..., :1].expand(8, -1, -1, 16)
    model = trained(REGROWS, 60, images)
    grown = model.network.grow(model.network.seed(model.network.encode(images)[0]))
    wiped = damaged(grown, 6, torch.Generator().manual_seed(0))

    def error(state: torch.Tensor) -> float:
        return float((model.shown(state) - images).square().mean())

    assert error(model.network.grow(wiped)) < 0.5 * error(wiped)


def test_the_loss_of_a_step_depends_on_its_generator_alone() -> None:
    model, images = made(SPARSE), blobs(8)

    def loss() -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return model(images, generator, Batch(images, generator))

    first = loss()
    torch.rand(7)
    assert torch.equal(first, loss())


def test_damage_wipes_out_one_square_in_each_image() -> None:
    state = torch.ones(5, 2, 16, 16)
    wiped = damaged(state, 6, torch.Generator().manual_seed(0)) == 0
    assert (wiped.sum((2, 3)) == 36).all()
    assert (wiped.any(2).sum(2) == 6).all() and (wiped.any(3).sum(2) == 6).all()


@pytest.mark.parametrize("config", [CONFIG, SPARSE], ids=["divides", "regrows"])
def test_an_image_is_a_function_of_its_seed_not_of_its_batch(config: Config) -> None:
    model = trained(config, 2, blobs(4))
    batch = generate(model, height=16, width=16, seed=[7, 8])
    assert torch.allclose(batch[1:], generate(model, height=16, width=16, seed=8), atol=1e-5)
    assert not torch.allclose(batch[0], batch[1], atol=1e-3)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must make whole images of 16x16 px with edges"):
        generate(made(), height=32, width=16)


def test_a_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="must be without steps, as it draws an image at once; leave it out"):
        generate(made(), height=16, width=16, steps=4)


def test_the_configuration_survives_json() -> None:
    assert from_json(to_json(CONFIG)) == CONFIG


def test_crops_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.crop=64: must be model.size=16; set both"):
        replace(CONFIG, data=DataConfig(crop=64))
