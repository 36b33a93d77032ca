"""A student against a discriminator on frozen features: its images must look real, near its teacher's.

A discriminator from scratch learns too slowly. Here frozen features look at real and generated images, and a
small head at each level says what is real [1]. A head sees all channels of its level: random mixtures of
them hide most faults of an image. Images are changed at random before, real and generated ones alike:
colours, places, holes [2].

**What the discriminator sees.** The estimate at a high noise level is the mean of what is possible. It is
blurred by its nature, and no student can make it look real. Only the end of the walk can look real. So the
student walks from noise to its image as in sampling, and the discriminator sees this image. A walk that
begins at a noised training image would hide the errors that the first jumps hand on. The loss of the
distillation holds all jumps near those of the teacher. A stage of finer cells than another stage stays as it
is: it would draw the lattice of its cells where images are flat.

**Grain or forms.** Grain is in the features of small places, and the last call draws it. So gradients pass
through this call alone: each other call costs as much again. Forms, such as those of a face, are in the
features of an enlarged image, where a place has a few pixels of the image and sees much of it. The first
calls decide on forms, so gradients pass through all calls.

**Variety.** A discriminator that judges image by image has nothing against images that are all alike. So each
head also sees how far the images of a batch differ at each place [3]. The mean colours of coarse squares
stay near those of the teacher's image with the same noise. Else all images take on the colours that look
most real.

**The lattice.** A pattern that repeats from cell to cell costs the student little, and features take it for
grain. No real image has it. So the student pays for what neighbouring cells have in common, most of all where
images are flat.

**What it costs.** One half of a batch shows the student the jumps of its teacher. The student ends as many
walks as the other half has images, and these stand for what is real. The discriminator makes images anew
after each step of the student. If it learns from the images of the student's turn, it stays a step behind:
it then takes generated images for real, and the student draws the lattice of its cells. The discriminator
takes several turns in a step, for little: it remembers the features of the last images, and draws from them.

[1] Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021, arXiv 2111.01007.
[2] Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, arXiv 2006.10738.
[3] Karras et al., "Progressive Growing of GANs", ICLR 2018, arXiv 1710.10196: the standard deviation of a
    minibatch.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.diffusion.denoiser import Denoiser, ImageDenoiser, Query
from diffnca.diffusion.samplers import DDIM, Step
from diffnca.diffusion.schedule import CLEAN, Level
from diffnca.sampling.guidance import prepare
from diffnca.training.expressions import EXPRESSIONS, face_expressions
from diffnca.training.features import FEATURES, Features, efficientnet_lite2
from diffnca.training.objectives import Batch, Distillation, Player
from diffnca.training.optimizer import build_optimizer

WIDTH = 64
"""Channels of a head."""

LARGEST_SHIFT, HOLE = 1 / 16, 1 / 8
"""Shares of the side of an image: how far it is moved, how wide the hole in it is."""

DISCRIMINATOR_RATE = 2.5
"""Learning rate of the discriminator, as a share of the student's."""

TURNS, MEMORY = 4, 64
"""Turns of the discriminator in a step; real and made images, each, whose features it remembers."""

COARSE_PX, COARSE_WEIGHT = 8, 10.0
"""Side of the squares whose mean colours an image keeps, and how much they count."""

SPREAD, LEAST_VARIANCE = 3.0, 1e-6
"""Factor that brings the spread of a batch to the size of features; the variance where its slope ends."""

LATTICE_WEIGHT = 5000.0
"""How much a lattice counts, next to looking real: about as much at 1e-4, where the eye sees it."""

FLAT = 1e-4
"""Mean square of the detail of a cell up to which it counts as flat."""

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns from a cell to half of its neighbours; the other half sees the same pairs."""


NETWORKS: dict[str, Callable[[], Features]] = {
    FEATURES: efficientnet_lite2,
    EXPRESSIONS: face_expressions,
}
"""The frozen networks by the names that cards of models give them."""


@dataclass(frozen=True)
class View:
    """What a discriminator sees by one frozen network.

    Attributes:
        network: its name in `NETWORKS`.
        levels: number of levels of features, from the deepest level on; `None` for all.
        enlarged: how many times as large the network sees an image.
    """

    network: str
    levels: int | None = None
    enlarged: float = 1.0

    @property
    def kept(self) -> slice:
        """The levels that it sees, of all levels."""
        return slice(-self.levels if self.levels else None, None)


@dataclass(frozen=True)
class Look:
    """What a discriminator sees of an image, and how the student learns from it.

    Attributes:
        views: what it sees.
        all_calls: whether gradients pass through all calls, or through the last call alone.
        weight: how much looking real counts by default, next to the error of the distillation.
        learning_rate: the default peak rate of the student.
    """

    views: tuple[View, ...]
    all_calls: bool
    weight: float
    learning_rate: float

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks, view by view."""
        return tuple(view.network for view in self.views)

    def loaded(self) -> tuple[Features, ...]:
        """Return the networks, view by view."""
        return tuple(NETWORKS[name]() for name in self.networks)


