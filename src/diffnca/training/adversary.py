"""A student against a discriminator on frozen features: its images must look real, near its teacher's.

A discriminator from scratch learns too slowly. Here frozen features look at real and generated images. Random
frozen convolutions mix their channels and scales, and a small head at each level says what is real [1].
Images are changed at random before, real and generated ones alike: colours, places, holes [2].

**What the discriminator sees.** The estimate at a high noise level is the mean of what is possible. It is
blurred by its nature, and no student can make it look real. Only the end of the walk can look real. So the
student walks from noise to its image as in sampling, and the discriminator sees this image. A walk that
begins at a noised training image would hide the errors that the first jumps hand on. The loss of the
distillation holds all jumps near those of the teacher. A stage of finer cells than another stage stays as it
is: it would draw the lattice of its cells where images are flat.

**Grain or forms.** Grain is in the features of small places, and the last call draws it. So gradients pass
through this call alone: each other call costs as much again. Forms, such as those of a face, are in the
deepest features of an enlarged image, where a place has a few pixels of the image and sees much of it. The
first calls decide on forms, so gradients pass through all calls.

**The lattice.** A pattern that repeats from cell to cell costs the student little, and features take it for
grain. No real image has it. So the student pays for what neighbouring cells have in common, most of all where
images are flat.

**What it costs.** One half of a batch shows the student the jumps of its teacher. The student ends as many
walks as the other half has images, and these stand for what is real. The discriminator makes images anew
after each step of the student. If it learns from the images of the student's turn, it stays a step behind:
it then takes generated images for real, and the student draws the lattice of its cells.

[1] Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021, arXiv 2111.01007.
[2] Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, arXiv 2006.10738.
[3] Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018: bounded heads.
"""

import copy
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from diffnca.canvas.region import Canvas
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.diffusion.samplers import DDIM, Step
from diffnca.diffusion.schedule import CLEAN
from diffnca.sampling.guidance import prepare
from diffnca.training.features import Features
from diffnca.training.objectives import Batch, Distillation, Player
from diffnca.training.optimizer import build_optimizer

WIDTH = 64
"""Channels of each mixed level, and of the heads."""

LARGEST_SHIFT, HOLE = 1 / 8, 1 / 2
"""Shares of the side of an image: how far it is moved, how wide the hole in it is."""

DISCRIMINATOR_RATE = 10.0
"""Learning rate of the discriminator, as a share of the student's: at 4 it falls behind after 800 steps."""


LATTICE_WEIGHT = 10.0
"""How much a lattice counts, next to the error of the distillation."""

FLAT = 1e-4
"""Mean square of the detail of a cell up to which it counts as flat."""

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns from a cell to half of its neighbours; the other half sees the same pairs."""


@dataclass(frozen=True)
class Look:
    """What a discriminator sees of an image, and which calls of the student learn from it.

    Attributes:
        levels: number of levels of features, from the deepest level on; `None` for all.
        enlarged: how many times as large the features see an image.
        all_calls: whether gradients pass through all calls, or through the last call alone.
    """

    levels: int | None
    enlarged: float
    all_calls: bool


LOOKS = {
    "features": Look(levels=None, enlarged=1.0, all_calls=False),
    "forms": Look(levels=2, enlarged=3.0, all_calls=True),
}
"""The looks by the values of `--against`."""


class Mixing:
    """Frozen random convolutions over the levels of features; they are a function of the seed.

    Each level becomes `WIDTH` random mixtures of its channels. Then each level, coarse to fine, takes in the
    coarser level, enlarged and mixed again: its places see the surroundings, too.
    """

    def __init__(self, widths: tuple[int, ...], seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)

        def drawn(inputs: int, side: int) -> Tensor:
            weight = torch.randn(WIDTH, inputs, side, side, generator=generator)
            return (weight / math.sqrt(inputs * side**2)).to(device)

        self.across = [drawn(width, 1) for width in widths]
        self.upward = [drawn(WIDTH, 3) for _ in widths[1:]]

    def __call__(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the mixed levels, fine to coarse."""
        own = [F.conv2d(level, weight) for level, weight in zip(levels, self.across, strict=True)]
        mixed = [own.pop()]
        for level, weight in zip(reversed(own), reversed(self.upward), strict=True):
            above = F.interpolate(mixed[0], level.shape[-2:], mode="bilinear")
            mixed.insert(0, (level + F.conv2d(above, weight, padding=1)) / math.sqrt(2.0))
        return mixed


class Head(nn.Sequential):
    """A score for each place of a level, above 0 for real; its slope is bounded [3]."""

    def __init__(self) -> None:
        super().__init__(
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, padding=1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(WIDTH, 1, 1)),
        )


