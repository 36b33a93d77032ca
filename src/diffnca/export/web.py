"""A static page that runs models in a browser: the files of the page, and a file for each model.

The page knows models of cells that take few steps: students, which `diffnca distill` makes. A local model
makes a map without end, a model with a Fourier stage single images. The file of a model is a compressed
safetensors file; its header holds what the page must know, as JSON.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser
from diffnca.diffusion.schedule import CLEAN
from diffnca.errors import require
from diffnca.export.packed import Weights, packed
from diffnca.export.preview import preview
from diffnca.export.steps import factors_of
from diffnca.files import replace_atomically
from diffnca.models.file import find_model, load_denoiser, models_by_name, read_card, read_config
from diffnca.networks.fourier import Window
from diffnca.sampling.task import walk_of

LIST = "models.json"
"""Names of the models of a page: the file that tells a page from other folders."""

SUFFIX = ".safetensors.gz"
"""Ending of the file of a model."""

BITS: dict[Weights, int] = {"float16": 16, "int8": 8}
"""Bits of a weight."""

ROOM_PX = 2048 - 256
"""What the buffers of the page have around a part of the map: `RING_PX` of world.js without the part."""

BLOCK_PX = 32
"""Side of the blocks that the page computes: `BLOCK` of places.js."""

LARGEST_TABLE_BYTES = 2**26
"""Most memory for what modulates the cells of a Fourier stage: each cell has its own numbers."""

LARGEST_WHOLE_PX = 512
"""Largest side of images that are made as a whole."""

PAGE_CELL: dict[str, tuple[Any, ...]] = {
    "modulation": ("scale_shift",),
    "normalisation": ("cell",),
    "embedding": ("fourier",),
    "positions": ("none",),
    "padding": ("reflect",),
    "perceive_embedding": (False,),
    "weight_norm": (False,),
}
"""What the page knows of cells."""

PAGE_CELL_OF_SPECTRUM = PAGE_CELL | {"positions": ("none", "pixels"), "padding": ("reflect", "zeros")}
"""What the page knows of the cells of a Fourier stage."""


def write_page(models: Sequence[str | Path], folder: Path, weights: Weights = "float16") -> None:
    """Write the page and these models into a new folder, or into one that holds such a page.

    With weights of 16 bits, a seed gives the pixels that it gives in Python. Those of 8 bits change pixels a
    little, and halve the files.

    Raises:
        ValueError: no model is given, the page cannot run one, two have one name, or the folder holds
            other files.
    """
    if len(models) == 0:
        raise ValueError("0 models: must be one or more for the page; give the name of a student")
    found = {name: find_model(model) for name, model in models_by_name(models).items()}
    described = [described_model(name, path) for name, path in found.items()]
    is_free = not folder.exists() or (
        folder.is_dir() and (not any(folder.iterdir()) or (folder / LIST).is_file())
    )
    require(is_free, "out", folder, "a new folder, an empty one, or that of an earlier page")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LIST).exists():
        (folder / LIST).write_text("[]\n", encoding="utf-8")  # first: the same command goes on after a stop
    for part in (files(__package__) / "site").iterdir():
        with replace_atomically(folder / part.name) as partial:
            partial.write_bytes(part.read_bytes())
    for about, tensors in described:
        header = json.dumps(about | {"bits": BITS[weights]})
        with replace_atomically(folder / f"{about['name']}{SUFFIX}") as partial:
            partial.write_bytes(packed(tensors, weights, {"page": header}))
    listed = [
        {key: about[key] for key in ("name", "side") if key in about} | {"preview": preview(path)}
        for (about, _), path in zip(described, found.values(), strict=True)
    ]
    with replace_atomically(folder / LIST) as partial:
        partial.write_text(json.dumps(listed) + "\n", encoding="utf-8")


def described_model(name: str, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what the page must know of a model, and its tensors; refuse a model that it cannot run."""
    model, card = _runnable(name, read_config(path)), read_card(path)
    denoiser = load_denoiser(path)
    config, tensors = denoiser.config, denoiser.network.state_dict()
    weights = {key: weight.to(torch.float16) for key, weight in tensors.items()}
    classes = zip(config.layout.names, config.layout.colours, strict=True)
    about = {
        "name": name,
        "title": str(card.get("description", name)),
        "licence": str(card.get("licence", "")),
        "limits": [str(limit) for limit in card.get("limits", ())],
        "microns_per_px": card.get("microns_per_px"),
        "channels": model.image_channels,
        "prediction": config.prediction,
        "classes": [{"name": each, "colour": list(colour)} for each, colour in classes],
        "levels": _levels(denoiser),
        "image": _stage(model, model, first_mask=0),
        "coarse": model.coarse and _stage(model, model.coarse, first_mask=model.cell.num_cell_steps),
        "handed": model.coarse.handed if model.coarse else 0,
    }
    if model.fourier is None:
        return about, weights
    side = model.fourier.trained_px
    window = Window(model.fourier, Canvas(side, side))
    return about | {"side": side, "spectrum": _spectrum(model, window)}, weights | _tables(
        model, window, weights
    )


def _levels(denoiser: Denoiser) -> list[dict[str, float]]:
    """Return alpha, sigma and time of each level, and the shares of image and estimate in the next image."""
    sampler, levels = walk_of(denoiser, None, None)
    numbers = []
    for level, following in zip(levels, [*levels[1:], CLEAN], strict=True):
        kept, weight, *_ = factors_of(sampler, level, following, None)
        time = denoiser.schedule.time(level.index)
        numbers.append(
            {"alpha": level.alpha, "sigma": level.sigma, "time": time, "kept": kept, "weight": weight}
        )
    return numbers


