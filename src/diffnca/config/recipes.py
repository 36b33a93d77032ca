"""Recipes: functions that each return the full `Config` of a model.

`diff_nca` and `fourier_diff_nca` are our networks. Names in `_arxiv_v1` and `_npj` are the published networks
in every detail. The UNets and VNCA are for comparison.

References:
    [1] Kalkhof et al., "Frequency-Time Diffusion with Neural Cellular Automata", arXiv 2401.06291 (v1).
    [2] Kalkhof et al., "Parameter-efficient diffusion with neural cellular automata", npj Unconventional
        Computing, 2025.
    [3] Palm et al., "Variational Neural Cellular Automata", ICLR 2022.
"""

from dataclasses import replace

from diffnca.config.layout import LayoutConfig
from diffnca.config.model import (
    Config,
    DataConfig,
    LossConfig,
    SamplingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig, UNetConfig, VNCAConfig

UPRIGHT = DataConfig(crop=64, quarter_turns=False)
"""Crops of images that have an up and a down."""


def diff_nca() -> Config:
    """Return our local denoiser (202,784 parameters): cells of 4x4 pixels, then cells of 2x2 pixels.

    Cells know no positions: if the noisy image shifts by 4 pixels, the prediction shifts by 4 pixels.
    """
    larger = CellConfig(hidden=128, num_cell_steps=8, dilations=(1, 2, 4, 1), embedding_channels=32)
    smaller = CellConfig(hidden=128, num_cell_steps=6, dilations=(1, 2, 1), embedding_channels=32)
    coarse = CoarseConfig(patch=4, channels=96, handed=10, cell=larger)
    model = NCAConfig("diff_nca", patch=2, channels=48, cell=smaller, coarse=coarse)
    return Config(name="diff_nca", model=model, training=TrainingConfig(optimizer="muon"))


def diff_nca_map() -> Config:
    """Return our denoiser that makes small images with their maps (202,784 parameters).

    Cells have 2x2 pixels, then one. Maps lay out images that are eight times larger; there this network sees
    328 px far, `diff_nca` sees 163.
    """
    config = diff_nca()
    assert isinstance(config.model, NCAConfig)
    assert config.model.coarse is not None
    model = replace(config.model, patch=1, coarse=replace(config.model.coarse, patch=2))
    layout, data = LayoutConfig(made=True), DataConfig(crop=32, reduce=8)
    return replace(config, name="diff_nca_map", model=model, layout=layout, data=data)


def fourier_diff_nca() -> Config:
    """Return our global denoiser for 64x64 faces: cells on low frequencies, then cells of 4x4 pixels.

    The window has 8 frequencies on each side of zero: a grid of 16x16 cells can show no higher frequency.
    """
    image = CellConfig(hidden=384, num_cell_steps=8, dilations=(1, 2, 4, 1))
    spectrum = replace(image, hidden=256, padding="zeros", embedding_channels=32, positions="pixels")
    fourier = FourierConfig(window=8, cell=spectrum)
    model = NCAConfig("fourier_diff_nca", patch=4, channels=128, cell=image, fourier=fourier)
    training = TrainingConfig(optimizer="muon", batch=16)
    return Config("fourier_diff_nca", model, training=training, data=UPRIGHT)


def diff_nca_arxiv_v1() -> Config:
    """Return Diff-NCA of [1]: 208,792 parameters."""
    return _arxiv_v1("diff_nca_arxiv_v1", NCAConfig("diff_nca", channels=96, cell=_v1_cell(396, 48)), batch=4)


def fourier_diff_nca_arxiv_v1() -> Config:
    """Return FourierDiff-NCA of [1]: 885,960 parameters."""
    fourier = FourierConfig(16, "quadrant", "forward", cell=_fourier_cell(_v1_cell(512, 32)))
    model = NCAConfig("fourier_diff_nca", channels=96, cell=_v1_cell(512, 20), fourier=fourier)
    return _arxiv_v1("fourier_diff_nca_arxiv_v1", model, batch=16)


def diff_nca_npj() -> Config:
    """Return Diff-NCA of [2]: 336,528 parameters."""
    return _npj("diff_nca_npj", NCAConfig("diff_nca", channels=96, cell=_npj_cell(512, 10)), batch=4)


def fourier_diff_nca_npj() -> Config:
    """Return FourierDiff-NCA of [2]: 1,098,144 parameters."""
    fourier = FourierConfig(16, "quadrant", "forward", cell=_fourier_cell(_npj_cell(512, 32)))
    model = NCAConfig("fourier_diff_nca", channels=96, cell=_npj_cell(512, 10), fourier=fourier)
    return _npj("fourier_diff_nca_npj", model, batch=16)


def unet_1m() -> Config:
    """Return a UNet of 873,867 parameters, close to the number of `fourier_diff_nca_arxiv_v1`."""
    return _unet("unet_1m", UNetConfig(channels=(24, 48, 64), layers=1, groups=8))


def unet_4m() -> Config:
    """Return the smaller UNet in the comparison of [1]: 3,940,547 parameters."""
    return _unet("unet_4m", UNetConfig(channels=(32, 64, 128)))


def unet_17m() -> Config:
    """Return the larger UNet in the comparison of [1]: 17,256,195 parameters."""
    return _unet("unet_17m", UNetConfig(channels=(128, 128, 256), attention=False))


def vnca() -> Config:
    """Return the VNCA of [3] for 64x64 images: 9,010,368 parameters, 460,160 of them in the cells."""
    return _vnca("vnca", VNCAConfig())


def vnca_damage() -> Config:
    """Return the VNCA of [3] that learns to regrow: no divisions, random updates, damaged squares."""
    model = VNCAConfig(
        start=64, num_cell_steps=32, extra_cell_steps=32, update_probability=0.5, damage=32, latent=128
    )
    return _vnca("vnca_damage", model)


def _unet(name: str, model: UNetConfig) -> Config:
    training = TrainingConfig(optimizer="muon", batch=16, learning_rate=8e-3)  # the default is for cells
    return Config(name, model, training=training, data=UPRIGHT)


def _vnca(name: str, model: VNCAConfig) -> Config:
    """Return the training of [3] for `model`, with our average of the weights."""
    training = TrainingConfig(
        batch=32, learning_rate=1e-4, decay="exponential", decay_per_batch=1.0, max_gradient_norm=10.0
    )
    return Config(name, model, training=training, data=replace(UPRIGHT, crop=model.size))


def _v1_cell(hidden: int, num_cell_steps: int) -> CellConfig:
    return CellConfig(
        hidden=hidden,
        num_cell_steps=num_cell_steps,
        update_probability=0.5,
        embedding="linear",
        embedding_width=256,
        embedding_channels=4,
        positions="relative",
        perceive_embedding=True,
        modulation="none",
        normalisation="group",
    )


def _npj_cell(hidden: int, num_cell_steps: int) -> CellConfig:
    cell = _v1_cell(hidden, num_cell_steps)
    return replace(cell, update_probability=0.9, modulation="gate", normalisation="cell", weight_norm=True)


def _fourier_cell(cell: CellConfig) -> CellConfig:
    return replace(cell, update_probability=1.0, padding="zeros", cell_step_period=16)


def _arxiv_v1(name: str, model: NCAConfig, batch: int) -> Config:
    """Return the training and diffusion of [1] for `model`."""
    training = TrainingConfig(
        batch=batch,
        learning_rate=1.6e-3,
        decay="exponential",
        max_gradient_norm=None,
        ema="none",
        ema_widths=(),
    )
    schedule, loss = ScheduleConfig("linear", 300), LossConfig("l1_l2", "uniform")
    data, sampling = replace(UPRIGHT, flips=False), SamplingConfig("ddpm", 300, grown=False)
    return Config(name, model, schedule, "noise", loss, training, data, sampling)


def _npj(name: str, model: NCAConfig, batch: int) -> Config:
    """Return the training and diffusion of [2] for `model`: cosine schedule, EMA of 0.99 per batch."""
    config = _arxiv_v1(name, model, batch)
    halflife = round(EMA_HALFLIFE_BATCHES * batch)
    training = replace(config.training, ema="halflife", ema_halflife_images=halflife, ema_warmup=False)
    return replace(config, schedule=ScheduleConfig("cosine", 300), training=training)


EMA_HALFLIFE_BATCHES = 68.97
"""Half-life of the decay of 0.99 per batch in [2]: log(1/2) / log(0.99)."""

_OURS = (diff_nca, diff_nca_map, fourier_diff_nca)
_PUBLISHED = (diff_nca_arxiv_v1, fourier_diff_nca_arxiv_v1, diff_nca_npj, fourier_diff_nca_npj)
_COMPARED = (unet_1m, unet_4m, unet_17m, vnca, vnca_damage)
RECIPES = {recipe.__name__: recipe for recipe in (*_OURS, *_PUBLISHED, *_COMPARED)}
"""All recipes by name."""


def recipe_named(name: str) -> Config:
    """Return the `Config` of a recipe by name; refuse an unknown name."""
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r}: must be one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def unasked(recipe: Config) -> Config:
    """Return a recipe that lets the images decide their reduction and what is held out."""
    return replace(recipe, data=replace(recipe.data, reduce=0, validation=None))
