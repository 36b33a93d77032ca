"""Films: an image in the making, and the way from one seed to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Region
from diffnca.diffusion.denoiser import Denoiser, clean_of
from diffnca.diffusion.schedule import Level
from diffnca.engine import Engine
from diffnca.engine.machine import device_named
from diffnca.formats.film import FORMATS, check_film, write_film
from diffnca.formats.png import contact_sheet, write_png
from diffnca.jobs.making import SEAMLESS, progress_bar
from diffnca.models.file import load
from diffnca.networks.diff_nca import DiffNCA, prediction
from diffnca.networks.fourier_diff_nca import FourierDiffNCA
from diffnca.networks.patches import PatchGrid
from diffnca.sampling.denoisers import AroundDenoiser, ImageDenoiser
from diffnca.sampling.guidance import ready
from diffnca.sampling.vary import interpolate as interpolated

if TYPE_CHECKING:
    from diffnca.cli.images import Interpolate

MOST_FRAMES = 120
"""Frames of a film, about; of more cell steps, some are left out."""

MILLISECONDS = 50
"""Time of a frame."""


@dataclass(frozen=True)
class Filmed(AroundDenoiser):
    """A denoiser that is filmed while it works: the noisy image, and the estimate after each cell step.

    Attributes:
        denoiser: gives the estimates.
        path: of the film.
        calls: how often it will be called, to choose among the frames.
        cells: the same as it was trained, whose cells can be watched; `None` takes `denoiser`.
        frames: the frames so far.
    """

    denoiser: ImageDenoiser
    path: Path
    calls: int
    cells: ImageDenoiser | None = None
    frames: list[UInt8[np.ndarray, "y x c"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a file that cannot be written."""
        check_film(self.path)

    def made_ready(self, device: torch.device, engine: Engine) -> Filmed:
        """Return the same of a denoiser that is ready for `device`; the frames are shared."""
        trained: Any = self.denoiser
        cells = trained.to(device) if isinstance(trained, Denoiser) else None
        return Filmed(ready(self.denoiser, device, engine), self.path, self.calls, cells, self.frames)

    def x_0_estimate(
        self,
        x_t: Float[Tensor, "b n h w"],
        level: Level,
        region: Region,
        noise: CellNoise | None,
        context: Tensor | None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image, and film how it comes about."""
        estimate = self.denoiser.x_0_estimate(x_t, level, region, noise, context)
        watched_cells = list(watched(self.cells, x_t, level, region, noise, context))
        growing = [*watched_cells[:-1], estimate]  # the last one may be guided
        stride = -(-self.calls * len(growing) // MOST_FRAMES)
        for shown in growing[::-1][::stride][::-1]:  # the last one always
            both = to_uint8(torch.cat([x_t[:1], shown[:1]]))
            self.frames.append(contact_sheet(both, columns=2, gap_px=max(2, x_t.shape[-1] // 32)))
        return estimate

    def write(self) -> None:
        """Write the film; frames of the smaller images out of which the last one has grown are enlarged."""
        height, width = self.frames[-1].shape[:2]
        write_film([enlarged(frame, height, width) for frame in self.frames], self.path, MILLISECONDS)


def enlarged(frame: UInt8[np.ndarray, "y x c"], height: int, width: int) -> UInt8[np.ndarray, "h w c"]:
    """Return a frame at this size, its pixels shown as rectangles."""
    rows = np.arange(height) * frame.shape[0] // height
    columns = np.arange(width) * frame.shape[1] // width
    shown: np.ndarray = frame[rows[:, None], columns]
    return shown


def watched(
    denoiser: ImageDenoiser | None,
    x_t: Tensor,
    level: Level,
    region: Region,
    noise: CellNoise | None,
    context: Tensor | None,
) -> Iterator[Tensor]:
    """Yield the estimate as it stands after each cell step of the image stage; nothing if there is none."""
    if not isinstance(denoiser, Denoiser) or not isinstance(denoiser.network, DiffNCA | FourierDiffNCA):
        return
    network = denoiser.network
    with states_of(network) as states:
        final = denoiser.x_0_estimate(x_t, level, region, noise, context)
    grid = PatchGrid(region, network.config.patch)
    for state in states[1:]:
        output = grid.scatter(prediction(state, network.config.cell_image_channels))
        yield clean_of(denoiser.prediction, output.float(), x_t, level.alpha, level.sigma)
    yield final


@contextmanager
def states_of(network: DiffNCA | FourierDiffNCA) -> Iterator[list[Tensor]]:
    """Within the block, a list to which each cell step of the image stage adds the state before it."""
    states: list[Tensor] = []
    handle = network.image.register_forward_pre_hook(lambda _, arguments: states.append(arguments[0]))
    try:
        yield states
    finally:
        handle.remove()


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
