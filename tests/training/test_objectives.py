"""A student is right when its jumps end where its teacher walks; several players learn in one loop."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config, TrainingConfig
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import Denoiser, Query
from diffnca.diffusion.samplers import DDIM, Step
from diffnca.diffusion.schedule import CLEAN, NoiseSchedule
from diffnca.models.build import build_denoiser
from diffnca.sampling.guidance import Guided
from diffnca.training.loop import Care, Trainer
from diffnca.training.objectives import (
    Batch,
    Distillation,
    OwnLoss,
    Player,
    estimate_of_jump,
    student_config,
)

from .conftest import CELL, QUIET, is_equal, small_config, state_of, stripes

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule.cosine()


def small() -> Config:
    training = TrainingConfig(precision="float32", compile="off")
    return Config(model=NCAConfig(channels=8, cell=CELL), training=training)


class Linear(nn.Module):
    """The exact denoiser of white Gaussian data of this deviation, as a network that predicts velocity."""

    radius = 0
    has_context = False

    def context(self, *_: object) -> None:
        return None

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(deviation**2, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor, *_: object) -> Tensor:
        level = SCHEDULE.level(round(float(t[0]) * SCHEDULE.num_diffusion_steps))
        slope = level.alpha * self.variance / (level.alpha**2 * self.variance + level.sigma**2)
        return (level.alpha - slope) / level.sigma * x_t


def linear(deviation: float, config: Config) -> Denoiser:
    return Denoiser(Linear(deviation), SCHEDULE, config)


def loss(distillation: Distillation, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    return distillation.loss("model", Batch(x_0, generator)).item()


@pytest.mark.parametrize(("first", "last"), [(299, 224), (224, 0), (74, -1)])
def test_one_step_with_the_estimate_of_a_jump_ends_where_the_jump_ends(first: int, last: int) -> None:
    x_t, x_s = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level_t, level_s = SCHEDULE.level(first), SCHEDULE.level(last)
    estimate = estimate_of_jump(x_t, x_s, level_t, level_s)
    torch.testing.assert_close(DDIM().step(Step(x_t, estimate, level_t, level_s))[0], x_s)


@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_the_jumps_of_a_walk_join(steps: int) -> None:
    config = student_config(small(), steps)
    jumps = Distillation(build_denoiser(small()), build_denoiser(config), CPU).substeps
    assert [jump[0].index for jump in jumps] == list(config.sampling.visited)
    assert [jump[-1] for jump in jumps] == [*(jump[0] for jump in jumps[1:]), CLEAN]


def test_a_student_of_constant_data_has_nothing_to_learn() -> None:
    config = student_config(small(), 4)
    distillation = Distillation(linear(1e-9, small()), linear(1e-9, config), CPU)
    assert max(loss(distillation, seed) for seed in range(8)) < 1e-24


def test_the_loss_is_the_distance_of_the_ends_in_units_of_the_velocity() -> None:
    config, deviation = student_config(small(), 1), 0.5
    distillation = Distillation(linear(deviation, small()), linear(deviation, config), CPU)
    (levels,) = distillation.substeps
    x_t = torch.randn(1, 3, 4, 4, generator=skipped_once()).double() * levels[0].sigma
    estimate = distillation.student.estimate(Query(x_t, levels[0], Canvas(4, 4).whole))
    distance = distillation._walked(x_t, levels) - estimate
    assert loss(distillation, 0) == pytest.approx(
        float((distance / levels[0].sigma).square().mean().detach())
    )


def skipped_once() -> torch.Generator:
    """Return a generator from which the jump has been drawn."""
    generator = torch.Generator().manual_seed(0)
    torch.randint(1, (), generator=generator)
    return generator


def test_the_teacher_walks_as_the_exact_flow_does() -> None:
    deviation = 0.5
    distillation = Distillation(
        linear(deviation, small()), linear(deviation, student_config(small(), 4)), CPU
    )
    start, end = distillation.substeps[1][0], distillation.substeps[1][-1]
    spread = [math.hypot(level.alpha * deviation, level.sigma) for level in (start, end)]
    walked = distillation._walked(torch.ones(1, 3, 2, 2, dtype=torch.float64), distillation.substeps[1])
    assert float(walked.mean()) == pytest.approx(spread[1] / spread[0], rel=0.01)


def test_only_the_student_is_trained() -> None:
    student = build_denoiser(student_config(small(), 4))
    distillation = Distillation(build_denoiser(small()), student, CPU)
    (player,) = distillation.players()
    assert {id(p) for p in player.optimizer.param_groups[0]["params"]} == {
        id(p) for p in student.parameters()
    }


def test_a_student_that_walks_like_its_teacher_learns_what_a_guide_adds() -> None:
    config = student_config(small(), None)
    better, weaker = linear(0.5, small()), linear(0.7, small())
    distillation = Distillation(Guided(better, weaker, 2.5), linear(0.5, config), CPU)
    generator = torch.Generator().manual_seed(3)
    jump = int(torch.randint(len(distillation.substeps), (), generator=generator))
    level = distillation.substeps[jump][0]
    x_t = level.sigma * torch.randn(1, 3, 4, 4, generator=generator).double()
    query = Query(x_t, level, Canvas(4, 4).whole)
    added = 1.5 * (better.estimate(query) - weaker.estimate(query))
    assert loss(distillation, 3) == pytest.approx(float((added / level.sigma).square().mean().detach()))
    assert len(distillation.substeps) == SCHEDULE.num_diffusion_steps


def test_a_student_of_the_guided_comes_nearer_to_it() -> None:
    torch.manual_seed(0)
    better, weaker, student = (build_denoiser(small()) for _ in range(3))
    for model in (better, weaker):
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.1)
    distillation = Distillation(Guided(better, weaker, 2.0), student, CPU)
    x_0 = torch.zeros(4, 3, 8, 8)

    def distance() -> float:
        generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
        return sum(distillation.loss("model", Batch(x_0, generator)).item() for generator in generators)

    before = distance()
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for step in range(40):
        optimizer.zero_grad()
        distillation.loss("model", Batch(x_0, torch.Generator().manual_seed(100 + step))).backward()
        optimizer.step()
    assert distance() < 0.5 * before


@pytest.mark.parametrize("steps", [0, 51])
def test_a_walk_without_room_for_the_jumps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"--steps {steps}: must be 1 to 50"):
        student_config(small(), steps)


def test_a_student_cannot_teach_in_levels_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="--steps 2: must be of a teacher that knows all levels"):
        student_config(student_config(small(), 4), 2)


def test_a_student_is_called_at_its_own_levels_alone() -> None:
    config = student_config(small(), 4)
    distillation = Distillation(linear(0.5, config), linear(0.5, student_config(config, None)), CPU)
    assert [levels[0].index for levels in distillation.substeps] == list(config.sampling.visited)
    assert {len(levels) for levels in distillation.substeps} == {2}  # one call, whose estimate is the target


class Game(OwnLoss):
    """A denoiser whose estimates a critic tells from images; both learn."""

    def __init__(self, model: Denoiser, device: torch.device, rate: float = 0.5) -> None:
        super().__init__(model, device)
        self.critic = nn.Conv2d(3, 1, 3).to(device)
        self.rate = rate

    def players(self) -> tuple[Player, ...]:
        optimizer = torch.optim.Adam(self.critic.parameters())
        return (self.player, Player("critic", self.critic, optimizer, self.rate))

    def loss(self, player: str, batch: Batch) -> Tensor:
        noise = torch.randn(batch.x_0.shape, generator=batch.generator)
        region = Canvas(*noise.shape[-2:]).whole
        made = self.model.estimate(Query(noise, self.model.schedule.level(299), region))
        if player == "critic":
            return (softplus(self.critic(made)) + softplus(-self.critic(batch.x_0))).mean()
        return super().loss(player, batch) + 0.1 * softplus(-self.critic(made)).mean()


def played(out: Path, images: int, care: Care = QUIET, rate: float = 0.5) -> Trainer:
    """Return the trainer of a game, after its run."""
    out.mkdir(exist_ok=True)
    trainer = Trainer(
        small_config(images), out, stripes, care, objective=lambda model, device: Game(model, device, rate)
    )
    trainer.run()
    return trainer


def weights(trainer: Trainer) -> list[Tensor]:
    return [torch.cat([w.flatten() for w in p.module.state_dict().values()]) for p in trainer.players]


def test_two_players_learn_in_one_loop(tmp_path: Path) -> None:
    first, last = weights(played(tmp_path, 4)), weights(played(tmp_path, 16))
    assert not any(map(torch.equal, first, last))


def test_a_player_moves_only_its_own_weights(tmp_path: Path) -> None:
    runs = [weights(played(tmp_path / str(rate), 8, rate=rate)) for rate in (0.0, 0.5)]
    assert not torch.equal(runs[0][1], runs[1][1])
    torch.manual_seed(0)  # the critic of rate 0 has stayed as it was made
    made = Game(build_denoiser(small_config(8)), CPU)
    assert torch.equal(runs[0][1], torch.cat([w.flatten() for w in made.critic.state_dict().values()]))


class KilledError(Exception):
    """The run is killed."""


def test_a_game_that_is_killed_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def kill(title: str, done: float, total: float) -> None:
        if done == 16:
            raise KilledError

    played(tmp_path / "whole", 24)
    with pytest.raises(KilledError):
        played(tmp_path / "killed", 24, replace(QUIET, checkpoint_seconds=0.0, report=kill))
    played(tmp_path / "killed", 24)
    assert is_equal(tmp_path / "whole", tmp_path / "killed")


def test_the_tensors_of_the_second_player_bear_its_name(tmp_path: Path) -> None:
    played(tmp_path, 4)
    assert {name.split(".")[0] for name in state_of(tmp_path)} == {
        "network",
        "average",
        "power",
        "adam",
        "critic",
    }


def test_a_loss_that_grows_in_a_game_is_no_divergence(tmp_path: Path) -> None:
    trainer = played(tmp_path, 4)
    trainer.progress.step, trainer.progress.best_loss = 200, -1.0
    trainer._count(1.0, 4, 0.0)
    assert trainer._is_learning()
