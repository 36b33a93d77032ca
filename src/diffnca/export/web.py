"""A static page that runs models in a browser: the files of the page, and a file for each model.

The page knows local models of cells that take few steps: students, which `diffnca distill` makes. A model
file is a safetensors file of 16-bit weights; its header holds what the page must know, as JSON.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from diffnca.config.model import Config
from diffnca.config.networks import CellConfig, CoarseConfig, NCAConfig
from diffnca.diffusion.schedule import CLEAN, NoiseSchedule
from diffnca.errors import require
from diffnca.files import replace_atomically
from diffnca.models.file import (
    MODEL_FILE,
    find_model,
    read_card,
    read_config,
    read_tensors,
    write_tensors,
)

LIST = "models.json"
"""Names of the models of a page: the file that tells a page from other folders."""

ROOM_PX = 2048 - 256
"""What the buffers of the page have around a part of the map: `RING_PX` of world.js without the part."""

BLOCK_PX = 32
"""Side of the blocks that the page computes: `BLOCK` of places.js."""


def write_page(models: Sequence[str | Path], folder: Path) -> None:
    """Write the page and these models into a new folder, or into one that holds such a page.

    Raises:
        ValueError: no model is given, the page cannot run one, two have one name, or the folder holds
            other files.
    """
    if len(models) == 0:
        raise ValueError("0 models: must be one or more for the page; give the name of a student")
    found = [find_model(name) for name in models]
    names = [path.parent.name if path.name == MODEL_FILE else path.stem for path in found]
    if len(set(names)) < len(names):
        raise ValueError(f"models {', '.join(names)}: must have different names; rename a file")
    described = [described_model(name, path) for name, path in zip(names, found, strict=True)]
    is_free = not folder.exists() or (
        folder.is_dir() and (not any(folder.iterdir()) or (folder / LIST).is_file())
    )
    require(is_free, "out", folder, "a new folder, an empty one, or that of an earlier page")
    folder.mkdir(parents=True, exist_ok=True)
    for part in (files(__package__) / "site").iterdir():
        with replace_atomically(folder / part.name) as partial:
            partial.write_bytes(part.read_bytes())
    for about, path in zip(described, found, strict=True):
        weights = {key: weight.to(torch.float16) for key, weight in read_tensors(path)[0].items()}
        write_tensors(folder / f"{about['name']}.safetensors", weights, {"page": json.dumps(about)})
    listed = [{"name": about["name"]} for about in described]
    with replace_atomically(folder / LIST) as partial:
        partial.write_text(json.dumps(listed) + "\n", encoding="utf-8")


def described_model(name: str, path: Path) -> dict[str, Any]:
    """Return what the page must know of a model; refuse a model that it cannot run."""
    config, card = read_config(path), read_card(path)
    model = _runnable(name, config)
    schedule, visited = NoiseSchedule.from_config(config.schedule), config.sampling.visited
    steps = schedule.visited(config.sampling.steps) if visited is None else visited
    levels = [schedule.level(step) for step in steps]
    told = []
    for level, following in zip(levels, [*levels[1:], CLEAN], strict=True):
        kept = following.sigma / level.sigma  # the coefficients of `DDIM.step`
        shares = {"kept": kept, "weight": following.alpha - kept * level.alpha}
        told.append(
            {"alpha": level.alpha, "sigma": level.sigma, "time": schedule.time(level.index), **shares}
        )
    classes = zip(config.layout.names, config.layout.colours, strict=True)
    return {
        "name": name,
        "title": str(card.get("description", name)),
        "licence": str(card.get("licence", "")),
        "microns_per_px": card.get("microns_per_px"),
        "channels": model.image_channels,
        "prediction": config.prediction,
        "classes": [{"name": each, "colour": list(colour)} for each, colour in classes],
        "levels": told,
        "image": _stage(model, model, first_mask=0),
        "coarse": model.coarse and _stage(model, model.coarse, first_mask=model.cell.num_cell_steps),
        "handed": model.coarse.handed if model.coarse else 0,
    }


def _stage(model: NCAConfig, stage: NCAConfig | CoarseConfig, first_mask: int) -> dict[str, Any]:
    cell = stage.cell
    share = cell.update_probability
    return {
        "patch": stage.patch,
        "planes": model.given_channels,
        "channels": stage.channels,
        "hidden": cell.hidden,
        "dilations": [cell.dilation(k) for k in range(cell.num_cell_steps)],
        "period": cell.cell_step_period or cell.num_cell_steps,
        "chance": 0 if share == 1.0 else round(share * 2**32),
        "firstMask": first_mask,
    }


def _runnable(name: str, config: Config) -> NCAConfig:
    """Return the network of a model that the page can run; refuse other models in one line."""
    model, sampling, layout = config.model, config.sampling, config.layout
    if not isinstance(model, NCAConfig) or model.fourier is not None:
        raise ValueError(f"model {name}: must be a local network of cells (diff_nca) to run in the page")
    if sampling.sampler != "ddim" or sampling.guidance != 1.0:
        took = f"{sampling.steps} steps of {sampling.sampler}, guidance {sampling.guidance:g}"
        raise ValueError(
            f"model {name}: takes {took}; the page runs ddim without guidance, in few steps; "
            "make a student of it (diffnca distill)"
        )
    if layout.made or layout.style:
        makes = "makes maps" if layout.made else "follows a style"
        raise ValueError(f"model {name}: {makes}, which the page does not know; choose another model")
    for stage in model.stages:
        _check_cell(name, stage)
    assert model.radius is not None, "cells with a norm of their own see a finite radius"
    blocks = -(-(model.radius + 2 * _side(model)) // BLOCK_PX)
    reach = 2 * (sampling.steps - 1) * blocks * BLOCK_PX
    allowed = f"at most {ROOM_PX} px for the page, both sides together; distil it to fewer steps"
    require(reach <= ROOM_PX, f"model {name}: reach of {sampling.steps} steps", reach, allowed)
    return model


def _side(model: NCAConfig) -> int:
    return model.patch if model.coarse is None else model.coarse.patch


def _check_cell(name: str, cell: CellConfig) -> None:
    known = {
        "modulation": "scale_shift",
        "normalisation": "cell",
        "embedding": "fourier",
        "positions": "none",
        "padding": "reflect",
        "perceive_embedding": False,
        "weight_norm": False,
    }
    for field, value in known.items():
        require(
            getattr(cell, field) == value,
            f"model {name}: {field}",
            getattr(cell, field),
            f"{value} for the page",
        )
    require(cell.hidden % 4 == 0, f"model {name}: hidden", cell.hidden, "a multiple of 4 for the page")
