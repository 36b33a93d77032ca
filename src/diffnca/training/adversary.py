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
head also sees how far the images of a batch differ at each place [3].

**Colours.** Random changes hide the colours of an image from the discriminator, and all images of a student
would take on one tint. So where forms may change, two more heads see the coarse colours of the unchanged
image. The mean of the coarse colours over a batch stays that of the teacher's images with the same noise. One
image alone may differ more: else a wrong form would stay where the teacher has it.

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
from collections.abc import Sequence
from dataclasses import replace
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
from diffnca.training.augmentation import augmented, moved
from diffnca.training.discriminator import Head, Look, Memory, colour_widths, colours, hinge, unreality
from diffnca.training.features import Features
from diffnca.training.lattice import lattice
from diffnca.training.objectives import Batch, Distillation, Player
from diffnca.training.optimizer import build_optimizer

DISCRIMINATOR_RATE = 2.5
"""Learning rate of the discriminator, as a share of the student's."""

TURNS = 4
"""Turns of the discriminator in a step."""

COARSE_PX, COARSE_WEIGHT, TINT_WEIGHT = 8, 2.0, 40.0
"""Side of the squares whose mean colours are kept; how much these count, image by image and as a mean."""

LATTICE_WEIGHT = 5000.0
"""How much a lattice counts, next to looking real: about as much at 1e-4, where the eye sees it."""


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
        widths = [network.widths for network in self.networks]
        if look.all_calls:
            widths.append(colour_widths(model.image_channels))
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
        return error + self.weight * looks + self.coarse(image, walked, noise)

    @torch.no_grad()
    def remember(self, batch: Batch) -> None:
        """Let the discriminator see the images of a batch, and as many images of the student."""
        images = torch.cat([self.image(batch.x_0), self.made(batch, noise_of(batch))])
        both = [level.chunk(2) for level in self.seen(images, batch.generator)]
        self.memory.add([real for real, _ in both], [made for _, made in both])

    def coarse(self, image: Tensor, batch: Batch, noise: Tensor) -> Float[Tensor, ""]:
        """Return the price of coarse colours that are not those of the teacher with the same noise.

        Where the last call alone learns, they hardly change, and this is 0.
        """
        if not self.look.all_calls:
            return image.new_zeros(())
        with torch.no_grad():
            told = self.walked(self.teacher, batch, noise)
        off = F.avg_pool2d(image - told, min(COARSE_PX, *image.shape[-2:]))
        return COARSE_WEIGHT * off.square().mean() + TINT_WEIGHT * off.mean(0).square().mean()

    def image(self, drawn: Float[Tensor, "b n h w"]) -> Float[Tensor, "b c h w"]:
        """Return the channels of the image, without the planes of a map that is drawn with it."""
        return drawn[:, : self.student.config.model.image_channels]

    def made(self, batch: Batch, noise: Float[Tensor, "b n h w"]) -> Float[Tensor, "b c h w"]:
        """Return images of the student, as sampling makes them; gradients pass through calls that learn."""
        learns = torch.is_grad_enabled()
        if self.look.all_calls:
            return self.walked(self.student if learns else self.still(), batch, noise)
        still = self.still()
        with torch.no_grad():
            x = self.before_last(still, batch, noise)
        return self.last(self.student if learns else still, batch, x)

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
        """Return what heads see of images: features after random changes, view by view, fine to coarse.

        Where all calls learn, coarse colours come last.
        """
        with torch.autocast(images.device.type, enabled=False):
            shown, found = augmented(images.float(), generator), list[Tensor]()
            for view, network in zip(self.look.views, self.networks, strict=True):
                large = shown
                if view.enlarged != 1.0:
                    large = F.interpolate(shown, scale_factor=view.enlarged, mode="bilinear")
                found += network.levels(large)
            return found + (colours(moved(images.float(), generator)) if self.look.all_calls else [])

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
