"""Choices of a model, its diffusion and its training, as frozen dataclasses with a JSON form.

`diffnca.config.networks` has the choices of the network. A recipe is a function that returns a `Config`.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, TypeVar

from diffnca.config.layout import LayoutConfig
from diffnca.config.networks import FEWEST_DAMAGED, MOST_CELL_STEPS, Model, NCAConfig, UNetConfig, VNCAConfig
from diffnca.errors import number, require, require_within

MOST_IMAGES = 10**12

LARGEST_BATCH, LARGEST_RATE = 65_536, 10

LARGEST_CROP_PX = 4096
"""Memory holds the states of all cells of a crop."""

MOST_WIDTHS = 8
WIDTHS, WIDTH_LIMITS = (0.025, 0.05, 0.1, 0.2), (0.01, 0.28)
"""Relative widths of averages that give all widths between, to a twentieth; the limits of a width."""

LARGEST_CLAMP, LARGEST_LOGIT, LARGEST_GUIDANCE = 1e9, 10.0, 10

LONGEST_NAME = 100

SamplerName = Literal["ddpm", "ddim", "dpmpp2m"]
Engine = Literal["auto", "eager"]
"""`auto`: what is fast and exact on the device; `eager`: as in training."""

PYRAMID_REACH_PX = 5
"""Pixels around a pixel that a pyramid sees besides: two squares of 2 px, and the rest of its own square."""

LARGEST_SQUARE_PX = 1024
"""Largest `even_px`: a tile draws the noise of all squares that it touches."""


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule: `linear` in beta (Ho et al. 2020), or `cosine` (Nichol and Dhariwal 2021)."""

    kind: Literal["linear", "cosine"] = "cosine"
    num_diffusion_steps: int = number(300, within=(1, 100_000))
    beta_start: float = number(1e-4, within=(0, 1))
    beta_end: float = number(0.02, within=(0, 1))
    offset: float = number(0.008, within=(0, 1))
    min_beta: float = number(1e-4, within=(0, 1))
    max_beta: float = number(0.9999, within=(0, 1))

    def __post_init__(self) -> None:
        require_within(self, "schedule.")


@dataclass(frozen=True)
class LossConfig:
    """The training loss on the predicted quantity.

    Attributes:
        distance: `l2`, or `l1_l2`, the published sum of both distances.
        weighting: `uniform` over steps, `min_snr` (Hang et al. 2023), or `velocity`: the squared error of
            any prediction counts as the squared error of the velocity.
        min_snr_gamma: largest weight of `min_snr` and `velocity`, in terms of the clean image.
        timesteps: distribution of the trained times, from 0 (clean) to 1 (noise): `uniform`, or
            `logit_normal` (Esser et al. 2024, Eq. 19): the logit of the time is normal.
        logit_mean: mean for `logit_normal`; a mean below 0 trains the clean half more.
        logit_std: deviation for `logit_normal`; a smaller deviation trains both ends less.
        perceptual: weight of the distance between frozen features of the estimate and of the clean image
            (extra `features`); 0 leaves it out.
        perceptual_band: the least and the largest sigma at which `perceptual` counts.
    """

    distance: Literal["l2", "l1_l2"] = "l2"
    weighting: Literal["uniform", "min_snr", "velocity"] = "uniform"
    min_snr_gamma: float = 5.0
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    perceptual: float = number(0.0, within=(0, LARGEST_CLAMP))
    perceptual_band: tuple[float, ...] = (0.17, 0.8)

    def __post_init__(self) -> None:
        require_within(self, "loss.")
        band, allowed = self.perceptual_band, "two rising numbers from 0 to 1"
        rises = len(band) == 2 and 0.0 <= band[0] < band[1] <= 1.0
        require(rises, "loss.perceptual_band", band, allowed)
        gamma, mean, std = self.min_snr_gamma, self.logit_mean, self.logit_std
        require(
            0.0 < gamma <= LARGEST_CLAMP, "loss.min_snr_gamma", gamma, f"above 0, at most {LARGEST_CLAMP:g}"
        )
        require(abs(mean) <= LARGEST_LOGIT, "loss.logit_mean", mean, f"within {LARGEST_LOGIT:g} of 0")
        require(0.0 < std <= LARGEST_LOGIT, "loss.logit_std", std, f"above 0, at most {LARGEST_LOGIT:g}")


