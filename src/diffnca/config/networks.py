"""Choices of a network, as frozen dataclasses: cells, stages, and the networks for comparison.

`diffnca.config.model` puts them into a `Config`; `diffnca.models.build` builds the networks.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from diffnca.errors import number, require, require_within

MOST_CELL_STEPS = 1024
"""The published networks take 48 cell steps; time and radius grow with the number."""

MOST_CHANNELS, MOST_HIDDEN = 4096, 8192
"""The largest layer has 100 million weights; the published networks have 96 channels, width 512."""

LARGEST_PATCH_PX, LARGEST_DILATION, MOST_DILATIONS = 64, 1024, 64

MOST_LEVELS, MOST_LAYERS, MOST_UNET_CHANNELS = 8, 8, 4096
"""Limits of a UNet; the last limit is for the sum over all levels. Recipes have 3 levels, at most 512."""

MOST_OF_A_CODE = 2**22
"""Number of weights between encoder and code of VNCA, divided by 32; the published network has 2**17."""


@dataclass(frozen=True)
class CellConfig:
    """A cell rule: perception, update, number of cell steps.

    Attributes:
        hidden: width of the hidden layer.
        num_cell_steps: cell steps in one call of the network.
        update_probability: probability that a cell *does* update in a cell step (no rescaling).
        dilations: spacing of the 3x3 perception in cells, for each cell step in turn, repeated cyclically.
        padding: values beyond the edge: the mirrored image (`reflect`), or `zeros`.
        embedding: embedding of time and position: published `linear`, or `fourier` features.
        embedding_width: hidden width of the network that embeds.
        embedding_channels: channels of the embedding for each cell.
        positions: `none` (translation-invariant), `relative` to the canvas, or in `pixels` from its centre.
        perceive_embedding: concatenate the embedding to the perceived state.
        modulation: effect of the embedding on the cell: `none`, multiplicative `gate`, or `scale_shift`.
        normalisation: of the hidden layer: per `cell` over its channels, or `group` over channels and space.
        weight_norm: weight-normalised convolutions, as in the npj models.
        cell_step_period: embed the cell step as cell_step / period; `None` means `num_cell_steps`.
    """

    hidden: int = number(256, within=(1, MOST_HIDDEN))
    num_cell_steps: int = number(8, within=(1, MOST_CELL_STEPS))
    update_probability: float = 1.0
    dilations: tuple[int, ...] = (1,)
    padding: Literal["reflect", "zeros"] = "reflect"
    embedding: Literal["linear", "fourier"] = "fourier"
    embedding_width: int = number(64, within=(1, MOST_HIDDEN))
    embedding_channels: int = number(64, within=(1, MOST_CHANNELS))
    positions: Literal["none", "relative", "pixels"] = "none"
    perceive_embedding: bool = False
    modulation: Literal["none", "gate", "scale_shift"] = "scale_shift"
    normalisation: Literal["cell", "group"] = "cell"
    weight_norm: bool = False
    cell_step_period: int | None = number(None, within=(1, 1_000_000))

    def __post_init__(self) -> None:
        require_within(self, "")
        share = self.update_probability
        require(0.0 < share <= 1.0, "update_probability", share, "in (0, 1]")
        fits = 1 <= len(self.dilations) <= MOST_DILATIONS
        fits = fits and 1 <= min(self.dilations) <= max(self.dilations) <= LARGEST_DILATION
        allowed = f"1 to {MOST_DILATIONS} spacings, each from 1 to {LARGEST_DILATION}"
        require(fits, "dilations", self.dilations, allowed)

    def dilation(self, cell_step: int) -> int:
        """Return the spacing of the perception in a cell step, in cells."""
        return self.dilations[cell_step % len(self.dilations)]

    def products(self, channels: int, planes: int) -> int:
        """Return how many products a cell of `channels`, `planes` of them given, takes in a call."""
        seen = channels + self.embedding_channels * self.perceive_embedding
        layers = 9 * (seen - planes) * (channels - planes) + self.hidden * (seen + 2 * channels - planes)
        return self.num_cell_steps * layers

    @property
    def radius(self) -> int | None:
        """Radius of a call in cells; `None` if the normalisation takes statistics over space."""
        if self.normalisation == "group":
            return None
        return sum(self.dilation(k) for k in range(self.num_cell_steps))


class StageWork(NamedTuple):
    """What a stage computes: its share of the products of a call, and how far around wanted pixels.

    Its cell steps reach fewer pixels one after another, from about `first_px` down to `last_px`.
    """

    share: float
    first_px: int
    last_px: int

    def beside(self, px: int) -> "StageWork":
        """Return the work if so many more pixels are wanted on each side."""
        return StageWork(self.share, self.first_px + px, self.last_px + px)

    def on_half(self) -> "StageWork":
        """Return the work on an image of half the size, in pixels of this one."""
        return StageWork(self.share / 4.0, 2 * self.first_px, 2 * self.last_px)


@dataclass(frozen=True)
class FourierConfig:
    """The Fourier stage: its low frequencies and its cell rule.

    Attributes:
        window: frequencies per axis; in the half plane, on each side of zero.
        spectrum: published `quadrant` of non-negative frequencies, or Hermitian `half_plane`.
        scaling: published `forward` (1/(h*w)), or `ortho`, divided by the expected deviation of images and
            noise at this size and frequency.
        trained_px: side of the training images, usually `data.crop`; on larger images `ortho` keeps the
            scale of the image, not of the noise.
        cell: cell rule; the state has real and imaginary parts, so twice the channels.
    """

    window: int = number(16, within=(1, 512))
    spectrum: Literal["quadrant", "half_plane"] = "half_plane"
    scaling: Literal["forward", "ortho"] = "ortho"
    trained_px: int = number(64, within=(1, 16_384))
    cell: CellConfig = field(default_factory=CellConfig)

    def __post_init__(self) -> None:
        require_within(self, "model.fourier.")


@dataclass(frozen=True)
class CoarseConfig:
    """The coarse stage: its larger cells give the cells of the image stage a part of their first state.

    Attributes:
        patch: side of the square of pixels of a cell, a multiple of the patch of the image stage.
        channels: channels of the state: first the noisy image, then the numbers for the image stage.
        handed: how many numbers each cell of the image stage receives.
        cell: cell rule.
    """

    patch: int = number(4, within=(2, LARGEST_PATCH_PX))
    channels: int = number(96, within=(1, MOST_CHANNELS))
    handed: int = number(10, within=(1, MOST_CHANNELS))
    cell: CellConfig = field(default_factory=CellConfig)

    def __post_init__(self) -> None:
        require_within(self, "model.coarse.")


@dataclass(frozen=True)
class NCAConfig:
    """A network of cells: family, state, stages.

    Attributes:
        family: `diff_nca` (image stage only), or `fourier_diff_nca` (Fourier stage, then image stage).
        image_channels: channels of the images: 1 for gray, 3 for colour.
        patch: side of the square of pixels of a cell of the image stage.
        channels: channels of the state: first the noisy image, then the prediction.
        cell: cell rule of the image stage.
        fourier: Fourier stage, for `fourier_diff_nca` only.
        coarse: stage of larger cells before the image stage, for `diff_nca` only; `None` for no such stage.
        made_channels: planes that the network makes with the image, such as those of a map.
        given_channels: number of given planes; each cell sees its own means, and no cell step changes them.
    """

    family: Literal["diff_nca", "fourier_diff_nca"] = "diff_nca"
    image_channels: int = 3
    patch: int = number(1, within=(1, LARGEST_PATCH_PX))
    channels: int = number(64, within=(1, MOST_CHANNELS))
    cell: CellConfig = field(default_factory=CellConfig)
    fourier: FourierConfig | None = None
    coarse: CoarseConfig | None = None
    made_channels: int = number(0, within=(0, MOST_CHANNELS))
    given_channels: int = number(0, within=(0, MOST_CHANNELS))

    def __post_init__(self) -> None:
        require(self.image_channels in (1, 3), "model.image_channels", self.image_channels, "1 or 3")
        require_within(self, "model.")
        least = 2 * self.cell_image_channels
        allowed = f">= {least} (the noisy image and the prediction, 2 * drawn_channels * patch**2)"
        require(self.channels >= least, "model.channels", self.channels, allowed)
        if (self.fourier is None) == (self.family == "fourier_diff_nca"):
            raise ValueError(f"model.family={self.family}: exactly fourier_diff_nca has a `fourier` stage")
        if self.coarse is not None:
            self._require_fitting(self.coarse)

    def _require_fitting(self, coarse: CoarseConfig) -> None:
        name = "model.coarse"
        require(self.fourier is None, name, coarse, "left out where there is a `fourier` stage")
        allowed = f"a multiple of patch={self.patch}, and larger"
        fits = coarse.patch > self.patch and coarse.patch % self.patch == 0
        require(fits, f"{name}.patch", coarse.patch, allowed)
        least = self.coarse_image_channels + coarse.handed * (coarse.patch // self.patch) ** 2
        allowed = f">= {least}, the noisy image and what is handed down"
        require(coarse.channels >= least, f"{name}.channels", coarse.channels, allowed)
        least = 2 * self.cell_image_channels + coarse.handed
        allowed = f">= {least}, the noisy image, the prediction and what is handed down"
        require(self.channels >= least, "model.channels", self.channels, allowed)

    @property
    def drawn_channels(self) -> int:
        """Channels of what the network draws: the image, then the planes that it makes with the image."""
        return self.image_channels + self.made_channels

    @property
    def cell_image_channels(self) -> int:
        """Numbers of the image in a cell of the image stage."""
        return self.drawn_channels * self.patch**2

    @property
    def coarse_image_channels(self) -> int:
        """Numbers of the image in a cell of the coarse stage; 0 without a coarse stage."""
        return 0 if self.coarse is None else self.drawn_channels * self.coarse.patch**2

    def seen_channels(self, patch: int = 1) -> int:
        """Return how many numbers a cell of side `patch` sees: its pixels, and a mean of each given plane."""
        return self.drawn_channels * patch**2 + self.given_channels

    @property
    def spectrum_channels(self) -> int:
        """Channels of the state of the Fourier stage without given planes: image, and those for the cells."""
        return self.drawn_channels + self.channels - self.cell_image_channels

    @property
    def largest_cell_px(self) -> int:
        """Side of the square of pixels of the largest cells that see the image."""
        return self.patch if self.coarse is None else self.coarse.patch

    @property
    def channels_per_px(self) -> float:
        """Numbers of the states of the coarse and image stages, per pixel of the image."""
        coarse = self.coarse
        return self.channels / self.patch**2 + (0.0 if coarse is None else coarse.channels / coarse.patch**2)

    @property
    def stages(self) -> tuple[CellConfig, ...]:
        """Cell rules of all stages, in order of use."""
        first = self.fourier or self.coarse
        return (self.cell,) if first is None else (first.cell, self.cell)

    @property
    def radius(self) -> int | None:
        """Radius in pixels; `None` for all of the image. The context covers what a Fourier stage sees."""
        cells = self.cell.radius
        if cells is None:
            return None
        if self.coarse is None:
            return self.patch * (cells + 1) - 1
        squares = self.coarse.cell.radius
        return None if squares is None else self.coarse.patch * (squares + 1) + self.patch * cells - 1

    @property
    def stage_works(self) -> tuple[StageWork, ...]:
        """What the stages on squares of pixels compute; none for a network that sees all of the image."""
        cells, radius, planes = self.cell.radius, self.radius, self.given_channels
        if cells is None or radius is None:
            return ()
        own = self.cell.products(self.channels + planes, planes) / self.patch**2
        near = self.patch * (cells + 1) - 1
        works = [(own, near, self.patch - 1)]
        if self.coarse is not None:
            far = self.coarse.cell.products(self.coarse.channels + planes, planes) / self.coarse.patch**2
            works.append((far, radius, near + self.coarse.patch - self.patch))
        total = sum(products for products, _, _ in works)
        return tuple(StageWork(products / total, *reach) for products, *reach in works)


@dataclass(frozen=True)
class UNetConfig:
    """A convolutional UNet (`UNet2DModel` of the library diffusers), for comparison.

    Attributes:
        family: `unet`.
        image_channels: channels of the images: 1 for gray, 3 for colour.
        channels: channels of each level, the finest first; each level halves the side.
        layers: residual blocks of a level on the way down; the way up has one more block.
        attention: whether the coarsest level has self-attention.
        groups: groups of each group normalisation; they divide all channels.
    """

    family: Literal["unet"] = "unet"
    image_channels: int = 3
    channels: tuple[int, ...] = (32, 64, 128)
    layers: int = number(2, within=(1, MOST_LAYERS))
    attention: bool = True
    groups: int = number(32, within=(1, MOST_UNET_CHANNELS))

    def __post_init__(self) -> None:
        require(self.image_channels in (1, 3), "model.image_channels", self.image_channels, "1 or 3")
        require_within(self, "model.")
        fits = 1 <= len(self.channels) <= MOST_LEVELS and sum(self.channels) <= MOST_UNET_CHANNELS
        fits = fits and all(channels > 0 and channels % self.groups == 0 for channels in self.channels)
        allowed = (
            f"1 to {MOST_LEVELS} multiples of groups={self.groups}, {MOST_UNET_CHANNELS} together at most"
        )
        require(fits, "model.channels", self.channels, allowed)

    @property
    def channels_per_px(self) -> float:
        """Numbers of a layer of the finest level, per pixel of the image."""
        return float(self.channels[0])

    @property
    def divisor(self) -> int:
        """Divisor of the sides of all images, in pixels."""
        return int(2 ** (len(self.channels) - 1))


FEWEST_DAMAGED = 4
"""Smallest batch: a quarter of its images is damaged."""


@dataclass(frozen=True)
class VNCAConfig:
    """A variational autoencoder whose decoder is a cellular automaton (Palm et al. 2022), for comparison.

    Attributes:
        family: `vnca`.
        image_channels: channels of the images: 1 for gray, 3 for colour.
        size: height and width of all images in pixels, 16 or more.
        latent: length of the code of an image, and channels of a cell.
        hidden: width of the residual blocks of the cell rule.
        num_residual_blocks: residual blocks of the cell rule.
        encoder_channels: channels of the first encoder layer; each of the next four layers doubles them.
        start: height and width of the first grid of cells: `size`, halved any number of times. Cells divide
            in four until each pixel has a cell.
        num_cell_steps: cell steps on each grid.
        extra_cell_steps: largest number of additional cell steps in training, drawn at random.
        update_probability: probability that a cell *does* update in a cell step.
        damage: side in pixels of a square; 0 damages nothing. Training wipes it out of a quarter of the
            grown images, so that cells learn to grow the square again.
    """

    family: Literal["vnca"] = "vnca"
    image_channels: int = 3
    size: int = 64
    latent: int = number(256, within=(1, MOST_CHANNELS))
    hidden: int = number(128, within=(1, MOST_CHANNELS))
    num_residual_blocks: int = number(4, within=(1, MOST_DILATIONS))
    encoder_channels: int = number(32, within=(1, MOST_CHANNELS // 16))
    start: int = 2
    num_cell_steps: int = number(8, within=(1, MOST_CELL_STEPS))
    extra_cell_steps: int = number(0, within=(0, MOST_CELL_STEPS))
    update_probability: float = 1.0
    damage: int = 0

    def __post_init__(self) -> None:
        require(self.image_channels in (1, 3), "model.image_channels", self.image_channels, "1 or 3")
        require_within(self, "model.")
        require(self.size >= 16 and self.size % 16 == 0, "model.size", self.size, "a multiple of 16")
        size_of_code = self.latent * self.encoder_channels * (self.size // 16) ** 2
        allowed = f"at most {MOST_OF_A_CODE}, as its square / 256 * latent * encoder_channels"
        require(size_of_code <= MOST_OF_A_CODE, "model.size", self.size, allowed)
        require(0 <= self.damage <= self.size, "model.damage", self.damage, f"from 0 to size={self.size}")
        can_grow_again = self.damage == 0 or self.start == self.size
        require(can_grow_again, "model.damage", self.damage, f"0, or model.start=model.size={self.size}")
        is_halved = self.start >= 1 and self.start << self.num_doublings == self.size
        require(is_halved, "model.start", self.start, f"size={self.size}, halved any number of times")
        share = self.update_probability
        require(0.0 < share <= 1.0, "model.update_probability", share, "in (0, 1]")
        least = 3 * self.image_channels if self.image_channels == 3 else 2
        require(self.latent >= least, "model.latent", self.latent, f">= {least}, what says a pixel's colour")

    @property
    def channels_per_px(self) -> float:
        """Numbers of the state, per pixel of the image."""
        return float(self.latent)

    @property
    def num_doublings(self) -> int:
        """Number of divisions of the cells."""
        return max((self.size // max(self.start, 1)).bit_length() - 1, 0)


Model = NCAConfig | UNetConfig | VNCAConfig
"""A network; `family` says which kind."""