FORMS = View(FEATURES, enlarged=3.0)

LOOKS = {
    "features": Look((View(FEATURES),), all_calls=False, weight=0.002, learning_rate=1.2e-4),
    "forms": Look((FORMS,), all_calls=True, weight=0.015, learning_rate=2e-4),
    "faces": Look((FORMS, View(EXPRESSIONS)), all_calls=True, weight=0.1, learning_rate=2e-4),
}
"""The looks by the values of `--against`."""


class Head(nn.Module):
    """A score for each place of a level, above 0 for real, from all its features and their spread."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width + 1, WIDTH, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(WIDTH, 1, 1)
        )

    def forward(self, level: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return the scores of the places of a level of a batch of images."""
        scores: Tensor = self.layers(torch.cat([level, spread(level)], dim=1))
        return scores


def spread(level: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return how far the images of a batch differ at each place: images that are all alike have 0."""
    variance = level.var(0, correction=0, keepdim=True)
    deviation = (variance + LEAST_VARIANCE).sqrt().mean(1, keepdim=True)
    return SPREAD * deviation.expand(len(level), -1, -1, -1)


class Memory(nn.Module):
    """The features of the last real and made images, as a part of the discriminator: a checkpoint holds them.

    `shapes` are those of the levels of an image.
    """

    count: Tensor

    def __init__(self, shapes: Sequence[torch.Size]) -> None:
        super().__init__()
        self.kinds = [[f"{kind}{level}" for level in range(len(shapes))] for kind in ("real", "made")]
        for names in self.kinds:
            for name, shape in zip(names, shapes, strict=True):
                self.register_buffer(name, torch.zeros(MEMORY, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def add(self, real: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Remember the levels of images, instead of the oldest ones."""
        number = min(len(real[0]), MEMORY)
        places = (int(self.count) + torch.arange(number)) % MEMORY
        for names, levels in zip(self.kinds, (real, made), strict=True):
            for name, level in zip(names, levels, strict=True):
                self.get_buffer(name)[places] = level[:number]
        self.count += number

    def drawn(self, number: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """Return the levels of random real and made images, `number` of each."""
        known = min(int(self.count), MEMORY)
        real, made = torch.randint(known, (2, number), generator=generator)
        both = zip(self.kinds, (real, made), strict=True)
        found = [[self.get_buffer(name)[places] for name in names] for names, places in both]
        return found[0], found[1]


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

    `weight` says how much looking real counts, next to the error of the distillation.
    """

    def __init__(
        self,
        teacher: ImageDenoiser,
        networks: Sequence[Features],
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
        self.look, self.weight, self.device = look, weight, device
        self.networks = tuple(network.to(device) for network in networks)
        widths = [each.widths[view.kept] for view, each in zip(look.views, self.networks, strict=True)]
        self.heads = nn.ModuleList(map(Head, chain(*widths))).to(device)
        self.memory = Memory(self.shapes(student.config)).to(device)
        module = nn.ModuleDict({"heads": self.heads, "memory": self.memory})
        optimizer = torch.optim.Adam(self.heads.parameters(), training.learning_rate, betas=(0.0, 0.99))
        self.discriminator = Player("discriminator", module, optimizer, DISCRIMINATOR_RATE, TURNS)
        indices = student.config.sampling.visited or ()
        self.walk = [*map(student.schedule.level, indices), CLEAN]

    def players(self) -> tuple[Player, ...]:
        """Return the student and the discriminator, whose turn follows: it sees the student of this step."""
        return (self.player, self.discriminator)

    def shapes(self, config: Config) -> list[torch.Size]:
        """Return the shapes of the features of one image."""
        image = torch.zeros(1, config.model.image_channels, config.data.crop, config.data.crop)
        return [level.shape[1:] for level in self.seen(image.to(self.device), torch.Generator())]

    def loss(self, player: str, batch: Batch) -> Float[Tensor, ""]:
        """Return the loss of the student, or of the discriminator."""
        distilled, walked = halves(batch)
        if player != self.player.name:
            if batch.turn == 0:
                self.remember(walked)
            real, made = self.memory.drawn(2 * len(walked.x_0), batch.generator)
            return hinge(self.scores(real), self.scores(made))
        error, noise = super().loss(player, distilled), noise_of(walked)
        image = self.made(walked, noise)
        looks = unreality(self.scores(self.seen(image, batch.generator)))
        looks = looks + LATTICE_WEIGHT * lattice(image, self.cell_px)
        return error + self.weight * looks + COARSE_WEIGHT * self.coarse(image, walked, noise)

    @torch.no_grad()
    def remember(self, batch: Batch) -> None:
        """Let the discriminator see the images of a batch, and as many images of the student."""
        images = torch.cat([self.image(batch.x_0), self.made(batch, noise_of(batch))])
        both = [level.chunk(2) for level in self.seen(images, batch.generator)]
        self.memory.add([real for real, _ in both], [made for _, made in both])

    def coarse(self, image: Tensor, batch: Batch, noise: Tensor) -> Float[Tensor, ""]:
        """Return how far the coarse colours of images are from those of the teacher with the same noise.

        Where the last call alone learns, they hardly change, and this is 0.
        """
        if not self.look.all_calls:
            return image.new_zeros(())
        with torch.no_grad():
            told = self.walked(self.teacher, batch, noise)
        return F.avg_pool2d(image - told, min(COARSE_PX, *image.shape[-2:])).square().mean()

    def image(self, drawn: Float[Tensor, "b n h w"]) -> Float[Tensor, "b c h w"]:
        """Return the channels of the image, without the planes of a map that is drawn with it."""
        return drawn[:, : self.student.config.model.image_channels]

    def made(self, batch: Batch, noise: Float[Tensor, "b n h w"]) -> Float[Tensor, "b c h w"]:
        """Return images of the student, as sampling makes them; gradients pass through calls that learn."""
        learns, still = torch.is_grad_enabled(), self.still()
        learning = self.student if learns else still
        if self.look.all_calls:
            return self.walked(learning, batch, noise)
        with torch.no_grad():
            x = self.before_last(still, batch, noise)
        return self.last(learning, batch, x)

    def walked(self, denoiser: ImageDenoiser, batch: Batch, noise: Tensor) -> Float[Tensor, "b c h w"]:
        """Return images of a denoiser that takes the steps of the student."""
        return self.last(denoiser, batch, self.before_last(denoiser, batch, noise))

    def before_last(self, denoiser: ImageDenoiser, batch: Batch, x: Tensor) -> Float[Tensor, "b n h w"]:
        """Return noisy images before the last call."""
        for level_t, level_s in list(pairwise(self.walk))[:-1]:
            x, _ = DDIM().step(Step(x, self.estimate(denoiser, batch, x, level_t), level_t, level_s))
        return x

    def last(self, denoiser: ImageDenoiser, batch: Batch, x: Tensor) -> Float[Tensor, "b c h w"]:
        """Return the images that the last call makes."""
        return self.image(self.estimate(denoiser, batch, x, self.walk[-2]))

    def estimate(self, denoiser: ImageDenoiser, batch: Batch, x: Tensor, level: Level) -> Tensor:
        """Return the clean estimate of whole images."""
        query = Query(x, level, Canvas(*x.shape[-2:]).whole, batch, given=batch.given)
        return denoiser.estimate(query).float()

    @torch.no_grad()
    def still(self) -> ImageDenoiser:
        """Return the student as sampling runs it: without gradients, which compiled code would know apart."""
        network = self.student.network
        weights = (*network.parameters(), *network.buffers())
        shared = copy.deepcopy(network, {id(weight): weight for weight in weights})
        return prepare(Denoiser(shared, self.student.schedule, self.student.config), self.device)

    def seen(self, images: Float[Tensor, "b c h w"], generator: torch.Generator) -> list[Tensor]:
        """Return the features of images, view by view, fine to coarse, after random changes of the images."""
        with torch.autocast(images.device.type, enabled=False):
            shown, found = augmented(images.float(), generator), list[Tensor]()
            for view, network in zip(self.look.views, self.networks, strict=True):
                large = shown
                if view.enlarged != 1.0:
                    large = F.interpolate(shown, scale_factor=view.enlarged, mode="bilinear")
                found += network.levels(large)[view.kept]
            return found

    def scores(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the scores of the places of each level."""
        with torch.autocast(self.device.type, enabled=False):
            return [head(level) for head, level in zip(self.heads, levels, strict=True)]


def noise_of(batch: Batch) -> Float[Tensor, "b n h w"]:
    """Return the noise from which a batch of images is made."""
    return torch.randn(batch.x_0.shape, generator=batch.generator).to(batch.x_0)


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
