"""Generation: sizes, seeds, defaults, boundaries, errors, with a denoiser that has a closed form."""

import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.model import Config, SamplingConfig
from diffnca.diffusion.denoiser import Query
from diffnca.diffusion.samplers import DDIM, DDPM, SAMPLERS
from diffnca.diffusion.schedule import Level, NoiseSchedule
from diffnca.models.file import load
from diffnca.sampling.generate import generate

MEAN, DEVIATION = 0.1, 0.2  # of the Gaussian pixels

each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@dataclass
class GaussianDenoiser:
    """The exact denoiser of images whose pixels are independent and Gaussian; remembers what it is given."""

    image_channels: int = 3
    radius: int | None = 0
    has_context: bool = True
    schedule: NoiseSchedule = field(default_factory=NoiseSchedule.cosine)
    config: Config = field(default_factory=lambda: Config(sampling=SamplingConfig("dpmpp2m", 8)))
    images: list[Tensor] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)

    def context(self, query: Query) -> Tensor:
        return torch.tensor(query.level.index)

    def estimate(self, query: Query) -> Tensor:
        x_t, level = query.x_t, query.level
        self.images.append(x_t)
        self.levels.append(level)
        self.regions.append(query.region)
        self.contexts.append(query.context)
        variance = (level.alpha * DEVIATION) ** 2 + level.sigma**2
        return MEAN + level.alpha * DEVIATION**2 / variance * (x_t - level.alpha * MEAN)


class OneWeight(nn.Module):
    """A denoiser with a weight, which wants a gradient, and whose cells update at random."""

    image_channels = 2
    radius = 0
    has_context = False
    schedule = NoiseSchedule.cosine(10)
    config = Config(sampling=SamplingConfig("ddim", 3))

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def context(self, query: Query) -> None:
        return None

    def estimate(self, query: Query) -> Tensor:
        assert query.cell_noise is not None
        return self.weight * query.x_t * query.cell_noise.mask(0, query.region, 0.5)


def image(**changes: Any) -> Tensor:
    arguments = {"height": 5, "width": 7, "seed": 3, "steps": 6}
    return generate(GaussianDenoiser(), **(arguments | changes))


@each_sampler
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (8, 3)])
def test_image_has_the_size_asked_for(sampler: str, height: int, width: int) -> None:
    assert image(height=height, width=width, sampler=sampler).shape == (1, 3, height, width)


@each_sampler
@pytest.mark.parametrize("steps", [1, 2, 300])
def test_any_number_of_steps_gives_a_finite_image(sampler: str, steps: int) -> None:
    assert image(sampler=sampler, steps=steps).isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_image_has_the_channels_of_the_model(channels: int) -> None:
    assert generate(GaussianDenoiser(channels), height=2, width=3).shape == (1, channels, 2, 3)


@cache
def of_many_pixels(sampler: str) -> Tensor:
    """Return an image of one walk of all steps, whose statistics are those of the data."""
    return image(height=100, width=100, sampler=sampler, steps=300, direct=True)


@each_sampler
def test_generated_pixels_have_the_mean_of_the_data(sampler: str) -> None:
    x = of_many_pixels(sampler)
    assert x.mean().item() == pytest.approx(MEAN, abs=5 * DEVIATION / math.sqrt(x.numel()))


@each_sampler
def test_generated_pixels_have_the_deviation_of_the_data(sampler: str) -> None:
    x = of_many_pixels(sampler)
    assert x.std().item() == pytest.approx(DEVIATION, rel=0.05)


@each_sampler
def test_image_is_the_same_in_any_batch(sampler: str) -> None:
    alone = [image(seed=seed, sampler=sampler) for seed in (3, 4, 5)]
    assert torch.equal(image(batch=3, sampler=sampler), torch.cat(alone))


def test_seeds_can_be_listed_in_any_order() -> None:
    assert torch.equal(image(seed=[9, 3]), torch.cat([image(seed=9), image(seed=3)]))


def test_other_seeds_give_other_images() -> None:
    assert not torch.equal(image(seed=3), image(seed=4))


@each_sampler
def test_part_of_a_local_image_does_not_depend_on_the_rest(sampler: str) -> None:
    small, large = image(sampler=sampler), image(height=11, width=8, sampler=sampler)
    assert torch.equal(small, large[..., :5, :7])


def test_random_cells_are_the_same_in_any_batch() -> None:
    two = generate(OneWeight(), height=4, width=5, batch=2)
    assert torch.equal(two[1:], generate(OneWeight(), height=4, width=5, seed=1))


def test_pixels_stay_within_minus_one_and_one() -> None:
    class Glaring(GaussianDenoiser):
        def estimate(self, query: Query) -> Tensor:
            return 5.0 * query.x_t

    x = generate(Glaring(), height=8, width=8)
    assert (x.min(), x.max()) == (-1.0, 1.0)


def test_walk_starts_from_unit_noise_even_if_the_schedule_does_not_reach_it() -> None:
    denoiser = GaussianDenoiser(schedule=NoiseSchedule.linear())
    generate(denoiser, height=4, width=6, seed=8)
    assert torch.equal(denoiser.images[0], Noise((8,)).normal(Stream.INITIAL, 0, Canvas(4, 6).whole, 3))


