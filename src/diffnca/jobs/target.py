"""The file of an image: whether it can be written, whether it is there, whether it is the one asked for."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffnca.data.given import images_in
from diffnca.data.refusals import LARGEST_IMAGE_PX
from diffnca.files import begun_in, check_not_given, check_own, check_place, check_target, is_partial
from diffnca.formats.png import read_png_text, write_png
from diffnca.jobs.options import Place
from diffnca.jobs.request import Request, difference, text_of
from diffnca.progress import Number, Report, amount

TIFF_FORMATS = (".ome.tif", ".ome.tiff")
LARGE_FORMATS = (".ome.zarr", *TIFF_FORMATS)
"""Endings of files that are made in tiles, of any size."""

ENDING = r"(\.ome\.zarr|\.ome\.tiff?|\.png)$"

IN_MEMORY_PX = 2048**2
"""Largest PNG that is made at once."""


class Target:
    """The file that is asked for: `work` holds all else until it is finished, and `image` the pixels.

    `map` holds the map of a large image that another model has laid out.
    """

    def __init__(self, out: str) -> None:
        """Take a path; an OME-Zarr image may also have an address of fsspec."""
        self.out, self.work, self.is_remote = out, f"{out}.work", "://" in out
        self.is_zarr, self.is_png = out.endswith(".ome.zarr"), out.lower().endswith(".png")
        self.image = out if self.is_zarr else f"{self.work}/image.ome.zarr"
        self.map = f"{re.sub(ENDING, '', out)}.map.ome.zarr"

    def check(self, num_pixels: int) -> None:
        """Refuse a file that nobody could write."""
        if not self.out.endswith(LARGE_FORMATS) and not self.is_png:
            raise ValueError(f"out={self.out}: must end in .png, .ome.zarr or .ome.tif; rename it")
        if self.out.startswith("memory://"):
            raise ValueError(f"{self.out}: would be lost when the command ends; give a folder or an address")
        if self.is_remote and not self.is_zarr:
            raise ValueError(f"{self.out}: must end in .ome.zarr, only such images can be made at an address")
        if self.is_png and num_pixels > LARGEST_IMAGE_PX:
            raise ValueError(
                f"{self.out}: {num_pixels:,} pixels are too many for a PNG file; "
                "end its name in .ome.zarr or .ome.tif"
            )
        if self.out.endswith(TIFF_FORMATS):
            import diffnca.formats.ome_tiff  # noqa: F401  a missing package is found before the work

    def check_place(self) -> None:
        """Refuse a file that cannot be written here."""
        if self.is_remote:
            return
        if not self.is_zarr:
            check_target(Path(self.out))
        elif Path(self.out).is_file():
            raise ValueError(f"{self.out}: is a file; give another name, or delete it")
        else:
            check_place(Path(self.out))

    def holds(self, request: Request) -> bool:
        """Return whether the small file is there, complete, and of this image."""
        path = Path(self.out)
        with suppress(ValueError):  # it is no image, or damaged
            return path.is_file() and difference(read_png_text(path), request) is None
        return False

    def is_finished(self, request: Request) -> bool:
        """Return whether the large file is there; refuse another image, and an image with missing files."""
        from diffnca.formats.ome_zarr import OmeZarrWriter, check_finished
        from diffnca.formats.stores import facts_of
        from diffnca.tiles.states import check_work

        finished = self._text()
        if finished is not None:  # the rest may have been removed in part
            self._check_same(finished, request)
            if self.is_zarr:
                check_finished(self.out)
            return True
        check_work(self.work)
        if OmeZarrWriter(self.image).is_foreign:
            raise ValueError(f"{self.image}: holds something else; give another --out")
        for there in (facts_of(f"{self.work}/states"), OmeZarrWriter(self.image).read_text()):
            if there is not None:
                self._check_same(there, request)
        return False

    def check_room(self, needed_bytes: Number) -> None:
        """Refuse to begin what the disk cannot hold."""
        if self.is_remote:
            return
        free = shutil.disk_usage(Path(self.out).resolve().parent).free
        if needed_bytes > free:
            raise ValueError(
                f"{self.out}: needs {amount(needed_bytes)} while it is made, {amount(free)} are free; "
                "make room or choose another disk"
            )

    def finish(self, request: Request, report: Report) -> None:
        """Make the file of the pixels, and remove what was needed for that."""
        from diffnca.formats.ome_zarr import read_pixels
        from diffnca.tiles.states import remove_work

        if self.is_png:
            write_png(Path(self.out), read_pixels(self.image), text_of(request, is_large=True))
        elif not self.is_zarr:
            from diffnca.formats.ome_tiff import write_ome_tiff

            compression = request.compression or "jpeg"
            write_ome_tiff(self.image, Path(self.out), compression, lambda *done: report("file", *done))
        remove_work(self.work)

    def _text(self) -> Mapping[str, Any] | None:
        """Return what the finished file says of itself; `None` if there is none."""
        if self.is_zarr:
            from diffnca.formats.ome_zarr import OmeZarrWriter

            return OmeZarrWriter(self.out).read_text() if OmeZarrWriter(self.out).is_finished else None
        if not Path(self.out).exists():
            return None
        if self.is_png:
            return read_png_text(Path(self.out))
        from diffnca.formats.ome_tiff import read_ome_tiff_text

        return read_ome_tiff_text(Path(self.out))

    def _check_same(self, there: Mapping[str, Any], request: Request) -> None:
        other = difference(there, request)
        if other is not None:
            raise ValueError(
                f"{self.out}: holds an image {other}; give another --out, or delete it (and {self.work})"
            )


def holds_all(paths: Iterable[Path], request: Request) -> bool:
    """Return whether each of these files holds the image of a request, or its map."""
    return all(Target(str(path)).holds(request) for path in paths)


def numbered(path: Path, index: int, count: int) -> Path:
    """Return the path of image `index` of `count`: `path` itself if it is the only one."""
    return path if count == 1 else path.with_name(f"{path.stem}-{index:0{_digits(count)}d}{path.suffix}")


def places_in(place: Place, folder: Path) -> dict[Path, Place]:
    """Return where the result of each image of a folder goes: to its name in the folder `place.out`."""
    if place.save_layout is not None:
        raise ValueError("--save-layout: must be of a single --image; leave it out for a folder")
    out, images = Path(place.out), images_in(folder)
    if (out.suffix and not out.is_dir()) or out.resolve() == folder.resolve():
        raise ValueError(f"--out {out}: must be a folder, other than {folder}; name one")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; name a folder")
    check_place(out)
    if len({path.stem for path in images}) < len(images):
        raise ValueError(f"{folder}: holds images of the same name; rename one of them")
    return {path: replace(place, out=str(out / f"{path.stem}.png")) for path in images}


def check_kept(given: Iterable[Path], places: Iterable[Place], count: int) -> None:
    """Refuse to overwrite the files that are given."""
    files = [out for place in places for out in (Path(place.out), place.save_layout) if out is not None]
    written = [path for out in files for path in _there(out, count)]
    written += [place.film for place in places if place.film is not None]
    check_not_given(written, given)


def begun_files(place: Place, count: int) -> list[Path]:
    """Return the files beside `place.out` of which a killed command may have left parts."""
    files = [] if place.film is None else [place.film]
    for out in (Path(place.out), place.save_layout):
        if out is not None:
            files += [out] if count == 1 else _among(begun_in(out.parent), out, count)
    return files


def check_replaced(place: Place, count: int) -> None:
    """Refuse to replace PNG files of images and maps that this package has not made."""
    images = [Path(place.out)] if Target(place.out).is_png else []
    for out in (*images, *([] if place.save_layout is None else [place.save_layout])):
        for path in _there(out, count):
            check_own(path)


def frame_name(index: int) -> str:
    """Return the name of a frame in its folder."""
    return f"{index:04d}.png"


def check_frames(folder: Path, count: int, formats: Iterable[str]) -> None:
    """Refuse a folder to which no frames can be written."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; end its name in {', '.join(formats)}, or name a folder")
    check_place(folder)
    there = {name for name in os.listdir(folder) if not is_partial(name)} if folder.is_dir() else set()
    others = sorted(there - {frame_name(index) for index in range(count)})
    if others:
        raise ValueError(f"{folder}: holds {others[0]}, which is none of {count} frames; name a new folder")
    for name in there:
        check_own(folder / name)


def _digits(count: int) -> int:
    return max(3, len(str(count - 1)))


def _there(out: Path, count: int) -> list[Path]:
    """Return the files that are there already of those to write."""
    if count == 1 or not out.parent.is_dir():
        return [out]
    return _among(os.listdir(out.parent), out, count)


def _among(names: Iterable[str], out: Path, count: int) -> list[Path]:
    """Return the files to write whose names are among some; `count` may be too large to name them all."""
    pattern = re.compile(rf"{re.escape(out.stem)}-(\d{{{_digits(count)}}}){re.escape(out.suffix)}")
    found = ((name, pattern.fullmatch(name)) for name in names)
    return [out.with_name(name) for name, match in found if match is not None and int(match[1]) < count]
