"""Given planes: every stage sees them, no cell step changes them, and tiles stay parts of the whole."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffnca.canvas.noise import Noise
from diffnca.canvas.region import Canvas, Region
from diffnca.config.json import from_json, to_json
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser, Query, estimate_alone
from diffnca.diffusion.samplers import DDPM
from diffnca.engine import prepare
from diffnca.models.build import build_denoiser
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import CellRule, run_cells
from diffnca.sampling.starts import PureNoise
from diffnca.sampling.task import Task, sample_task

CELL = CellConfig(
    hidden=16,
    num_cell_steps=2,
    dilations=(1, 2),
    embedding_width=8,
    embedding_channels=8,
    update_probability=0.8,
)
STAGES = {
    "image": NCAConfig(channels=9, cell=CELL, given_channels=2),
    "coarse": NCAConfig(
        patch=2, channels=27, cell=CELL, coarse=CoarseConfig(4, 60, 3, CELL), given_channels=2
    ),
    "fourier": NCAConfig(
        "fourier_diff_nca", channels=9, cell=CELL, fourier=FourierConfig(4, cell=CELL), given_channels=2
    ),
}
every_stage = pytest.mark.parametrize("name", STAGES)
CANVAS = Canvas(45, 52, ("reflect", "circular"))
T = torch.tensor([0.3])


def denoiser_of(name: str) -> Denoiser:
    """Return a denoiser with random weights."""
    torch.manual_seed(0)
    denoiser = build_denoiser(Config(model=STAGES[name])).requires_grad_(False)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    return denoiser


def planes(region: Region) -> Tensor:
    """Return two planes: a wave along the rows, and stripes."""
    rows, columns = region.rows()[:, None], region.columns()
    return torch.stack([torch.sin(rows / 5.0).expand(region.height, region.width), (rows + columns) % 3 - 1])[
        None
    ]


def noisy(region: Region, images: int = 1) -> Tensor:
    return torch.randn(images, 3, region.height, region.width, generator=torch.Generator().manual_seed(1))


@every_stage
def test_tiles_equal_the_whole_to_the_bit(name: str) -> None:
    model, whole = denoiser_of(name), CANVAS.whole
    ready = Denoiser(prepare(model.network, "cpu", torch.float32), model.schedule, model.config)
    query = Query(noisy(whole), model.schedule.level(100), whole, Noise((3,)).at(0), given=planes(whole))
    expected, context = estimate_alone(ready, query), ready.context(query)
    for tile in (Region(13, 40, 9, 10, CANVAS), Region(0, 0, 7, 8, CANVAS)):
        around = tile.grow(ready.radius)
        part = replace(query, x_t=around.crop(query.x_t, whole), region=around, given=planes(around))
        found = ready.estimate(replace(part, context=context))
        assert torch.equal(tile.crop(found, around), tile.crop(expected, whole))


@pytest.mark.parametrize("name", ["image", "coarse"])
def test_a_part_of_a_task_equals_the_whole_to_the_bit(name: str) -> None:
    model, canvas = denoiser_of(name), Canvas(120, 40)
    ready = Denoiser(prepare(model.network, "cpu"), model.schedule, model.config)
    levels = tuple(model.schedule.level(index) for index in (250, 90))
    task, part = Task(canvas, levels, PureNoise(3), given=planes), Region(60, 3, 9, 10, canvas)
    whole = sample_task(task, ready, DDPM(), Noise((1, 2)))
    alone = sample_task(task, ready, DDPM(), Noise((1, 2)), part)
    assert torch.equal(alone, part.crop(whole, canvas.whole))


@every_stage
def test_no_cell_step_changes_the_planes(name: str) -> None:
    network = denoiser_of(name).network
    for rule in network.compiled_parts():
        state = torch.randn(1, rule.channels, 9, 8, generator=torch.Generator().manual_seed(2))
        final = run_cells(rule, state, T, Canvas(9, 8).whole, None)
        kept = (final == state).all(dim=(0, 2, 3)).flatten()
        assert int(kept.sum()) == int((rule.writable == 0).sum()) == seen_of(rule, network)


def seen_of(rule: CellRule, network: Automaton) -> int:
    """Return how many channels of a rule hold the image and the planes."""
    patch = network.config.patch if rule is network.image else getattr(network.config.coarse, "patch", 1)
    parts = 2 if rule is network.fourier else 1  # real and imaginary
    return (3 * patch**2 + 2) * parts


@every_stage
def test_the_planes_change_the_prediction_through_the_first_stage_too(name: str) -> None:
    network, whole = denoiser_of(name).network, Canvas(16, 16).whole
    if name != "image":  # let the image stage itself see none
        rule, patch = network.image, network.config.patch
        hidden = slice(3 * patch**2, 3 * patch**2 + 2)
        rule.perceive.weight[:, hidden] = 0.0
        rule.expand.weight[:, hidden] = 0.0
    found = [network(noisy(whole), T, whole, given=given) for given in (planes(whole), 0 * planes(whole))]
    assert (found[0] - found[1]).abs().max() > 1e-3


@every_stage
def test_the_training_loss_learns_from_planes(name: str) -> None:
    denoiser = denoiser_of(name).requires_grad_(True)
    whole = Canvas(16, 16).whole
    given = planes(whole).expand(2, -1, -1, -1)
    denoiser(noisy(whole, 2), torch.Generator().manual_seed(0), None, given).backward()
    seen = denoiser.network.compiled_parts()[0].perceive.weight.grad[:, 3:5]
    assert seen.abs().max() > 0


@every_stage
def test_the_number_of_planes_is_kept_in_the_configuration(name: str) -> None:
    config = Config(model=STAGES[name])
    assert from_json(to_json(config)) == config


def test_a_configuration_without_planes_is_written_as_before_there_were_any() -> None:
    assert "given_channels" not in to_json(Config())


@every_stage
@pytest.mark.parametrize("count", [None, 1, 3])
def test_another_number_of_planes_is_refused_in_one_line(name: str, count: int | None) -> None:
    network, whole = denoiser_of(name).network, Canvas(8, 8).whole
    given = None if count is None else torch.zeros(1, count, 8, 8)
    with pytest.raises(
        ValueError, match=r"^given planes of shape .*: must be \(1, 2, 8, 8\), as model.given_"
    ):
        network(noisy(whole), T, whole, given=given)


def test_planes_that_nobody_asked_for_are_refused() -> None:
    network = denoiser_of("image").network
    plain = type(network)(replace(STAGES["image"], given_channels=0))
    with pytest.raises(ValueError, match="as model.given_channels=0"):
        plain(noisy(Canvas(8, 8).whole), T, given=torch.zeros(1, 2, 8, 8))
