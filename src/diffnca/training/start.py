"""How a training begins: what the images decide, and the weights with the smallest error on them."""

from dataclasses import replace

import torch

from diffnca.canvas.pixels import to_uint8
from diffnca.config.model import Config, TrainingConfig, with_fields
from diffnca.config.networks import Model, NCAConfig
from diffnca.config.recipes import diff_nca
from diffnca.data.crops import crops
from diffnca.data.images import ImageSet, images_for
from diffnca.data.labels import Labels
from diffnca.data.layouts import Layouts, count_classes, layouts_in
from diffnca.data.survey import glance, is_gray, reduction_of
from diffnca.diffusion.velocity import velocity_error
from diffnca.errors import require
from diffnca.models.file import bundled_models, load_denoiser, read_config
from diffnca.progress import Report, unseen
from diffnca.sampling.guidance import prepare
from diffnca.training.options import RunOptions
from diffnca.training.state import NETWORK_FIELDS, Run
from diffnca.training.transfer import COLOURS

YOUNG_MINUTES, YOUNG_IMAGES = 20.0, 30_000
"""Largest budgets after which a network that predicts the clean image is ahead: it learns without grain."""

NUM_CROPS, NUM_LEVELS = 8, 4
"""Few are enough to rank models, which see equal crops and equal noise."""

CROP_PX = 96
CROPS_PER_SIDE = 4
"""Crops that fit along the shorter side of an image, at least, after a reduction that the images decide."""


SHORT_MINUTES, SHORT_IMAGES = 5.0, 15_000
"""Largest budgets after which samples are so grainy that strong guidance helps them."""

SHORT_GUIDANCE, GUIDANCE, LEFT_OUT = 1.1, 1.05, 4
"""Sampling of a young model: guided by the network without its last cell steps, grain goes away."""


def conditioned(config: Config, options: RunOptions) -> Config:
    """Return a training whose network sees planes of layouts, labels, styles; without any, `config` itself.

    If the configuration names no classes, their names are the numbers in the layouts. Refuse classes without
    layouts, labels without what says them, and a network without cells.
    """
    layout = replace(config.layout, classes=_classes(config, options), labels=_labels(config, options))
    if not layout.is_used:
        return config
    if not isinstance(config.model, NCAConfig):
        kind = "layouts" if layout.classes else "labels" if layout.labels else "layout.style"
        raise ValueError(f"--{kind}: must be for a model of cells, not for {config.name}; leave them out")
    given, made = layout.num_planes(config.model.image_channels), layout.num_made
    changes = {"layout": layout, "model.given_channels": given, "model.made_channels": made}
    return with_fields(config, changes)


def _classes(config: Config, options: RunOptions) -> tuple[str, ...]:
    classes = config.layout.classes
    if options.layouts:
        return classes or tuple(str(number) for number in range(count_classes(layouts_in(options.layouts))))
    allowed = "left out without --layouts; give the folder of the label images"
    require(not classes, "layout.classes", ", ".join(config.layout.names), allowed)
    for name, value in (("coarse", config.layout.coarse), ("made", config.layout.made)):
        require(not value, f"layout.{name}", value, allowed)
    return ()


def _labels(config: Config, options: RunOptions) -> tuple[str, ...]:
    labels = config.layout.labels
    if options.labels is not None:
        return Labels.of(options.labels, options.data, labels).names
    allowed = "those of images, whose labels --labels gives: folders, or a CSV file"
    require(not labels, "layout.labels", ", ".join(labels), allowed)
    return ()


def with_styles(config: Config, styles: tuple[float, ...]) -> Config:
    """Return a training whose model knows these styles, if it follows styles."""
    return with_fields(config, {"layout.styles": styles}) if config.layout.style else config


def suited(config: Config, options: RunOptions, decides_colours: bool) -> Config:
    """Return a training with the choices that images decide: `data.reduce` if 0, and gray or colour.

    Images decide about colours for the network of the recipe only. Refuse images without content.
    """
    data, decides_colours = config.data, decides_colours and is_as_in_recipe(config)
    if data.reduce > 0 and not decides_colours:
        return config
    layouts = Layouts(options.layouts, config.layout) if options.layouts else None
    some = glance(options.data, data.microns_per_px, layouts)
    if some and all((each == each[:1, :1]).all() for each in some):
        raise ValueError(
            f"{options.data[0]}: its images show one colour each: nothing can be learnt; give others"
        )
    if decides_colours and some and all(map(is_gray, some)):
        planes = config.layout.num_planes(1) if config.layout.is_used else 0
        config = with_fields(config, {"model.image_channels": 1, "model.given_channels": planes})
    if data.reduce > 0:
        return config
    at_scale = data.microns_per_px is not None
    factor = 1 if at_scale else reduction_of(some, CROPS_PER_SIDE * data.crop)
    return with_fields(config, {"data.reduce": factor})


