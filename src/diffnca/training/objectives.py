"""What training minimises: who learns, and the loss of each on a batch of clean images.

A denoiser and a variational autoencoder have losses of their own. A student has another: it learns to go in
one call where its teacher goes in several. The walk from noise to image is cut into as many jumps as the
student has steps, evenly in time. From a noised training image the teacher walks one jump in small steps. One
step of DDIM with the estimate of the student must lead to the same place. A student with as many steps as its
teacher learns the estimates themselves, at all levels: it learns that the teacher is guided, by another model
or by itself ([2], stage one).

References:
    [1] Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022: the target;
        here the jump is learnt at once instead of by halving.
    [2] Meng et al., "On Distillation of Guided Diffusion Models", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.region import Canvas, Region
from diffnca.config.model import Config, SamplingConfig
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.diffusion.samplers import DPMSolverPP2M, Memory, Step
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.models.build import Generator
from diffnca.sampling.guidance import prepare
from diffnca.training.optimizer import build_optimizer

TEACHER_STEPS = 6
"""Steps of the teacher in a jump, of second order but for the first."""


class RandomMasks:
    """Which cells update in one training step, drawn from the generator of the step."""

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        """Draw for so many images from `generator`."""
        self.generator = generator
        self.batch = batch

    def mask(self, cell_step: int, region: Region, probability: float) -> Tensor:
        """Return true where a cell of `region` updates, `b 1 h w`."""
        shape = (self.batch, 1, region.height, region.width)
        return torch.rand(shape, generator=self.generator) < probability


@dataclass(frozen=True)
class Batch:
    """What a player sees in one training step.

    Attributes:
        x_0: clean images in [-1, 1], `b c h w`.
        generator: a CPU generator of all random numbers of this player in this step.
    """

    x_0: Tensor
    generator: torch.Generator

    @property
    def masks(self) -> RandomMasks:
        """Which cells update."""
        return RandomMasks(self.generator, len(self.x_0))


@dataclass(frozen=True)
class Player:
    """One network that learns, with the optimiser of its weights.

    Attributes:
        name: tells the tensors of this player in a checkpoint from those of others.
        module: the network.
        optimizer: of parameters of `module`.
        rate: learning rate of this player, as a multiple of that of the training.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float = 1.0


@runtime_checkable
class Objective(Protocol):
    """What training minimises. In each step, the players take one turn each, in their order."""

    def players(self) -> Sequence[Player]:
        """Return who learns; the first player is the network of the model, which is averaged and written."""
        ...

    def loss(self, player: str, batch: Batch) -> Tensor:
        """Return the loss of a player; within its turn, only the parameters of that player need gradients."""
        ...


ObjectiveOf = Callable[[Generator, torch.device], Objective]
"""Makes the objective of a model that is trained on a device."""


class OwnLoss:
    """The loss that a model itself has: of a denoiser its error, of an autoencoder its bound."""

    def __init__(self, model: Generator, device: torch.device) -> None:
        """Train `model`."""
        self.model = model
        optimizer = build_optimizer(model.config.training, model.network)
        self.player = Player("model", model.network, optimizer)

    def players(self) -> tuple[Player]:
        """Return the only player, the model."""
        return (self.player,)

    def loss(self, player: str, batch: Batch) -> Float[Tensor, ""]:
        """Return the loss of the model."""
        return self.model.loss(batch.x_0, batch.generator, batch.masks)


def student_config(teacher: Config, steps: int | None) -> Config:
    """Return the configuration of a student that samples in so many steps, `None` as its teacher does.

    Raises:
        ValueError: the teacher's walk cannot be cut into so many jumps, or knows few levels itself.
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
    """The loss of a student: how far its jumps end from where its teacher walks.

    Attributes:
        student: learns; its configuration says which levels it visits.
        substeps: the levels at which the teacher is called in each jump, the last one being its end. Jumps of
            one call are for a student that walks like its teacher: its target is the teacher's estimate.
    """

    def __init__(self, teacher: ImageDenoiser, student: Denoiser, device: torch.device) -> None:
        """Let `student` learn from `teacher`, which has the same schedule, on `device`."""
        super().__init__(student, device)
        self.student, self.teacher = student, prepare(teacher, device)
        level, visited = teacher.schedule.level, student.config.sampling.visited
        known = teacher.config.sampling.visited
        self.substeps: list[tuple[Level, ...]]
        if visited is None or known is not None:  # it walks like its teacher, who may be a student too
            every = range(teacher.schedule.num_diffusion_steps - 1, -1, -1)
            self.substeps = [(level(index), CLEAN) for index in known or every]
            return
        self.substeps = [
            tuple(level(index) for index in teacher.schedule.visited(TEACHER_STEPS + 1, first, last))
            for first, last in pairwise(visited)
        ]
        end = teacher.schedule.visited(TEACHER_STEPS, visited[-1])
        self.substeps.append((*map(level, end), CLEAN))

    def loss(self, player: str, batch: Batch) -> Float[Tensor, ""]:
        """Return the squared error of one jump, drawn for the whole batch, in units of the velocity."""
        x_0, generator = batch.x_0, batch.generator
        jump = int(torch.randint(len(self.substeps), (), generator=generator))
        start, end = self.substeps[jump][0], self.substeps[jump][-1]
        x_t = start.alpha * x_0 + start.sigma * torch.randn(x_0.shape, generator=generator).to(x_0)
        if len(self.substeps[jump]) == 2:
            target = self._estimate(x_t, start)
        else:
            target = estimate_of_jump(x_t, self._walked(x_t, self.substeps[jump]), start, end)
        region = Canvas(*x_t.shape[-2:]).whole
        estimate = self.student.estimate(Query(x_t, start, region, batch.masks))
        error: Tensor = (estimate.float() - target) / start.sigma
        return error.square().mean()

    @torch.no_grad()
    def _estimate(self, x_t: Tensor, level: Level) -> Tensor:
        """Return the estimate of the teacher."""
        return self.teacher.estimate(Query(x_t, level, Canvas(*x_t.shape[-2:]).whole))

    @torch.no_grad()
    def _walked(self, x: Tensor, levels: tuple[Level, ...]) -> Tensor:
        """Return where the teacher comes to from `x`."""
        memory: Memory | None = None
        for level_t, level_s in pairwise(levels):
            estimate = self._estimate(x, level_t)
            x, memory = DPMSolverPP2M().step(Step(x, estimate, level_t, level_s, None, memory))
        return x


def estimate_of_jump(x_t: Tensor, x_s: Tensor, level_t: Level, level_s: Level) -> Tensor:
    """Return the estimate with which one step of DDIM goes from `x_t` to `x_s` ([1] appendix G)."""
    kept = level_s.sigma / level_t.sigma
    return (x_s - kept * x_t) / (level_s.alpha - kept * level_t.alpha)