def hinge(real: list[Tensor], made: list[Tensor]) -> Float[Tensor, ""]:
    """Return the loss of the discriminator, 0 if scores are above 1 for real and below -1 for made images."""
    losses = [F.relu(1.0 - r).mean() + F.relu(1.0 + m).mean() for r, m in zip(real, made, strict=True)]
    return torch.stack(losses).mean()


def unreality(made: list[Tensor]) -> Float[Tensor, ""]:
    """Return the loss of the student: the mean of the scores of its images over levels, negated."""
    return -torch.stack([scores.mean() for scores in made]).mean()


def lattice(images: Float[Tensor, "b c h w"], side: int) -> Float[Tensor, ""]:
    """Return the mean square of what neighbouring cells of `side` px have in common; flat cells count most.

    The detail of a cell is what differs from the mean over two cells by two, which is blind to a lattice,
    and from its own mean. Detail that has nothing to do with that of the neighbours gives 0 on average; less
    than 0 counts as 0. So a lattice counts wherever it is, also if it differs from place to place. Cells at
    the sides of an image have no such detail, and do not count: fewer than four cells give 0.
    """
    height, width = (size // side * side for size in images.shape[-2:])
    if min(height, width) < 4 * side:
        return images.new_zeros(())
    smooth = F.avg_pool2d(F.avg_pool2d(images[..., :height, :width], 2 * side, stride=1), 2, stride=1)
    detail = images[..., side : height - side, side : width - side] - smooth
    cells = F.pixel_unshuffle(detail, side).unflatten(1, (images.shape[1], side**2))
    cells = cells - cells.mean(2, keepdim=True)
    flatness = 1.0 / (cells.detach().square().mean((1, 2)) / FLAT + 1.0)
    shared, weight = images.new_zeros(len(images)), images.new_zeros(len(images))
    for down, right in NEIGHBOURS:
        one, other = pairs(cells, down, right)
        both = torch.mul(*pairs(flatness, down, right))
        shared = shared + ((one * other).mean((1, 2)) * both).sum((1, 2))
        weight = weight + both.sum((1, 2))
    return F.relu(shared / weight).mean()


def pairs(cells: Float[Tensor, "b *n h w"], down: int, right: int) -> tuple[Tensor, Tensor]:
    """Return cells and their neighbours, some rows `down` and some columns to the `right`, place by place."""
    height, width = cells.shape[-2:]
    left, far = max(0, -right), max(0, right)
    return cells[..., : height - down, left : width - far], cells[..., down:, far : width - left]


class AgainstFeatures(Distillation):
    """The loss of a student beside the loss of a discriminator that tells its images from real ones.

    `weight` says how much looking real counts, next to the error of the distillation. The seed of
    the training gives the mixing of the features.
    """

    def __init__(
        self,
        teacher: ImageDenoiser,
        features: Features,
        look: Look,
        weight: float,
        student: Denoiser,
        device: torch.device,
    ) -> None:
        super().__init__(teacher, student, device)
        training = student.config.training
        model = student.config.model
        sides = (model.patch, model.largest_cell_px) if isinstance(model, NCAConfig) else (1, 1)
        finest_px, self.cell_px = sides
        if finest_px < self.cell_px:
            *first, last = student.network.compiled_parts()
            last.requires_grad_(False)
            self.player = replace(self.player, optimizer=build_optimizer(training, nn.ModuleList(first)))
        self.features, self.look, self.weight, self.device = features.to(device), look, weight, device
        widths = features.widths[-(look.levels or 0) :]
        self.mixing = Mixing(widths, training.seed, device)
        self.heads = nn.ModuleList(Head() for _ in widths).to(device)
        optimizer = torch.optim.Adam(self.heads.parameters(), training.learning_rate, betas=(0.0, 0.99))
        self.discriminator = Player("discriminator", self.heads, optimizer, DISCRIMINATOR_RATE)
        indices = student.config.sampling.visited or ()
        self.walk = [*map(student.schedule.level, indices), CLEAN]

    def players(self) -> tuple[Player, ...]:
        """Return the student and the discriminator, whose turn follows: it sees the student of this step."""
        return (self.player, self.discriminator)

    def loss(self, player: str, batch: Batch) -> Float[Tensor, ""]:
        """Return the loss of the student, or of the discriminator."""
        distilled, walked = halves(batch)
        if player == self.player.name:
            error, made = super().loss(player, distilled), self.made(walked)
            looks = self.weight * unreality(self.scores(self.seen(made, batch.generator)))
            return error + looks + LATTICE_WEIGHT * lattice(made, self.cell_px)
        with torch.no_grad():
            images = torch.cat([self.image(walked.x_0), self.made(walked)])
            levels = self.seen(images, batch.generator)
        both = [scores.chunk(2) for scores in self.scores(levels)]
        return hinge([real for real, _ in both], [made for _, made in both])

    def image(self, drawn: Float[Tensor, "b n h w"]) -> Float[Tensor, "b c h w"]:
        """Return the channels of the image, without the planes of a map that is drawn with it."""
        return drawn[:, : self.student.config.model.image_channels]

    def made(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """Return images of the student, as sampling makes them; gradients pass through calls that learn."""
        x = torch.randn(batch.x_0.shape, generator=batch.generator).to(batch.x_0)
        *first, (last, _) = pairwise(self.walk)
        region, learns, still = Canvas(*x.shape[-2:]).whole, torch.is_grad_enabled(), self.still()
        learning = self.student if learns else still
        denoiser = learning if self.look.all_calls else still
        with torch.set_grad_enabled(learns and self.look.all_calls):
            for level_t, level_s in first:
                estimate = denoiser.estimate(Query(x, level_t, region, batch, given=batch.given))
                x, _ = DDIM().step(Step(x, estimate.float(), level_t, level_s))
        return self.image(learning.estimate(Query(x, last, region, batch, given=batch.given)).float())

    @torch.no_grad()
    def still(self) -> ImageDenoiser:
        """Return the student as sampling runs it: without gradients, which compiled code would know apart."""
        network = self.student.network
        weights = (*network.parameters(), *network.buffers())
        shared = copy.deepcopy(network, {id(weight): weight for weight in weights})
        return prepare(Denoiser(shared, self.student.schedule, self.student.config), self.device)

    def seen(self, images: Float[Tensor, "b c h w"], generator: torch.Generator) -> list[Tensor]:
        """Return the mixed features of images, fine to coarse, after random changes of the images."""
        with torch.autocast(images.device.type, enabled=False):
            shown = augmented(images.float(), generator)
            if self.look.enlarged != 1.0:
                shown = F.interpolate(shown, scale_factor=self.look.enlarged, mode="bilinear")
            return self.mixing(self.features.levels(shown)[-len(self.heads) :])

    def scores(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the scores of the places of each mixed level."""
        with torch.autocast(self.device.type, enabled=False):
            return [head(level) for head, level in zip(self.heads, levels, strict=True)]


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return the halves of a batch; both have the middle image of an odd number."""
    middle = len(batch.x_0) // 2
    return part(batch, slice(len(batch.x_0) - middle)), part(batch, slice(middle, None))


def part(batch: Batch, images: slice) -> Batch:
    """Return some images of a batch, with their planes."""
    return replace(batch, x_0=batch.x_0[images], given=None if batch.given is None else batch.given[images])


def augmented(images: Float[Tensor, "b c h w"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Return images with random colours and places, and holes; differentiable [2]."""
    draws = torch.rand((7, len(images), 1, 1, 1), generator=generator).to(images)
    light, saturation, contrast = draws[0] - 0.5, 2.0 * draws[1], draws[2] + 0.5
    x = images + light
    gray = x.mean(1, keepdim=True)
    x = gray + saturation * (x - gray)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + contrast * (x - mean)
    rows, columns = (places(side).to(x) for side in x.shape[-2:])
    rows, columns = rows[:, None], columns[None, :]
    hole = ((rows - draws[3]).abs() < HOLE / 2) & ((columns - draws[4]).abs() < HOLE / 2)
    return shifted(x, (2.0 * draws[5:] - 1.0) * LARGEST_SHIFT).masked_fill(hole, 0.0)


def places(side: int) -> Float[Tensor, " n"]:
    """Return the places of the pixels along a side, from 0 to 1."""
    return (torch.arange(side) + 0.5) / side


def shifted(images: Float[Tensor, "b c h w"], shares: Float[Tensor, "2 b 1 1 1"]) -> Float[Tensor, "b c h w"]:
    """Return each image moved by whole pixels, by a share of its height and its width; zeros come in."""
    height, width = images.shape[-2:]
    down = (shares[0].flatten() * height).round().long().tolist()
    right = (shares[1].flatten() * width).round().long().tolist()
    edge_y, edge_x = math.ceil(LARGEST_SHIFT * height), math.ceil(LARGEST_SHIFT * width)
    padded = F.pad(images, (edge_x, edge_x, edge_y, edge_y))
    moved = [
        image[:, edge_y - dy : edge_y - dy + height, edge_x - dx : edge_x - dx + width]
        for image, dy, dx in zip(padded, down, right, strict=True)
    ]
    return torch.stack(moved)
