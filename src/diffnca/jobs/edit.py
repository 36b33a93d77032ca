"""`diffnca inpaint`, `extend`, `upscale` and `vary`: an image or a folder of them, small or large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_model, to_uint8
from diffnca.canvas.region import Canvas
from diffnca.data.given import Given, images_in, mask_of, read_image, read_mask
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.schedule import Level
from diffnca.engine.machine import device_named
from diffnca.formats.png import read_png_text, write_png
from diffnca.jobs.film import write_filmed
from diffnca.jobs.making import (
    SEAMLESS,
    check_compression,
    check_in_memory,
    check_kept,
    check_options,
    check_out,
    is_in_tiles,
    model_of,
    numbered,
    of_place,
    of_walk,
    progress_bar,
    provenance,
)
from diffnca.sampling.denoisers import check_canvas, check_parts, walk_of
from diffnca.sampling.filmed import Filmed
from diffnca.sampling.guidance import prepare
from diffnca.sampling.inpaint import check_mask, completion, margins
from diffnca.sampling.known import KnownPixels, Picture
from diffnca.sampling.task import Task, sample_task
from diffnca.sampling.upscale import enlarged_canvas, enlargement, residual
from diffnca.sampling.vary import variation
from diffnca.sampling.windows import Blended

if TYPE_CHECKING:
    from diffnca.cli.edits import Edit, Inpaint

MakeTask = Callable[[ImageDenoiser, tuple[Level, ...]], Task]


@dataclass(frozen=True)
class Request:
    """What is asked for one image.

    Attributes:
        canvas: of the result.
        task: gives the task, for the model and the levels of its walk from pure noise.
        facts: what tells it from another request.
    """

    canvas: Canvas
    task: MakeTask
    facts: dict[str, str]


def edit(command: Edit) -> int:
    """Edit an image, or all images of a folder; return the exit code."""
    device_named(command.device)  # or it is refused; workers may have another one that `auto` means
    command = replace(command, out=command.out.rstrip("/"))
    model = model_of(command)
    if isinstance(model, Autoencoder):
        raise ValueError(f"model {command.model}: must be a denoiser; this one only makes new images")
    if command.windows is not None:
        model = Blended(model, command.windows)
    if command.image.is_dir():
        return edit_folder(command, model)
    check_out(command, command.out, command.count)
    check_kept(read_by(command), written_by(command))
    return edit_one(command, model)


def edit_folder(command: Edit, model: ImageDenoiser) -> int:
    """Edit all images of a folder; return the exit code."""
    out, paths = Path(command.out), images_in(command.image)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; name a folder")
    if (out.suffix and not out.is_dir()) or out.resolve() == command.image.resolve():
        raise ValueError(f"--out {out}: must be a folder, other than {command.image}; name one")
    if not out.resolve().parent.is_dir():
        raise ValueError(f"--out {out}: the folder {out.parent} does not exist; create it first")
    if command.film is not None or command.dry_run:
        raise ValueError("--film and --dry-run: must be of a single --image")
    if len({path.stem for path in paths}) < len(paths):
        raise ValueError(f"{command.image}: holds images of the same name; rename one of them")
    commands = [replace(command, image=path, out=str(out / f"{path.stem}.png")) for path in paths]
    check_folder(commands, model)
    out.mkdir(exist_ok=True)
    with progress_bar(f"{len(paths)} images") as progress:
        for done, each in enumerate(commands, start=1):
            code = edit_one(each, model)
            if code:
                return code
            if progress is not None:
                progress(done, len(paths))
    return 0


def check_folder(commands: Sequence[Edit], model: ImageDenoiser) -> None:
    """Refuse, before anything is written, what cannot be done with one of the images of a folder.

    Raises:
        ValueError: the options, an image or its mask is not allowed, or something given would be overwritten.
    """
    first = commands[0]
    check_options(first, first.count)
    check_compression(first, first.out)
    check_kept(
        [path for command in commands for path in read_by(command)],
        [path for command in commands for path in written_by(command)],
    )
    prepare(model, torch.device(device_named(first.device)), first.engine)
    _, levels = walk_of(model, first.sampler, first.steps)
    for command in commands:
        request = request_of(command, read_image(command.image, model.image_channels))
        check_canvas(model, request.canvas)
        task = request.task(model, levels)
        if is_in_tiles(command, command.out, command.count, request.canvas):
            from diffnca.jobs.large import crew_of, shard_of, tile_of

            crew_of(command, command.out)
            tile_of(command.tile, request.canvas, check_parts(model) + task.reach, shard_of(request.canvas))
        else:
            check_in_memory(command)


def read_by(command: Edit) -> list[Path]:
    """Return the files that a command for one image reads."""
    from diffnca.cli.edits import Inpaint

    mask = command.mask if isinstance(command, Inpaint) else None
    return [command.image] + ([] if mask is None else [mask_of(command.image, mask)])


def written_by(command: Edit) -> list[Path]:
    """Return the files that a command for one image writes."""
    images = [numbered(Path(command.out), index, command.count) for index in range(command.count)]
    return images + ([] if command.film is None else [command.film])


def edit_one(command: Edit, model: ImageDenoiser) -> int:
    """Edit one image; return the exit code."""
    given = read_image(command.image, model.image_channels)
    request = request_of(command, given)
    sampler, levels = walk_of(model, command.sampler, command.steps)
    facts = provenance(command, command.seamless) | request.facts | of_walk(sampler, len(levels))
    if is_in_tiles(command, command.out, command.count, request.canvas):
        from diffnca.jobs.large import make

        facts |= of_place(request.canvas, command.seed)
        return make(command, command.out, model, sampler, request.task(model, levels), facts, command.seed)
    check_in_memory(command)
    device = torch.device(device_named(command.device))
    task = request.task(model, levels)
    filmed = None if command.film is None else Filmed(model, len(task.levels))
    denoiser = prepare(filmed or model, device, command.engine)
    for index in range(command.count):
        seed, path = command.seed + index, numbered(Path(command.out), index, command.count)
        text = facts | of_place(request.canvas, seed)
        if filmed is None and path.is_file() and read_png_text(path) == text:
            print(f"{path} is finished already")
            continue
        with progress_bar(path.name) as progress:
            result = sample_task(task, denoiser, sampler, Noise((seed,), device), progress=progress)
        pixels = to_uint8(result)[0]
        write_png(path, pixels, text)
        print(f"{path}{told(command, given, pixels)}")
    if filmed is not None and command.film is not None:
        write_filmed(filmed, command.film)
        print(command.film)
    return 0


def request_of(command: Edit, given: Given) -> Request:
    """Return what a command asks for an image.

    Raises:
        ValueError: it cannot be done with this image.
    """
    from diffnca.cli.edits import Extend, Inpaint, Upscale

    image, boundary = given.image, SEAMLESS[command.seamless]
    height, width = given.pixels.shape[:2]
    canvas, holes = Canvas(height, width, boundary), given.holes
    try:
        if isinstance(command, Inpaint):
            holes = holes_of(command, given)
            check_mask(holes, height, width)
            known = KnownPixels(Picture(image), holes, command.method == "repaint")
            task = completion(canvas, known, command.method, command.jump, command.rounds)
        elif isinstance(command, Extend):
            sides = (command.top, command.bottom, command.left, command.right)
            canvas, known = margins(image, sides, boundary, command.method)
            known = replace(known, unknown=holes)
            task = completion(canvas, known, command.method, command.jump, command.rounds)
        elif holes is not None:
            raise ValueError("is not opaque everywhere; flatten it, or fill it with `diffnca inpaint`")
        elif isinstance(command, Upscale):
            canvas = enlarged_canvas(height, width, command.factor, boundary)
            task = enlargement(canvas, image, command.method, command.strength)
        else:
            task = variation(canvas, image, command.strength)
    except ValueError as error:
        raise ValueError(f"{given.path}: {error}") from None
    return Request(canvas, task, facts_of(command, given, holes))


def holes_of(command: Inpaint, given: Given) -> Bool[Tensor, "h w"]:
    """Return where to fill: the mask or the box, and where the image is not opaque.

    Raises:
        ValueError: nothing says where, or two things do.
    """
    if command.mask is not None and command.box is not None:
        raise ValueError("--mask and --box: give one of them")
    if command.mask is None and command.box is None:
        if given.holes is None:
            raise ValueError("is opaque everywhere; say where to fill with --mask or --box")
        return given.holes
    height, width = given.pixels.shape[:2]
    if command.box is not None:
        holes = inside_of(command.box, height, width)
    else:
        assert command.mask is not None
        holes = read_mask(mask_of(given.path, command.mask))
        check_mask(holes, height, width)
    return holes if given.holes is None else holes | given.holes


def inside_of(box: tuple[int, int, int, int], height: int, width: int) -> Bool[Tensor, "h w"]:
    """Return where a box (top, left, height, width) lies on an image.

    Raises:
        ValueError: it is empty, or does not lie on it.
    """
    top, left, rows, columns = box
    if min(top, left) < 0 or min(rows, columns) < 1 or top + rows > height or left + columns > width:
        raise ValueError(f"--box {top},{left},{rows},{columns}: must lie in the {height}x{width} px of it")
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top : top + rows, left : left + columns] = True
    return inside


def facts_of(command: Edit, given: Given, holes: Tensor | None) -> dict[str, str]:
    """Return what tells a request from another one: the image, the holes, the choices of the command."""
    from diffnca.cli.edits import Editing

    shared = {each.name for each in fields(Editing)} | {"mask", "box"}
    if getattr(command, "method", None) == "paste":
        shared |= {"jump", "rounds"}  # only RePaint goes back
    choices = {
        f"diffnca:{each.name}": str(getattr(command, each.name))
        for each in fields(command)
        if each.name not in shared
    }
    marked = {} if holes is None else {"diffnca:mask": _fingerprint(holes.numpy())}
    name = type(command).__name__.lower()
    return {"diffnca:task": name, "diffnca:image": _fingerprint(given.pixels), **marked, **choices}


def told(command: Edit, given: Given, pixels: UInt8[np.ndarray, "h w c"]) -> str:
    """Return what a user should know of a result, as text."""
    from diffnca.cli.edits import Upscale

    if not isinstance(command, Upscale):
        return ""
    levels = 255.0 * residual(to_model(pixels)[None], given.image)
    return f": reduced again, within {levels:.1f} of 255 levels of {given.path.name}"


def _fingerprint(array: np.ndarray) -> str:
    """Return what tells an array from another of the same shape."""
    return sha256(array.tobytes()).hexdigest()[:16]