def _stage(model: NCAConfig, stage: NCAConfig | CoarseConfig, first_mask: int) -> dict[str, Any]:
    return {
        "patch": stage.patch,
        "planes": model.given_channels,
        "channels": stage.channels,
        **_cell(stage.cell, first_mask),
    }


def _spectrum(model: NCAConfig, window: Window) -> dict[str, Any]:
    cell = window.config.cell
    return {
        "patch": 1,
        "planes": 0,
        "channels": 2 * model.spectrum_channels,
        **_cell(cell, model.cell.num_cell_steps),
        "rows": len(window.rows),
        "firstRow": window.rows.start,
        "columns": len(window.columns),
        "isPlaced": cell.positions == "pixels",
        "edge": "empty" if cell.padding == "zeros" else "mirror",
    }


def _cell(cell: CellConfig, first_mask: int) -> dict[str, Any]:
    share = cell.update_probability
    return {
        "hidden": cell.hidden,
        "dilations": [cell.dilation(k) for k in range(cell.num_cell_steps)],
        "period": cell.cell_step_period or cell.num_cell_steps,
        "chance": 0 if share == 1.0 else round(share * 2**32),
        "firstMask": first_mask,
    }


def _tables(model: NCAConfig, window: Window, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the scales of a spectrum, and weights that leave the image in it as it is."""
    half, seen = model.spectrum_channels, model.drawn_channels
    changed = {}
    for part in ("weight", "bias"):
        project = weights[f"fourier.project.{part}"].clone()
        project[:seen] = project[half : half + seen] = 0.0
        changed[f"fourier.project.{part}"] = project
    scales = {"analysis": window.analysis_scale(), "synthesis": window.synthesis_scale()}
    return changed | {name: scale.flatten().float() for name, scale in scales.items()}


def _runnable(name: str, config: Config) -> NCAConfig:
    """Return the network of a model that the page can run; refuse other models in one line."""
    model, sampling, layout = config.model, config.sampling, config.layout
    if not isinstance(model, NCAConfig):
        raise ValueError(f"model {name}: must be a network of cells to run in the page")
    if sampling.sampler != "ddim" or sampling.guidance != 1.0:
        took = f"{sampling.steps} steps of {sampling.sampler}, guidance {sampling.guidance:g}"
        raise ValueError(
            f"model {name}: takes {took}; the page runs ddim without guidance, in few steps; "
            "make a student of it (diffnca distill)"
        )
    if layout.made or layout.style:
        makes = "makes maps" if layout.made else "follows a style"
        raise ValueError(f"model {name}: {makes}, which the page does not know; choose another model")
    for stage in (model, model.coarse):
        if stage is not None:
            _check_cell(name, stage.cell, PAGE_CELL)
    if model.fourier is None:
        _check_reach(name, model, sampling.steps)
    else:
        _check_spectrum(name, config, model, model.fourier)
    return model


def _check_reach(name: str, model: NCAConfig, steps: int) -> None:
    assert model.radius is not None, "cells with a norm of their own see a finite radius"
    side = model.patch if model.coarse is None else model.coarse.patch
    blocks = -(-(model.radius + 2 * side) // BLOCK_PX)
    require(
        BLOCK_PX % side == 0,
        f"model {name}: side of its cells",
        side,
        f"a divisor of {BLOCK_PX} px for the page",
    )
    reach = 2 * (steps - 1) * blocks * BLOCK_PX
    allowed = f"at most {ROOM_PX} px for the page, both sides together; distil it to fewer steps"
    require(reach <= ROOM_PX, f"model {name}: reach of {steps} steps", reach, allowed)


def _check_spectrum(name: str, config: Config, model: NCAConfig, stage: FourierConfig) -> None:
    """Refuse a Fourier stage whose images, of the size of training, the page cannot make."""
    _check_cell(name, stage.cell, PAGE_CELL_OF_SPECTRUM)
    side = stage.trained_px
    fits = side % BLOCK_PX == 0 and side % model.patch == 0 and side <= LARGEST_WHOLE_PX
    allowed = (
        f"a multiple of {BLOCK_PX} and of model.patch={model.patch} for the page, at most {LARGEST_WHOLE_PX}"
    )
    require(fits, f"model {name}: model.fourier.trained_px", side, allowed)
    table = _table_bytes(model, stage) * config.sampling.steps
    allowed = f"at most {LARGEST_TABLE_BYTES} for the page; take a smaller model.fourier.window"
    require(table <= LARGEST_TABLE_BYTES, f"model {name}: bytes of modulations", table, allowed)
    for field, value in (
        ("model.given_channels", model.given_channels),
        ("sampling.even_px", config.sampling.even_px),
    ):
        require(value == 0, f"model {name}: {field}", value, "0 for the page, beside a Fourier stage")


def _table_bytes(model: NCAConfig, stage: FourierConfig) -> int:
    """Return the memory for what modulates the cells of a Fourier stage in a call."""
    window = Window(stage, Canvas(stage.trained_px, stage.trained_px))
    numbers = 2 * (4 * model.spectrum_channels + stage.cell.hidden) * stage.cell.num_cell_steps
    return 4 * numbers * len(window.rows) * len(window.columns)


def _check_cell(name: str, cell: CellConfig, known: dict[str, tuple[Any, ...]]) -> None:
    for field, values in known.items():
        value, allowed = getattr(cell, field), " or ".join(map(str, values))
        require(value in values, f"model {name}: {field}", value, f"{allowed} for the page")
    require(cell.hidden % 4 == 0, f"model {name}: hidden", cell.hidden, "a multiple of 4 for the page")