def test_sampler_and_steps_of_the_model_are_the_default() -> None:
    of_model = generate(OneWeight(), height=4, width=5)
    assert torch.equal(of_model, generate(OneWeight(), height=4, width=5, sampler="ddim", steps=3))


def test_a_sampler_can_be_given_as_an_object() -> None:
    assert torch.equal(image(sampler=DDPM()), image(sampler="ddpm"))
    assert not torch.equal(image(sampler=DDIM(eta=0.5)), image(sampler="ddim"))


def test_as_many_levels_are_visited_as_steps_asked_for() -> None:
    denoiser = GaussianDenoiser()
    generate(denoiser, height=2, width=2, steps=4)
    assert [level.index for level in denoiser.levels] == [299, 278, 59, 0]


def test_context_of_each_level_reaches_the_estimate() -> None:
    denoiser = GaussianDenoiser()
    generate(denoiser, height=2, width=2, steps=4)
    assert [int(context) for context in denoiser.contexts] == [level.index for level in denoiser.levels]


def test_denoiser_sees_the_whole_canvas_with_its_boundary() -> None:
    denoiser = GaussianDenoiser()
    generate(denoiser, height=2, width=3, boundary=("reflect", "circular"))
    assert set(denoiser.regions) == {Canvas(2, 3, ("reflect", "circular")).whole}


def test_progress_is_told_every_step() -> None:
    told = []
    image(steps=3, progress=lambda step, total: told.append((step, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_interrupted_walk_leaves_nothing_behind() -> None:
    def interrupt(step: int, total: int) -> None:
        raise KeyboardInterrupt

    denoiser = GaussianDenoiser()
    with pytest.raises(KeyboardInterrupt):
        generate(denoiser, height=5, width=7, seed=3, steps=6, progress=interrupt)
    assert torch.is_grad_enabled()
    assert torch.equal(generate(denoiser, height=5, width=7, seed=3, steps=6), image())


def test_no_gradient_is_recorded() -> None:
    assert not generate(OneWeight(), height=4, width=5).requires_grad


def test_images_come_on_the_device_of_the_model() -> None:
    assert generate(OneWeight(), height=4, width=5, device="cpu").device.type == "cpu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "canvas height=0: must be from 1"),
        ({"width": -3}, "canvas width=-3: must be from 1"),
        ({"batch": 0}, "batch=0: must be >= 1"),
        ({"seed": -1}, "seed=-1: must be from 0"),
        ({"seed": 2**64 - 1, "batch": 2}, f"seed={2**64}: must be from 0"),
        ({"seed": []}, r"seeds=\(\): must hold at least one"),
        ({"seed": [1, 2], "batch": 3}, "batch=3 with 2 seeds: give one seed per image"),
        ({"steps": 0}, "steps=0: must be 1 to 300"),
        ({"steps": 301}, "steps=301: must be 1 to 300"),
        ({"sampler": "euler"}, "sampler='euler': must be one of ddpm, ddim, dpmpp2m"),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        image(**changes)
    assert "\n" not in str(error.value)


def test_model_is_not_called_before_the_arguments_are_checked() -> None:
    denoiser = GaussianDenoiser()
    with pytest.raises(ValueError, match="steps=400"):
        generate(denoiser, height=2, width=2, steps=400)
    assert denoiser.levels == []


def test_schedule_of_one_step_can_be_sampled() -> None:
    config = replace(GaussianDenoiser().config, sampling=SamplingConfig("ddpm", 1))
    x = generate(GaussianDenoiser(schedule=NoiseSchedule.cosine(1), config=config), height=2, width=2)
    assert x.isfinite().all()


@cache
def textures(boundary: tuple[Boundary, Boundary]) -> Tensor:
    """Return two images of a bundled model."""
    return generate(load("aerial"), height=48, width=48, batch=2, seed=0, steps=4, boundary=boundary)


def strangeness_of_seam(boundary: tuple[Boundary, Boundary], axis: int) -> float:
    """Return by how many deviations the step over the edges differs from steps between other neighbours."""
    shifted = textures(boundary).roll(24, axis).movedim(axis, -1)
    steps = (shifted[..., 1:] - shifted[..., :-1]).abs().mean((0, 1, 2))
    others = torch.cat([steps[:23], steps[24:]])
    return ((steps[23] - others.mean()) / others.std()).item()


@pytest.mark.parametrize("axis", [-2, -1])
def test_opposite_edges_of_a_seamless_image_meet(axis: int) -> None:
    assert abs(strangeness_of_seam(("circular", "circular"), axis)) < 3.0


@pytest.mark.parametrize(("boundary", "axis"), [(("circular", "reflect"), -1), (("reflect", "circular"), -2)])
def test_edges_that_are_none_do_not_meet(boundary: tuple[Boundary, Boundary], axis: int) -> None:
    assert strangeness_of_seam(boundary, axis) > 10.0


def test_a_distilled_model_takes_no_other_sampler() -> None:
    with pytest.raises(ValueError, match="sampler=ddpm: must be ddim, for which this model was distilled"):
        generate(load("pathology-4step"), height=8, width=8, sampler="ddpm")


def test_a_distilled_model_takes_no_other_number_of_steps() -> None:
    with pytest.raises(ValueError, match="steps=8: must be 4, for which this model was distilled"):
        generate(load("pathology-4step"), height=16, width=16, steps=8)