def images_of(options: RunOptions, config: Config, report: Report = unseen) -> ImageSet:
    """Return the images of a run, with their layouts and labels."""
    return images_for(
        config,
        options.data,
        layouts=options.layouts,
        labels=options.labels,
        strict=options.strict,
        report=report,
    )


def candidates() -> list[str]:
    """Return the bundled models that can begin a training: local cells of two stages that know all levels.

    Cells of one stage, with as many parameters, take seven times the arithmetic for an image. Models of maps
    are left out.
    """
    read = {name: read_config(path) for name, path in bundled_models().items()}
    return [
        name
        for name, each in read.items()
        if isinstance(each.model, NCAConfig)
        and each.model.coarse is not None
        and each.model.family == "diff_nca"
        and each.sampling.visited is None
        and each.model.given_channels == each.model.made_channels == 0
    ]


def errors(images: ImageSet, config: Config, report: Report = unseen) -> dict[str, float]:
    """Return the error of the velocity of each candidate on crops of the images, the smallest error first.

    Nothing is returned if the user has changed the network of the recipe: no weights fit it then.
    """
    if not is_as_in_recipe(config):
        return {}
    side = min(CROP_PX, int(images.sizes.min()))
    looked_at = crops(images, size=side, batch=NUM_CROPS, seed=0, step=0, flips=False, quarter_turns=False)
    looked_at = looked_at[:, : images.channels]
    pixels, found = torch.from_numpy(to_uint8(looked_at)).movedim(-1, 1), candidates()
    pixels = pixels.expand(-1, COLOURS, -1, -1)
    measured: dict[str, float] = {}
    for number, name in enumerate(found):
        path = bundled_models()[name]  # not a folder of this name
        report("looking for weights to begin with", float(number), float(len(found)))
        measured[name] = velocity_error(prepare(load_denoiser(path), torch.device("cpu")), pixels, NUM_LEVELS)
    return dict(sorted(measured.items(), key=lambda item: item[1]))


def is_as_in_recipe(config: Config) -> bool:
    """Return whether network, prediction and schedule are those of `diff_nca`, for any colours and legend."""
    recipe = diff_nca()
    own: Model = config.model
    if isinstance(own, NCAConfig):
        planes = 0 if config.layout.is_used else own.given_channels
        own = replace(own, image_channels=recipe.model.image_channels, given_channels=planes)
        config = replace(config, model=own)
    return all(getattr(config, name) == getattr(recipe, name) for name in NETWORK_FIELDS)


def from_random(config: Config) -> Config:
    """Return a training from random weights; with a small budget, the network predicts the clean image."""
    if not is_as_in_recipe(config):
        return config
    is_young = _is_within(config.training, YOUNG_MINUTES, YOUNG_IMAGES)
    return _led(replace(config, prediction="clean") if is_young else config)


def _is_within(training: TrainingConfig, minutes: float, images: int) -> bool:
    """Return whether the budget of a training is at most so many minutes, or so many images."""
    return training.images <= images if training.minutes is None else training.minutes <= minutes


def chosen(config: Config, measured: dict[str, float]) -> tuple[str | None, Config]:
    """Return the model with the smallest of the `measured` errors, and the training that begins with it.

    Without errors, the training begins with random weights.
    """
    start = next(iter(measured), None)
    return start, from_random(config) if start is None else begun_with(config, start)


def begun_with(config: Config, start: str) -> Config:
    """Return a training like that of `config`, of the network of a bundled model, with guided sampling."""
    found, channels = read_config(bundled_models()[start]), config.model.image_channels
    config = replace(config, **{name: getattr(found, name) for name in NETWORK_FIELDS})
    changes = {"model.image_channels": channels} if channels == 1 else {}
    if config.layout.is_used:
        changes["model.given_channels"] = config.layout.num_planes(channels)
    return _led(with_fields(config, changes))


def _led(config: Config) -> Config:
    """Return a training whose samples are guided, unless the user has chosen how to sample."""
    if config.sampling != diff_nca().sampling:
        return config
    is_short = _is_within(config.training, SHORT_MINUTES, SHORT_IMAGES)
    strength = SHORT_GUIDANCE if is_short else GUIDANCE
    return with_fields(config, {"sampling.guidance": strength, "sampling.guide_leaves_out": LEFT_OUT})


def continued(config: Config, stored: Run) -> Config:
    """Return a training like that of `config`, with the choices that a stored run made when it began."""
    old = stored.config
    if is_as_in_recipe(config) and config.layout == old.layout:  # other planes are refused later
        config = replace(config, **{name: getattr(old, name) for name in NETWORK_FIELDS})
    if config.sampling == diff_nca().sampling:
        config = replace(config, sampling=old.sampling)
    changes: dict[str, float | None] = {}
    if config.data.reduce == 0:
        changes["data.reduce"] = old.data.reduce
    if config.data.validation is None:
        changes["data.validation"] = old.data.validation
    return with_fields(config, changes)
