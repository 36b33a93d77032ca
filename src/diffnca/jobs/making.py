"""What all commands that make images share: names of files, what is written into them, progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnca.canvas.region import Boundary, Canvas
from diffnca.diffusion.samplers import Sampler
from diffnca.files import check_target
from diffnca.models.file import find_model, load, load_denoiser
from diffnca.sampling.guidance import guided

if TYPE_CHECKING:
    from diffnca.cli.images import Making

SEAMLESS: dict[str, tuple[Boundary, Boundary]] = {
    "none": ("reflect", "reflect"),
    "x": ("reflect", "circular"),
    "y": ("circular", "reflect"),
    "both": ("circular", "circular"),
}

TIFF_FORMATS = (".ome.tif", ".ome.tiff")
LARGE_FORMATS = (".ome.zarr", *TIFF_FORMATS)
"""Endings of files that are made in tiles, of any size."""

IN_MEMORY_PX = 2048**2
"""Largest PNG that is made at once."""


def check_options(command: Making, count: int) -> None:
    """Refuse options that exclude each other.

    Raises:
        ValueError: they do, or no image is asked for.
    """
    if count < 1:
        raise ValueError(f"--count {count}: must be >= 1")
    if command.workers < 1:
        raise ValueError(f"--workers {command.workers}: must be >= 1")
    if count != 1 and (command.tile is not None or command.dry_run or command.film is not None):
        raise ValueError("--tile, --dry-run and --film: must be without --count; make one image at a time")
    if command.film is not None and (command.tile is not None or command.dry_run):
        raise ValueError("--film: must be without --tile and --dry-run; it is made in memory")


def check_out(command: Making, out: str, count: int) -> None:
    """Refuse a file that cannot be written, or not in the way that is asked for.

    Raises:
        ValueError: its name does not end as it must, its folder does not exist, options exclude each other.
    """
    check_options(command, count)
    if not out.endswith(LARGE_FORMATS) and not out.lower().endswith(".png"):
        raise ValueError(f"--out {out}: must end in .png, .ome.zarr or .ome.tif; rename it")
    if not out.endswith(LARGE_FORMATS):
        check_target(Path(out), (".png",))
    elif count != 1:
        raise ValueError(f"--out {out}: must end in .png with --count; rename it")
    elif command.film is not None:
        raise ValueError(f"--film {command.film}: must be of a small image; let --out end in .png")
    check_compression(command, out)
    if command.film is not None and command.film.resolve() == Path(out).resolve():
        raise ValueError(f"--film {command.film}: must be another file than --out; rename it")


def check_compression(command: Making, out: str) -> None:
    """Refuse a compression of another file than TIFF.

    Raises:
        ValueError: there is one.
    """
    if command.compression is not None and not out.endswith(TIFF_FORMATS):
        raise ValueError(
            f"--compression {command.compression}: must be of a TIFF file; end --out in .ome.tif"
        )


def check_in_memory(command: Making) -> None:
    """Refuse what is for large images alone.

    Raises:
        ValueError: there are workers, or a cluster.
    """
    if command.workers > 1 or command.scheduler is not None:
        raise ValueError(
            "--workers and --scheduler: must be left out for a small image, which is made at once; or give "
            "--tile"
        )


def check_kept(given: Iterable[Path], written: Iterable[Path]) -> None:
    """Refuse to overwrite what is given.

    Raises:
        ValueError: a file that will be written is one of those that are read.
    """
    kept = {path.resolve() for path in given}
    for path in written:
        if path.resolve() in kept:
            raise ValueError(f"{path}: is given, and would be overwritten; give another --out or --film")


def is_in_tiles(command: Making, out: str, count: int, canvas: Canvas) -> bool:
    """Return whether an image is made in tiles: a large one, or one for which that is asked."""
    if out.endswith(LARGE_FORMATS) or command.tile is not None or command.dry_run:
        return True
    return canvas.whole.area > IN_MEMORY_PX and count == 1 and command.film is None


def numbered(path: Path, index: int, count: int) -> Path:
    """Return the path of image `index` of `count`: `path` itself if it is the only one."""
    digits = max(3, len(str(count - 1)))
    return path if count == 1 else path.with_name(f"{path.stem}-{index:0{digits}d}{path.suffix}")


def model_of(command: Making) -> Any:
    """Return the model of a command, guided if that is asked for.

    It lies on the CPU: workers may have other devices.

    Raises:
        ValueError: it cannot be guided, or not by this guide.
    """
    if command.guide is None and command.guidance is None:
        return load(command.model)
    guide = None if command.guide is None else load_denoiser(command.guide)
    return guided(load_denoiser(command.model), command.guidance, guide)


def of_walk(sampler: Sampler, steps: int) -> dict[str, str]:
    """Return the metadata of the way from noise to image."""
    return {"diffnca:sampler": sampler.name, "diffnca:steps": str(steps)}


def provenance(command: Making, seamless: str) -> dict[str, str]:
    """Return the metadata of the images of a command: what they are made with, as it is when it begins."""
    from diffnca import __version__

    facts = {
        "Software": f"diffnca {__version__}",
        "diffnca:model": command.model,
        "diffnca:weights": sha256(find_model(command.model).read_bytes()).hexdigest()[:16],
        "diffnca:seamless": seamless,
    }
    windows = {} if command.windows is None else {"diffnca:windows": str(command.windows)}
    if command.guide is not None:
        weights = sha256(find_model(command.guide).read_bytes()).hexdigest()[:16]
        facts |= {"diffnca:guide": f"{command.guide} {weights}"}
    if command.guidance is not None:
        facts |= {"diffnca:guidance": f"{command.guidance:g}"}
    return facts | windows | ({} if command.engine == "auto" else {"diffnca:engine": command.engine})


def of_place(canvas: Canvas, seed: int) -> dict[str, str]:
    """Return the metadata of one image among those of a command."""
    return {
        "diffnca:seed": str(seed),
        "diffnca:height": str(canvas.height),
        "diffnca:width": str(canvas.width),
    }


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Within the block, a function that shows steps done, where somebody watches."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)
