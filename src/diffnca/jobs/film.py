"""Films: an image in the making, and the way from one seed to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffnca.canvas.pixels import to_uint8
from diffnca.engine.machine import device_named
from diffnca.formats.film import FORMATS, check_film, write_film
from diffnca.formats.png import write_png
from diffnca.jobs.making import SEAMLESS, progress_bar
from diffnca.models.file import load
from diffnca.sampling.filmed import Filmed
from diffnca.sampling.vary import interpolate as interpolated

if TYPE_CHECKING:
    from diffnca.cli.images import Interpolate

MILLISECONDS = 50
"""Time of a frame."""


def write_filmed(filmed: Filmed, path: Path) -> None:
    """Write the film of a denoiser."""
    write_film(list(filmed.frames()), path, MILLISECONDS)


def interpolate(command: Interpolate) -> int:
    """Make the images between two seeds; return the exit code."""
    is_film = bool(command.out.suffix) and not command.out.is_dir()
    check_film(command.out) if is_film else check_frames(command.out, command.frames)
    if command.frames < 2 or command.batch < 1 or command.milliseconds < 1:
        raise ValueError(
            f"--frames {command.frames} --batch {command.batch} --milliseconds {command.milliseconds}: must "
            "be at least 2, 1 and 1"
        )
    model: Any = load(command.model)
    crop = model.config.data.crop
    height = crop if command.height is None else command.height
    width = crop if command.width is None else command.width
    shares = [index / (command.frames - 1) for index in range(command.frames)]
    frames: list[np.ndarray] = []
    with progress_bar(f"{command.frames} frames") as progress:
        for first in range(0, command.frames, command.batch):
            images = interpolated(
                model,
                command.seeds,
                shares[first : first + command.batch],
                height=height,
                width=width,
                boundary=SEAMLESS[command.seamless],
                sampler=command.sampler,
                steps=command.steps,
                device=device_named(command.device),
            )
            frames += list(to_uint8(images))
            if progress is not None:
                progress(len(frames), command.frames)
    if is_film:
        write_film(frames, command.out, command.milliseconds)
    else:
        command.out.mkdir(exist_ok=True)
        facts = {"diffnca:model": command.model, "diffnca:seeds": f"{command.seeds[0]} {command.seeds[1]}"}
        for index, frame in enumerate(frames):
            write_png(command.out / frame_name(index), frame, facts)
    print(command.out)
    return 0


def frame_name(index: int) -> str:
    """Return the name of a frame in its folder."""
    return f"{index:04d}.png"


def check_frames(folder: Path, count: int) -> None:
    """Refuse a folder to which no frames can be written.

    Raises:
        ValueError: it is a file, does not lie in a folder, or holds what is none of these frames.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; end its name in {', '.join(FORMATS)}, or name a folder")
    if not folder.resolve().parent.is_dir():
        raise ValueError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    others = sorted(there - {frame_name(index) for index in range(count)})
    if others:
        raise ValueError(f"{folder}: holds {others[0]}, which is none of {count} frames; name a new folder")
