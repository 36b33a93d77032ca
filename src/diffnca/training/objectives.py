"""Objectives of training: the players, and the loss of each player on a batch of clean images.

A student learns to reach in one call what its teacher reaches in several. The walk consists of jumps, one for
each step of the student, evenly spaced in time. The teacher walks one jump from a noised training image in
small steps. One DDIM step with the estimate of the student must end at the same image. A student with as many
steps as its teacher learns the estimates of the guided teacher at all levels ([2], stage one).

[1] Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022: the target.
[2] Meng et al., "On Distillation of Guided Diffusion Models", CVPR 2023.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, SamplingConfig
from diffnca.diffusion.denoiser import Beside, Denoiser, ImageDenoiser, Query
from diffnca.diffusion.samplers import DPMSolverPP2M, Memory, Step
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.models.build import Generator, denoiser_of
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.coarse import coarse_planes
from diffnca.sampling.guidance import prepare
from diffnca.sampling.styles import standard
from diffnca.training.optimizer import build_optimizer

LEAST_TRUST, SHARE_OF_COLOURS = 0.5, 0.5
"""Training trusts the colours of maps by this much at least, and shows them for this share of the crops."""

TEACHER_STEPS = 6
"""Steps of the teacher in a jump; the first has first order, the others have second order."""


def batch_generator(
    seed: int, number: int, process: int = 0, player: int = 0, turn: int = 0
) -> torch.Generator:
    """Return the generator of all random numbers of a player for one batch of crops, in one turn."""
    entropy = [seed, number, process, *((player, turn) if turn else (player,) if player else ())]
    word = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


@dataclass(frozen=True)
class Batch:
    """Clean images in [-1, 1], `b c h w`, and the CPU generator of a player in one training step.

    `given` holds planes of their layouts, labels and styles, `b k h w`; `None` for a model that sees none.
    `turn` counts the turns of the player in the step.
    """

    x_0: Tensor
    generator: torch.Generator
    given: Tensor | None = None
    turn: int = 0

    @classmethod
    def of(cls, channels: Tensor, config: Config, generator: torch.Generator) -> "Batch":
        """Return a batch from images whose last channels are the planes of classes, labels and styles."""
        layout, colours = config.layout, config.model.image_channels
        numbers = len(layout.style_numbers(colours))
        widths = [colours, len(layout.classes), len(layout.labels), numbers]
        x_0, classes, labels, styles = channels.split(widths, dim=1)
        given = [labels] if layout.made else [classes, labels]
        if numbers:
            given.append(seen_styles(styles, config, generator))
        if layout.made:
            x_0 = torch.cat([x_0, 2.0 * classes - 1.0], dim=1)
        if layout.coarse:
            given.insert(1, seen_coarsely(x_0, layout.coarse, generator))
        return cls(x_0, generator, torch.cat(given, dim=1) if layout.num_planes(colours) else None)

    def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
        """Draw a mask `b 1 h w`: true where a cell of `region` updates."""
        shape = (len(self.x_0), 1, region.height, region.width)
        return torch.rand(shape, generator=self.generator) < probability


@dataclass(frozen=True)
class Player:
    """A network that learns.

    `name` is its name in a checkpoint, `rate` its share of the learning rate, `turns` its turns in a step.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float = 1.0
    turns: int = 1


@runtime_checkable
class Objective(Protocol):
    """A loss for each player. In each step, the players take their turns, in the order of `players`."""

    def players(self) -> Sequence[Player]:
        """Return the players; training averages and writes the network of the first player."""

    def loss(self, player: str, batch: Batch) -> Tensor:
        """Return the loss of a player; in its turn, only its own parameters need gradients."""


ObjectiveOf = Callable[[Generator, torch.device], Objective]


class OwnLoss:
    """The loss of the model itself: the error of a denoiser, the bound of an autoencoder.

    A denoiser may have a further loss `beside` its own.
    """

    def __init__(self, model: Generator, device: torch.device, beside: Beside | None = None) -> None:
        optimizer = build_optimizer(model.config.training, model.network)
        self.model, self.player, self.beside = model, Player("model", model.network, optimizer), beside

    def players(self) -> tuple[Player, ...]:
        """Return the only player."""
        return (self.player,)

    def loss(self, player: str, batch: Batch) -> Float[Tensor, ""]:
        """Return the loss of the model."""
        if batch.given is None and self.beside is None:
            return self.model.loss(batch.x_0, batch.generator, batch)
        denoiser = denoiser_of(self.model)
        return denoiser.loss(batch.x_0, batch.generator, batch, batch.given, self.beside)