@dataclass(frozen=True)
class TrainingConfig:
    """The training of a model.

    Attributes:
        batch: crops per optimiser step.
        late_batch: crops per step in the last sixth of the budget, and half as many in the sixth before; a
            multiple of `batch`, whose gradients a step adds up. The learning rate grows by the root of their
            number. `None` keeps `batch`.
        optimizer: `adam`, or `muon` for the weight matrices of cell rules and UNets, with Adam for the rest.
        learning_rate: peak learning rate.
        beta1: first Adam coefficient.
        beta2: second Adam coefficient.
        decay: `cosine` to 1% over the budget after a warm-up, or the published `exponential` per batch.
        decay_per_batch: factor of `exponential`.
        warmup_images: number of images during which the learning rate rises linearly (`cosine` only).
        max_gradient_norm: clip gradients to this norm; `None` clips nothing.
        ema: `none`, or `halflife`, an exponential moving average of the weights.
        ema_halflife_images: number of images that halve the share of old weights in the average.
        ema_warmup: keep the half-life at or below a tenth of the images seen so far.
        ema_widths: widths of further averages, as shares of the images seen. The end of a training takes the
            width, among these and those between, with the smallest error on held-out images; without
            held-out images, and for `()`, it takes the average of the half-life.
        images: budget in images, if `minutes` is `None`.
        minutes: budget in minutes of training time; `None` uses `images`.
        seed: seed of the initial weights, the crops and the noise.
        precision: `auto` takes bfloat16 if the processor computes bfloat16 fast.
        compile: `auto` trains cells in native code on a CPU, where it can be had, except cells with
            statistics over space. Torch compiles all others if it can and the precision is bfloat16. `on`
            lets torch compile, `off` nobody.
        checkpoint_cells: compute each cell step again in the backward pass, to save memory; native code
            always does.
    """

    batch: int = number(8, within=(1, LARGEST_BATCH))
    late_batch: int | None = number(None, within=(1, LARGEST_BATCH))
    optimizer: Literal["adam", "muon"] = "adam"
    learning_rate: float = number(2e-3, within=(0, LARGEST_RATE))
    beta1: float = 0.9
    beta2: float = 0.99
    decay: Literal["cosine", "exponential"] = "cosine"
    decay_per_batch: float = number(0.9999, within=(0, 1))
    warmup_images: int = number(2_000, within=(0, MOST_IMAGES))
    max_gradient_norm: float | None = number(1.0, within=(0, LARGEST_CLAMP))
    ema: Literal["none", "halflife"] = "halflife"
    ema_halflife_images: int = number(5_000, within=(1, MOST_IMAGES))
    ema_warmup: bool = True
    ema_widths: tuple[float, ...] = WIDTHS
    images: int = number(500_000, within=(1, MOST_IMAGES))
    minutes: float | None = number(None, within=(0, 10**7))  # nineteen years
    seed: int = number(0, within=(0, 2**63 - 1))
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    checkpoint_cells: bool = False

    def __post_init__(self) -> None:
        require_within(self, "training.")
        for name in ("learning_rate", "decay_per_batch", "minutes", "max_gradient_norm"):
            value = getattr(self, name)
            require(value is None or value > 0, f"training.{name}", value, "above 0")
        require(
            0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "training.beta1", self.beta1, "in [0, 1), as beta2"
        )
        least, most = WIDTH_LIMITS
        are_kept = len(set(self.ema_widths)) == len(self.ema_widths) <= MOST_WIDTHS
        are_kept = are_kept and all(least <= width <= most for width in self.ema_widths)
        allowed = f"up to {MOST_WIDTHS} different widths from {least} to {most}"
        require(are_kept, "training.ema_widths", self.ema_widths, allowed)
        late, allowed = self.late_batch, f"a multiple of training.batch={self.batch}, or None"
        require(late is None or late % self.batch == 0, "training.late_batch", late, allowed)


