"""Every choice of a model, its diffusion and its training, as frozen dataclasses with a JSON form.

A recipe (`diffnca.recipes`) is a function that returns a `Config`; an ablation is a `Config` with one field
changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

FORMAT_VERSION = 1
"""Version of the JSON layout, stored beside each configuration."""


def _require(is_allowed: bool, name: str, value: Any, allowed: str) -> None:
    """Raise a `ValueError` of one line unless the value is allowed."""
    if not is_allowed:
        raise ValueError(f"{name}={value}: must be {allowed}")


@dataclass(frozen=True)
class CellConfig:
    """One cell rule: what it perceives, how it updates, how often it is applied.

    Attributes:
        hidden: width of the cell's hidden layer.
        num_cell_steps: applications of the rule in one call of the network.
        update_probability: probability that a cell *does* update in a cell step (no rescaling).
        dilations: spacing in cells of the 3x3 perception, cell step after cell step, repeated cyclically.
        padding: what lies beyond the edge: the mirrored `reflect` image, or `zeros`.
        embedding: how time and position enter: `linear` in its numbers as published, or `fourier` features.
        embedding_width: hidden width of the embedding's network.
        embedding_channels: numbers that the embedding gives to each cell.
        positions: `none` (translation-invariant), `relative` to the canvas, or in `pixels` from its centre.
        perceive_embedding: concatenate the embedding to the state that the cell perceives.
        modulation: how the embedding steers the cell: `none`, multiplicative `gate`, or `scale_shift`.
        normalisation: of the hidden layer: per `cell` over its channels, or `group` over channels and space.
        weight_norm: weight-normalised convolutions, as in the npj models.
        cell_step_period: the cell step is embedded as cell_step / period; `None` means `num_cell_steps`.
    """

    hidden: int = 256
    num_cell_steps: int = 8
    update_probability: float = 1.0
    dilations: tuple[int, ...] = (1,)
    padding: Literal["reflect", "zeros"] = "reflect"
    embedding: Literal["linear", "fourier"] = "fourier"
    embedding_width: int = 64
    embedding_channels: int = 64
    positions: Literal["none", "relative", "pixels"] = "none"
    perceive_embedding: bool = False
    modulation: Literal["none", "gate", "scale_shift"] = "scale_shift"
    normalisation: Literal["cell", "group"] = "cell"
    weight_norm: bool = False
    cell_step_period: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        if self.hidden < 1 or self.num_cell_steps < 1:
            raise ValueError(f"hidden={self.hidden}, num_cell_steps={self.num_cell_steps}: both must be >= 1")
        if not 0.0 < self.update_probability <= 1.0:
            raise ValueError(f"update_probability={self.update_probability}: must lie in (0, 1]")
        if self.embedding_width < 1 or self.embedding_channels < 1:
            raise ValueError(
                f"embedding_width={self.embedding_width}, embedding_channels={self.embedding_channels}: "
                "both must be >= 1"
            )
        if not self.dilations or min(self.dilations) < 1:
            raise ValueError(f"dilations={self.dilations}: give at least one spacing, each >= 1")

    def dilation(self, cell_step: int) -> int:
        """Return the spacing of the perception in this cell step, in cells."""
        return self.dilations[cell_step % len(self.dilations)]

    @property
    def radius(self) -> int | None:
        """Cells that one call can see in each direction; `None` where statistics are taken over space."""
        if self.normalisation == "group":
            return None
        return sum(self.dilation(k) for k in range(self.num_cell_steps))


@dataclass(frozen=True)
class FourierConfig:
    """The Fourier stage: which low frequencies are worked on, and the cell rule that does it.

    Attributes:
        window: frequencies per axis.
        spectrum: the published `quadrant` of non-negative frequencies, or the Hermitian `half_plane`.
        scaling: `forward` as published (1/(h*w)), or `ortho`, divided by the deviation that images and
            noise are expected to have at this size and frequency.
        cell: the rule of this stage; its state has real and imaginary parts, twice the channels.
    """

    window: int = 16
    spectrum: Literal["quadrant", "half_plane"] = "half_plane"
    scaling: Literal["forward", "ortho"] = "ortho"
    cell: CellConfig = field(default_factory=CellConfig)

    def __post_init__(self) -> None:
        """Refuse a window without frequencies."""
        if self.window < 1:
            raise ValueError(f"window={self.window}: must be >= 1")


@dataclass(frozen=True)
class NCAConfig:
    """A network of cells: its family, its state, its stages.

    Attributes:
        family: `diff_nca` (image stage only) or `fourier_diff_nca` (Fourier stage, then image stage).
        image_channels: channels of the images, 1 for gray, 3 for colour.
        patch: side of the square of pixels that one cell of the image stage holds.
        channels: channels of the cell state; the first hold the noisy image, the next the prediction.
        cell: the rule of the image stage.
        fourier: the Fourier stage, for `fourier_diff_nca` only.
    """

    family: Literal["diff_nca", "fourier_diff_nca"] = "diff_nca"
    image_channels: int = 3
    patch: int = 1
    channels: int = 64
    cell: CellConfig = field(default_factory=CellConfig)
    fourier: FourierConfig | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions between the fields."""
        if self.patch < 1:
            raise ValueError(f"patch={self.patch}: must be >= 1, the side of the square that a cell holds")
        if self.channels < 2 * self.cell_image_channels:
            raise ValueError(
                f"channels={self.channels}: must be >= {2 * self.cell_image_channels} "
                "(the noisy image and the prediction, 2 * image_channels * patch**2)"
            )
        if (self.fourier is None) == (self.family == "fourier_diff_nca"):
            raise ValueError(f"family={self.family}: exactly fourier_diff_nca has a `fourier` stage")

    @property
    def cell_image_channels(self) -> int:
        """Numbers of the image that one cell holds."""
        return self.image_channels * self.patch**2

    @property
    def spectrum_channels(self) -> int:
        """Channels of the state of the Fourier stage: those of the image, and what is drawn for the cells."""
        return self.image_channels + self.channels - self.cell_image_channels

    @property
    def channels_per_px(self) -> float:
        """Numbers of the state for each pixel of the image."""
        return self.channels / self.patch**2

    @property
    def radius(self) -> int | None:
        """Pixels that one output pixel can see in each direction; `None` for the whole image.

        A Fourier stage sees more, but what it sees comes in through the context.
        """
        cells = self.cell.radius
        return None if cells is None else self.patch * (cells + 1) - 1