def seen_coarsely(
    x_0: Float[Tensor, "b c h w"], factor: int, generator: torch.Generator
) -> Float[Tensor, "b c_1 h w"]:
    """Return the planes of images made smaller; half of them are known, and trusted by chance."""
    colours = F.avg_pool2d(x_0, factor)
    noise = torch.randn(colours.shape, generator=generator).to(x_0)
    drawn, share = torch.rand((2, len(x_0)), generator=generator).to(x_0)
    trust = LEAST_TRUST + (1.0 - LEAST_TRUST) * share
    planes = coarse_planes(colours, noise, trust * (drawn < SHARE_OF_COLOURS))
    return PatchGrid(Canvas(*x_0.shape[-2:]).whole, factor).spread(planes)


def seen_styles(
    styles: Float[Tensor, "b s h w"], config: Config, generator: torch.Generator
) -> Float[Tensor, "b s h w"]:
    """Return constant planes of styles as the cells see them; zeros for the share that training drops."""
    is_shown = torch.rand(len(styles), generator=generator) >= config.layout.dropped
    seen = standard(styles[..., 0, 0], config) * is_shown.to(styles)[:, None]
    return seen[:, :, None, None].expand_as(styles)


def student_config(teacher: Config, steps: int | None) -> Config:
    """Return the configuration of a student; `steps=None` keeps the levels of its teacher.

    Refuse a teacher that has too few levels, or is a student of few steps itself.
    """
    if steps is not None and teacher.sampling.visited is not None:
        raise ValueError(
            f"--steps {steps}: must be of a teacher that knows all levels, not of {teacher.name}, which was "
            "distilled; take its teacher"
        )
    if steps is None:
        return replace(teacher, sampling=replace(teacher.sampling, guidance=1.0))
    available = teacher.schedule.num_diffusion_steps
    if not 1 <= steps <= available // TEACHER_STEPS:
        raise ValueError(
            f"--steps {steps}: must be 1 to {available // TEACHER_STEPS}, the jumps it has room for"
        )
    visited = tuple(available * jump // steps - 1 for jump in range(steps, 0, -1))
    own = teacher.sampling
    sampling = SamplingConfig("ddim", steps, visited, grown=own.grown, even_px=own.even_px)
    return replace(teacher, sampling=sampling)


class Distillation(OwnLoss):
    """The loss of a student: the distance between the ends of its jumps and of the teacher's jumps.

    `substeps` holds the levels of each jump; the teacher is called at all but the last. A student that walks
    like its teacher has jumps of one call: its target is the estimate of the teacher.
    """

    def __init__(self, teacher: ImageDenoiser, student: Denoiser, device: torch.device) -> None:
        super().__init__(student, device)
        self.student, self.teacher = student, prepare(teacher, device)
        schedule, visited = teacher.schedule, student.config.sampling.visited
        known = teacher.config.sampling.visited
        self.substeps: list[tuple[Level, ...]]
        if visited is None or known is not None:  # the teacher may be a student too
            every = range(schedule.num_diffusion_steps - 1, -1, -1)
            self.substeps = [(schedule.level(index), CLEAN) for index in known or every]
            return
        jumps = [schedule.visited(TEACHER_STEPS + 1, first, last) for first, last in pairwise(visited)]
        self.substeps = [tuple(map(schedule.level, jump)) for jump in jumps]
        end = schedule.visited(TEACHER_STEPS, visited[-1])
        self.substeps.append((*map(schedule.level, end), CLEAN))

    def loss(self, player: str, batch: Batch) -> Float[Tensor, ""]:
        """Return the squared error of one random jump of all images, in units of the velocity."""
        x_0, generator = batch.x_0, batch.generator
        jump = int(torch.randint(len(self.substeps), (), generator=generator))
        start, end = self.substeps[jump][0], self.substeps[jump][-1]
        x_t = start.alpha * x_0 + start.sigma * torch.randn(x_0.shape, generator=generator).to(x_0)
        region = Canvas(*x_t.shape[-2:]).whole
        with torch.no_grad():
            if len(self.substeps[jump]) == 2:
                target = self.teacher.estimate(Query(x_t, start, region, given=batch.given))
            else:
                walked = self._walked(x_t, self.substeps[jump], batch.given)
                target = estimate_of_jump(x_t, walked, start, end)
        estimate = self.student.estimate(Query(x_t, start, region, batch, given=batch.given))
        error: Tensor = (estimate.float() - target) / start.sigma
        return error.square().mean()

    @torch.no_grad()
    def _walked(self, x: Tensor, levels: tuple[Level, ...], given: Tensor | None = None) -> Tensor:
        memory: Memory | None = None
        for level_t, level_s in pairwise(levels):
            query = Query(x, level_t, Canvas(*x.shape[-2:]).whole, given=given)
            estimate = self.teacher.estimate(query)
            x, memory = DPMSolverPP2M().step(Step(x, estimate, level_t, level_s, None, memory))
        return x


def estimate_of_jump(x_t: Tensor, x_s: Tensor, level_t: Level, level_s: Level) -> Tensor:
    """Return the estimate that takes one step of DDIM from `x_t` to `x_s` ([1] appendix G)."""
    kept = level_s.sigma / level_t.sigma
    return (x_s - kept * x_t) / (level_s.alpha - kept * level_t.alpha)
