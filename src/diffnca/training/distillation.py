"""Distillation: a student learns to go in one call where its teacher goes in several.

The walk from noise to image is cut into as many jumps as the student shall have steps, evenly in time. From a
noised training image the teacher walks one jump in small steps; the student's only estimate must lead to the
same place by one step of DDIM. A student that shall have as many steps as its teacher learns the estimates
themselves, at all levels: what there is to learn then is that the teacher is guided, by another model or by
itself ([2], stage one).

References:
    [1] Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", 2022: the target;
        here the jump is learnt at once instead of by halving.
    [2] Meng et al., "On Distillation of Guided Diffusion Models", CVPR 2023.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config, SamplingConfig
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.diffusion.samplers import DPMSolverPP2M, Memory, Step
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.sampling.guidance import prepare

TEACHER_STEPS = 6
"""Steps of the teacher in a jump, of second order but for the first."""


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


class Distillation(nn.Module):
    """The loss of a student: how far its jumps end from where its teacher walks.

    Attributes:
        student: learns; its configuration says which levels it visits.
        substeps: the levels at which the teacher is called in each jump, the last one being its end. Jumps of
            one call are for a student that walks like its teacher: its target is the teacher's estimate.
    """

    def __init__(self, teacher: ImageDenoiser, student: Denoiser, device: torch.device) -> None:
        """Let `student` learn from `teacher`, which has the same schedule, on `device`."""
        super().__init__()
        self.student = student
        self._teacher = (prepare(teacher, device),)  # in a tuple, so that it is no part of what is trained
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

    def forward(
        self, x_0: Float[Tensor, "b n h w"], generator: torch.Generator, masks: CellNoise | None = None
    ) -> Float[Tensor, ""]:
        """Return the squared error of one jump, drawn for the whole batch, in units of the velocity.

        Args:
            x_0: clean images in [-1, 1].
            generator: a CPU generator for the jump and the noise.
            masks: which cells of the student update.
        """
        jump = int(torch.randint(len(self.substeps), (), generator=generator))
        start, end = self.substeps[jump][0], self.substeps[jump][-1]
        x_t = start.alpha * x_0 + start.sigma * torch.randn(x_0.shape, generator=generator).to(x_0)
        if len(self.substeps[jump]) == 2:
            target = self._estimate(x_t, start)
        else:
            target = estimate_of_jump(x_t, self._walked(x_t, self.substeps[jump]), start, end)
        region = Canvas(*x_t.shape[-2:]).whole
        estimate = self.student.estimate(Query(x_t, start, region, masks))
        error: Tensor = (estimate.float() - target) / start.sigma
        return error.square().mean()

    @torch.no_grad()
    def _estimate(self, x_t: Tensor, level: Level) -> Tensor:
        """Return the estimate of the teacher."""
        return self._teacher[0].estimate(Query(x_t, level, Canvas(*x_t.shape[-2:]).whole))

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