@dataclass(frozen=True)
class DataConfig:
    """The parts of the images that training shows.

    Attributes:
        crop: side of the training crops in pixels, after `reduce`.
        reduce: make images smaller first by this whole factor (Lanczos); 0 takes the factor from the
            detail in the images.
        flips: mirror crops left-right at random.
        quarter_turns: turn crops by multiples of 90 degrees (and mirror up-down) at random.
        max_background: leave out images with a larger share of near-white pixels.
        validation: share of the images to hold out; `None` holds out a tenth, or a strip of each image
            if there are fewer than ten.
        split_seed: seed that chooses the held-out images.
        cache_bytes: memory for decoded images, in bytes.
        microns_per_px: scale of whole slides in micrometres per pixel; `None` for other images.
    """

    crop: int = number(64, within=(1, LARGEST_CROP_PX))
    reduce: int = number(1, within=(0, 1024))
    flips: bool = True
    quarter_turns: bool = True
    max_background: float = number(1.0, within=(0, 1))
    validation: float | None = 0.0
    split_seed: int = number(0, within=(0, 2**63 - 1))
    cache_bytes: int = number(2 << 30, within=(0, 2**50))
    microns_per_px: float | None = number(None, within=(1e-6, 1e6))

    def __post_init__(self) -> None:
        require_within(self, "data.")
        share = self.validation
        require(share is None or 0 <= share < 1, "data.validation", share, "in [0, 1), or None")


@dataclass(frozen=True)
class SamplingConfig:
    """The defaults of `generate`.

    Attributes:
        sampler: the sampler.
        steps: number of diffusion steps.
        visited: the `steps` diffusion steps to visit, noisiest first; `None` spaces steps evenly in log-SNR.
            A distilled model knows only the visited steps.
        guidance: strength of guidance by the model without its last cell steps; 1 means no guidance.
        guide_leaves_out: number of cell steps of each stage that the guide leaves out.
        grown: whether a model with a Fourier stage makes large images out of smaller ones: each estimate
            agrees with that on half the canvas, and a student grows an image of its training size; published
            models do not.
        even_px: side in pixels of squares. The starting noise has an equal mean in all squares, which gives a
            texture an even tone; 0 does not change the noise.
    """

    sampler: SamplerName = "dpmpp2m"
    steps: int = 20
    visited: tuple[int, ...] | None = None
    guidance: float = number(1.0, within=(1, LARGEST_GUIDANCE))
    guide_leaves_out: int = number(1, within=(0, MOST_CELL_STEPS))
    grown: bool = True
    even_px: int = number(0, within=(0, LARGEST_SQUARE_PX))


