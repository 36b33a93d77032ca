"""Schedulers of diffusers sample our networks."""

import inspect
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffnca
from diffnca import generate, load
from diffnca.canvas.region import Region
from diffnca.config.model import Config, SamplingConfig, ScheduleConfig
from diffnca.config.networks import CellConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser, target_of
from diffnca.diffusion.schedule import NoiseSchedule
from diffnca.models.build import build_denoiser

diffusers = pytest.importorskip("diffusers", reason="needs diffusers")

from diffnca.export.diffusers import Pipeline, scheduler_for  # noqa: E402  after the check

CELL = CellConfig(hidden=8, num_cell_steps=2, embedding_width=8, embedding_channels=4, update_probability=0.7)
CONFIG = Config(
    model=NCAConfig(channels=8, cell=CELL),
    schedule=ScheduleConfig(num_diffusion_steps=12),
    sampling=SamplingConfig(steps=12),
)
COLOUR = torch.tensor([0.5, -0.3, 0.1])[:, None, None]
SCHEDULERS = [
    *("DDIMScheduler", "DDPMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"),
    *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"),
    *("LMSDiscreteScheduler", "DEISMultistepScheduler", "KDPM2DiscreteScheduler"),
]


def random_denoiser() -> Denoiser:
    torch.manual_seed(0)
    denoiser = build_denoiser(CONFIG)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser.requires_grad_(False)


@pytest.mark.parametrize("steps", [12, 4])
def test_ddim_of_diffusers_makes_the_image_of_our_sampler(steps: int) -> None:
    denoiser = random_denoiser()
    pipe = Pipeline.of(denoiser, diffusers.DDIMScheduler)
    found = pipe(8, 10, steps, seed=[3, 4], output_type="pt").images
    visited = tuple(pipe.scheduler.timesteps.tolist())
    config = replace(CONFIG, sampling=replace(CONFIG.sampling, sampler="ddim", steps=steps, visited=visited))
    own = generate(
        Denoiser(denoiser.network, denoiser.schedule, config), height=8, width=10, seed=[3, 4], engine="eager"
    )
    assert torch.allclose(found, own, atol=1e-4)


class KnowsTheImage(torch.nn.Module):
    """The perfect network for a set of one image, of one colour; times may lie between two steps."""

    radius, has_context = 0, False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.schedule = config, NoiseSchedule.from_config(config.schedule)

    def context(self, x_t: Tensor, t: Tensor, region: Region) -> None:
        return None

    def forward(self, x_t: Tensor, t: Tensor, region: Region, noise: Any, context: Any) -> Tensor:
        place = float(t[0]) * self.schedule.num_diffusion_steps
        below = min(int(place), self.schedule.num_diffusion_steps - 2)
        ends = [self.schedule.level(index).log_snr for index in (below, below + 1)]
        log_snr = torch.tensor(ends[0] + (place - below) * (ends[1] - ends[0]))
        alpha, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        clean = COLOUR.expand_as(x_t)
        return target_of(self.config.prediction, clean, (x_t - alpha * clean) / sigma, alpha, sigma)


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [(kind, "velocity") for kind in SCHEDULERS] + [("DDIMScheduler", "noise"), ("DDIMScheduler", "clean")],
)
def test_every_scheduler_finds_the_only_image(kind: str, prediction: str) -> None:
    config = Config(prediction=prediction)  # type: ignore[arg-type]
    network = KnowsTheImage(config)
    pipe = Pipeline.of(Denoiser(network, network.schedule, config), getattr(diffusers, kind))
    pipe.set_progress_bar_config(disable=True)
    images = pipe(6, 6, 20, seed=0, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert (images - COLOUR).abs().max() < 0.05


def test_a_scheduler_has_the_noise_levels_of_the_model() -> None:
    denoiser = random_denoiser()
    own = torch.tensor(denoiser.schedule.alphas_cumprod)
    assert torch.allclose(scheduler_for(denoiser).alphas_cumprod.double(), own.double(), atol=1e-6)


def test_pictures_have_the_size_of_the_training_crops_if_none_is_given() -> None:
    (picture,) = Pipeline.of(random_denoiser())(num_inference_steps=1).images
    assert picture.size == (64, 64)


def test_diffusers_loads_what_a_pipeline_has_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    pipe = Pipeline.of(random_denoiser(), diffusers.EulerDiscreteScheduler)
    folder = str(tmp_path / "pipe")
    pipe.save_pretrained(folder)
    expected = pipe(8, 10, 3, seed=2, output_type="pt").images
    for custom in (folder, f"{folder}/pipeline.py", inspect.getfile(Pipeline)):
        loaded = diffusers.DiffusionPipeline.from_pretrained(
            folder, custom_pipeline=custom, trust_remote_code=True
        )
        assert type(loaded.scheduler) is diffusers.EulerDiscreteScheduler
        assert torch.equal(loaded(8, 10, 3, seed=2, output_type="pt").images, expected)


def test_the_model_of_a_saved_pipeline_is_a_model_of_this_package(tmp_path: Path) -> None:
    Pipeline.of("faces-4step").save_pretrained(tmp_path)
    own = diffnca.Pretrained.from_pretrained(tmp_path / "model")
    assert own.card == diffnca.Pretrained.from_pretrained("faces-4step").card
    images = (generate(model, height=16, width=16, direct=True) for model in (own.model, load("faces-4step")))
    assert torch.equal(*images)


def student() -> Denoiser:
    denoiser = random_denoiser()
    sampling = replace(CONFIG.sampling, sampler="ddim", steps=4, visited=(11, 8, 5, 2))
    return Denoiser(denoiser.network, denoiser.schedule, replace(CONFIG, sampling=sampling))


def test_a_student_is_sampled_at_its_own_levels() -> None:
    found = Pipeline.of(student())(8, 10, seed=3, output_type="pt").images
    own = generate(student(), height=8, width=10, seed=3, engine="eager")
    assert torch.allclose(found, own, atol=1e-4)


@pytest.mark.parametrize(("kind", "steps"), [("DDIMScheduler", 12), ("HeunDiscreteScheduler", None)])
def test_a_student_is_not_sampled_at_levels_that_it_does_not_know(kind: str, steps: int | None) -> None:
    pipe = Pipeline.of(student(), getattr(diffusers, kind))
    with pytest.raises(ValueError, match=r"must be \[11, 8, 5, 2\], for which this model was distilled"):
        pipe(8, 10, steps)
