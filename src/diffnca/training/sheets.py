"""Sheets of samples that a training shows: what the model makes, beside crops of the images."""

import logging
from pathlib import Path

from torch import Tensor

from diffnca.canvas.pixels import to_uint8
from diffnca.data.layouts import coloured
from diffnca.diffusion.denoiser import Denoiser
from diffnca.errors import Interrupted
from diffnca.files import OWN
from diffnca.formats.png import side_by_side, write_png
from diffnca.models.build import Generator
from diffnca.sampling.generate import generate
from diffnca.sampling.layouts import shown_layout
from diffnca.training.signals import Stopped

SHEET_IMAGES = 9
SHEET_STEPS = 20


def sample_sheet(real: Tensor, model: Generator, path: Path, stopped: Stopped) -> None:
    """Write a sheet: samples with equal seeds each time, and beside them the crops `real` of the images.

    The planes of layouts follow the channels of the crops; the samples have these layouts, in the middle, and
    each label in turn. The seeds decide their styles. Raise `Interrupted` after a request to stop.
    """
    side, own = model.config.data.crop, model.config.sampling
    # a model of many steps takes fewer here, but a student knows only its own levels
    is_own = own.visited is not None or own.steps <= SHEET_STEPS
    walk = (own.sampler, own.steps) if is_own else ("dpmpp2m", SHEET_STEPS)
    sampler, steps = walk if isinstance(model, Denoiser) else (None, None)

    def watch(done: int, total: int) -> None:
        if stopped():
            raise Interrupted

    channels, legend = model.config.model.image_channels, model.config.layout
    layout = shown_layout(real[:, channels:][:, : len(legend.classes)]) if legend.classes else None
    labels = legend.labels and [legend.labels[i % len(legend.labels)] for i in range(SHEET_IMAGES)]
    images = generate(
        model,
        height=side,
        width=side,
        batch=SHEET_IMAGES,
        seed=0,
        sampler=sampler,
        steps=steps,
        progress=watch,
        layout=None if layout is None or legend.made else layout.signed,
        label=labels or None,
    )
    shown = layout if not legend.made else shown_layout((images[:, channels:] + 1.0) / 2.0)
    maps = [] if shown is None else [coloured(shown.numbers.numpy(), legend)]
    pictures = (to_uint8(images[:, :channels]), *maps, to_uint8(real[:, :channels]))
    write_png(path, side_by_side(*pictures), {f"{OWN}seeds": f"0 to {SHEET_IMAGES - 1}"})
    logging.getLogger(__name__).info("%s: samples on the left, your images on the right", path)