@dataclass(frozen=True)
class Config:
    """All choices of a model; its weights file stores them as JSON in the header."""

    name: str = "diff_nca"
    model: Model = field(default_factory=NCAConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    prediction: Literal["noise", "clean", "velocity"] = "velocity"
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)

    @property
    def has_pyramid(self) -> bool:
        """Whether estimates on large canvases agree with those on their halves, at levels between steps."""
        sees_whole = isinstance(self.model, NCAConfig) and self.model.fourier is not None
        return sees_whole and self.sampling.grown and self.sampling.visited is None

    @property
    def drawn_channels(self) -> int:
        """Channels of what the model draws: those of the image, then the planes of a map that it makes."""
        return self.model.image_channels + getattr(self.model, "made_channels", 0)

    def __post_init__(self) -> None:
        is_name = 0 < len(self.name) <= LONGEST_NAME and self.name.isprintable()
        allowed = f"1 to {LONGEST_NAME} characters without slashes"  # the name of a folder
        require(is_name and not set("/\\") & set(self.name), "name", self.name[:LONGEST_NAME], allowed)
        last, sampling = self.schedule.num_diffusion_steps, self.sampling
        require(1 <= sampling.steps <= last, "sampling.steps", sampling.steps, f"1 to {last}")
        if sampling.visited is not None:
            falls = all(a > b for a, b in itertools.pairwise((last, *sampling.visited, -1)))
            is_told = falls and len(sampling.visited) == sampling.steps
            allowed = f"{sampling.steps} falling steps from {last - 1} to 0, as many as sampling.steps"
            require(is_told, "sampling.visited", sampling.visited, allowed)
        require_within(sampling, "sampling.")
        stages = self.model.stages if isinstance(self.model, NCAConfig) else ()
        if sampling.guidance != 1.0:
            allowed = "1 for a model without cells; sample it with a --guide"
            require(bool(stages), "sampling.guidance", sampling.guidance, allowed)
            fewest, left_out = min(stage.num_cell_steps for stage in stages), sampling.guide_leaves_out
            allowed = f"from 1 to {fewest - 1}, less than the cell steps of each stage"
            require(1 <= left_out < fewest, "sampling.guide_leaves_out", left_out, allowed)
        is_finite = (self.prediction, self.loss.weighting) != ("noise", "velocity")
        allowed = "uniform or min_snr where noise is predicted, whose weight would have no bound"
        require(is_finite, "loss.weighting", "velocity", allowed)
        allowed = "0 for VNCA, which estimates no clean image"
        is_free = self.loss.perceptual == 0.0 or not isinstance(self.model, VNCAConfig)
        require(is_free, "loss.perceptual", self.loss.perceptual, allowed)
        if self.training.optimizer == "muon":
            is_normed = any(stage.weight_norm for stage in stages)
            is_plain = not is_normed and not isinstance(self.model, VNCAConfig)
            require(is_plain, "training.optimizer", "muon", "adam for VNCA and cells with weight_norm")
        if self.layout.is_used:
            planes = self.layout.num_planes(self.model.image_channels)
            made = self.layout.num_made
            fits = isinstance(self.model, NCAConfig)
            if isinstance(self.model, NCAConfig):
                fits = self.model.given_channels in (0, planes) and self.model.made_channels in (0, made)
            allowed = (
                f"of a model of cells with model.given_channels={planes} and model.made_channels={made}, "
                "as the classes, colours, labels and numbers of a style"
            )
            kind = "classes" if self.layout.classes else "labels" if self.layout.labels else "style"
            told = ", ".join(self.layout.names or self.layout.labels) or self.layout.style
            require(fits, f"layout.{kind}", told, allowed)
            each, kept = len(self.layout.style_numbers(self.model.image_channels)), len(self.layout.styles)
            allowed = f"{each} numbers for each image, as training measures them"
            require(not kept or kept % each == 0, "layout.styles", f"{kept} numbers", allowed)
            coarse, crop = self.layout.coarse, self.data.crop
            is_local = coarse == 0 or getattr(self.model, "fourier", None) is None
            require(is_local, "layout.coarse", coarse, "0 for a model with a `fourier` stage")
            divides = coarse == 0 or crop % coarse == 0
            require(divides, "data.crop", crop, f"a multiple of layout.coarse={coarse}")
        if isinstance(self.model, UNetConfig):
            divisor = self.model.divisor
            require(self.data.crop % divisor == 0, "data.crop", self.data.crop, f"a multiple of {divisor}")
        if isinstance(self.model, VNCAConfig):
            size = self.model.size
            require(self.data.crop == size, "data.crop", self.data.crop, f"model.size={size}; set both")
            fewest, batch = FEWEST_DAMAGED if self.model.damage else 1, self.training.batch
            require(batch >= fewest, "training.batch", batch, f"{fewest} or more, a quarter is damaged")


Choices = TypeVar("Choices")


def with_fields(choices: Choices, changes: Mapping[str, Any]) -> Choices:
    """Return a configuration with new values: `with_fields(config, {"data.crop": 32})`.

    All fields change at once, and then the dataclasses check the result.
    """
    own: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if not is_dataclass(choices) or first not in choices.__dataclass_fields__:
            raise ValueError(f"{name}: there is no such field in {type(choices).__name__}")
        if rest:
            below.setdefault(first, {})[rest] = value
        else:
            own[first] = value
    for first, values in below.items():
        own[first] = with_fields(own.get(first, getattr(choices, first)), values)
    changed: Choices = replace(choices, **own)  # type: ignore[type-var]
    return changed