@dataclass(frozen=True)
class UNetConfig:
    """A convolutional UNet, `UNet2DModel` of the library diffusers: the usual denoiser, to compare with.

    Attributes:
        family: `unet`.
        image_channels: channels of the images, 1 for gray, 3 for colour.
        channels: of each level, the finest first; each level halves the side of the one before.
        layers: residual blocks of a level on the way down; one more on the way up.
        attention: whether the coarsest level attends to all its places.
        groups: of each group normalisation; divides all channels.
    """

    family: Literal["unet"] = "unet"
    image_channels: int = 3
    channels: tuple[int, ...] = (32, 64, 128)
    layers: int = 2
    attention: bool = True
    groups: int = 32

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        for name in ("image_channels", "layers", "groups"):
            _require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), ">= 1")
        is_told = bool(self.channels) and all(c > 0 and c % self.groups == 0 for c in self.channels)
        _require(is_told, "model.channels", self.channels, f"one or more multiples of groups={self.groups}")

    @property
    def channels_per_px(self) -> float:
        """Numbers of a layer of the finest level for each pixel of the image."""
        return float(self.channels[0])

    @property
    def divisor(self) -> int:
        """What the sides of an image must be multiples of, in pixels."""
        return int(2 ** (len(self.channels) - 1))


@dataclass(frozen=True)
class VNCAConfig:
    """A variational autoencoder whose decoder is a cellular automaton (Palm et al. 2022), to compare with.

    Attributes:
        family: `vnca`.
        image_channels: channels of the images, 1 for gray, 3 for colour.
        size: height and width of the images in pixels, 16 or more; it makes no others.
        latent: numbers that describe an image, and channels of a cell.
        hidden: width of the cell's residual blocks.
        num_residual_blocks: of the cell rule.
        encoder_channels: of the encoder's first layer; each of the four next ones doubles them.
        start: height and width of the first grid of cells, which divide in four until there is one for each
            pixel: `size`, or `size` halved as often as you like.
        num_cell_steps: updates of the cells on each grid.
        extra_cell_steps: in training, up to so many more, drawn at random.
        update_probability: probability that a cell *does* update in a cell step.
        damage: side in pixels of the square that training wipes out of a quarter of the images, grown up, so
            that the cells learn to grow it again; 0 wipes out nothing.
    """

    family: Literal["vnca"] = "vnca"
    image_channels: int = 3
    size: int = 64
    latent: int = 256
    hidden: int = 128
    num_residual_blocks: int = 4
    encoder_channels: int = 32
    start: int = 2
    num_cell_steps: int = 8
    extra_cell_steps: int = 0
    update_probability: float = 1.0
    damage: int = 0

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        _require(self.image_channels in (1, 3), "model.image_channels", self.image_channels, "1 or 3")
        for name in ("hidden", "num_residual_blocks", "encoder_channels", "num_cell_steps"):
            _require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), ">= 1")
        _require(self.size >= 16 and self.size % 16 == 0, "model.size", self.size, "a multiple of 16")
        _require(self.extra_cell_steps >= 0, "model.extra_cell_steps", self.extra_cell_steps, ">= 0")
        _require(0 <= self.damage <= self.size, "model.damage", self.damage, f"from 0 to size={self.size}")
        can_grow_again = self.damage == 0 or self.start == self.size
        _require(can_grow_again, "model.damage", self.damage, f"0, or model.start=model.size={self.size}")
        is_halved = self.start >= 1 and self.start << self.num_doublings == self.size
        _require(is_halved, "model.start", self.start, f"size={self.size}, halved any number of times")
        _require(
            0 < self.update_probability <= 1, "model.update_probability", self.update_probability, "in (0, 1]"
        )
        least = 3 * self.image_channels if self.image_channels == 3 else 2
        _require(self.latent >= least, "model.latent", self.latent, f">= {least}, what says a pixel's colour")

    @property
    def channels_per_px(self) -> float:
        """Numbers of the state for each pixel of the image."""
        return float(self.latent)

    @property
    def num_doublings(self) -> int:
        """How often the cells divide."""
        return max((self.size // max(self.start, 1)).bit_length() - 1, 0)


Model = NCAConfig | UNetConfig | VNCAConfig
"""A network of any kind; `family` tells which."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule: `linear` in beta (Ho et al. 2020) or `cosine` (Nichol and Dhariwal 2021)."""

    kind: Literal["linear", "cosine"] = "cosine"
    num_diffusion_steps: int = 300
    beta_start: float = 1e-4
    beta_end: float = 0.02
    offset: float = 0.008
    min_beta: float = 1e-4
    max_beta: float = 0.9999


@dataclass(frozen=True)
class LossConfig:
    """The training loss on the predicted quantity.

    Attributes:
        distance: `l1_l2` is the published sum of both.
        weighting: `uniform` over steps, or `min_snr` (Hang et al. 2023), in terms of the clean image.
        min_snr_gamma: the clamp of `min_snr`.
    """

    distance: Literal["l2", "l1_l2"] = "l2"
    weighting: Literal["uniform", "min_snr"] = "uniform"
    min_snr_gamma: float = 5.0


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
        batch: crops per optimiser step.
        optimizer: `adam`, or `muon` for the weight matrices of cell rules and UNets and Adam for all else.
        learning_rate: peak learning rate.
        beta1: first Adam coefficient.
        beta2: second Adam coefficient.
        decay: `cosine` to 1% over the budget after a warm-up, or the published `exponential` per batch.
        decay_per_batch: the factor of `exponential`.
        warmup_images: images over which the learning rate rises linearly (`cosine` only).
        max_gradient_norm: gradients are clipped to this norm; `None` leaves them.
        ema: `none`, or an exponential moving average of the weights.
        ema_halflife_images: images after which a weight's share in the average has halved.
        ema_warmup: let the average follow faster at the start (half-life at most a tenth of the images seen).
        images: the budget in images, unless minutes are given.
        minutes: the budget in minutes of training time.
        seed: of the initial weights, the crops, the noise.
        precision: `auto` takes bf16 where the processor is fast at it.
        compile: `auto` compiles the cell step where a compiler is there and bf16 is used.
        checkpoint_cells: recompute each cell step in the backward pass instead of storing it.
    """

    batch: int = 8
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.99
    decay: Literal["cosine", "exponential"] = "cosine"
    decay_per_batch: float = 0.9999
    warmup_images: int = 2_000
    max_gradient_norm: float | None = 1.0
    ema: Literal["none", "halflife"] = "halflife"
    ema_halflife_images: int = 5_000
    ema_warmup: bool = True
    images: int = 500_000
    minutes: float | None = None
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    checkpoint_cells: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers with which no training can be done."""
        for name in ("batch", "images", "ema_halflife_images", "learning_rate"):
            _require(getattr(self, name) > 0, f"training.{name}", getattr(self, name), "above 0")
        for name in ("minutes", "max_gradient_norm"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, f"training.{name}", value, "above 0, or none")
        _require(0 <= self.seed < 2**63, "training.seed", self.seed, "from 0 to 2**63 - 1")
        _require(self.warmup_images >= 0, "training.warmup_images", self.warmup_images, ">= 0")
        _require(
            0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "training.beta1", self.beta1, "in [0, 1), as beta2"
        )


@dataclass(frozen=True)
class DataConfig:
    """Which parts of the images are shown.

    Attributes:
        crop: side of the training crops in pixels, after the reduction.
        reduce: whole factor by which images are made smaller first (Lanczos).
        flips: mirror crops left-right at random.
        quarter_turns: turn crops by multiples of 90 degrees (and mirror up-down) at random.
        max_background: images with a larger share of near-white pixels are left out.
        validation: share of the images held out.
        split_seed: chooses which ones.
        cache_bytes: memory for decoded images.
        microns_per_px: scale at which whole slides are read.
    """

    crop: int = 64
    reduce: int = 1
    flips: bool = True
    quarter_turns: bool = True
    max_background: float = 1.0
    validation: float = 0.0
    split_seed: int = 0
    cache_bytes: int = 2 << 30
    microns_per_px: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no crop can be taken with."""
        _require(self.crop >= 1, "data.crop", self.crop, ">= 1")
        _require(self.reduce >= 1, "data.reduce", self.reduce, ">= 1")
        _require(0 <= self.validation < 1, "data.validation", self.validation, "in [0, 1)")


@dataclass(frozen=True)
class SamplingConfig:
    """What `generate` does unless told otherwise.

    Attributes:
        sampler: the method.
        steps: how many diffusion steps to take.
        visited: the diffusion steps to visit, noisiest first, `steps` of them; `None` spaces them evenly in
            log-SNR. A distilled model knows no others.
    """

    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "dpmpp2m"
    steps: int = 20
    visited: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Config:
    """Everything about one model; stored as JSON in the header of its weights file."""

    name: str = "diff_nca"
    model: Model = field(default_factory=NCAConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prediction: Literal["noise", "clean", "velocity"] = "velocity"
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        last, sampling = self.schedule.num_diffusion_steps, self.sampling
        _require(1 <= sampling.steps <= last, "sampling.steps", sampling.steps, f"1 to {last}")
        if sampling.visited is not None:
            falls = all(a > b for a, b in itertools.pairwise((last, *sampling.visited, -1)))
            is_told = falls and len(sampling.visited) == sampling.steps
            allowed = f"{sampling.steps} falling steps from {last - 1} to 0, as many as sampling.steps"
            _require(is_told, "sampling.visited", sampling.visited, allowed)
        if self.training.optimizer == "muon":
            is_normed = isinstance(self.model, NCAConfig) and self.model.cell.weight_norm
            is_plain = not is_normed and not isinstance(self.model, VNCAConfig)
            _require(is_plain, "training.optimizer", "muon", "adam for VNCA and cells with weight_norm")
        if isinstance(self.model, UNetConfig):
            divisor = self.model.divisor
            _require(self.data.crop % divisor == 0, "data.crop", self.data.crop, f"a multiple of {divisor}")
        if isinstance(self.model, VNCAConfig):
            size = self.model.size
            _require(self.data.crop == size, "data.crop", self.data.crop, f"model.size={size}; set both")


def to_json(config: Config) -> str:
    """Return `config` as JSON text with sorted keys."""
    return json.dumps(
        {"format_version": FORMAT_VERSION, **dataclasses.asdict(config)}, sort_keys=True, indent=1
    )


def from_json(text: str) -> Config:
    """Read what `to_json` wrote.

    Raises:
        ValueError: the text is of another format version, or has unknown or ill-typed fields.
    """
    values = json.loads(text)
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(
            f"configuration format {version}: this diffnca reads format {FORMAT_VERSION}; update diffnca"
        )
    config = _build(Config, values, "config")
    assert isinstance(config, Config)
    return config


def _build(kind: Any, value: Any, where: str) -> Any:
    """Make `value`, as it comes out of JSON, an instance of the annotation `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin is types.UnionType:
        return _build_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}={value!r}: must be one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}={value!r}: must be a list")
        return tuple(_build(arguments[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where}={value!r}: must be of type {kind.__name__}")
    return value


def _build_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """Build one of `kinds`: `None`, a plain type, or of several dataclasses the one with this `family`."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _build(kinds[0], value, where)
    families = {
        name: kind for kind in kinds for name in typing.get_args(typing.get_type_hints(kind)["family"])
    }
    family = value.get("family") if isinstance(value, dict) else None
    if family not in families:
        raise ValueError(f"{where}.family={family!r}: must be one of {', '.join(families)}; update diffnca")
    return _build(families[family], value, where)


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    """Build the dataclass `kind` from a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}={value!r}: must be an object")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(hints)}")
    return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
