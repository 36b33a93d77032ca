"""Where images come from: each `Source` is one image that can be read again at any time.

A path names a folder (searched recursively; other files in it are ignored), a zip file, an image or a slide.
"""

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from PIL.TiffImagePlugin import SUBIFD, TILEWIDTH, ImageFileDirectory_v2

from diffnca.data.decoding import LARGEST_FILE_BYTES, Pixels, UnusableImageError, decode

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm")
TIFF_SUFFIXES = (".tif", ".tiff")
SLIDE_SUFFIXES = (".svs", ".ndpi", ".scn", ".qptiff")
BIG_TIFF = 43
"""The version in the header of TIFF files that may exceed 4 GiB."""


@runtime_checkable
class Source(Protocol):
    """One image, not yet read."""

    @property
    def name(self) -> str:
        """Path inside the folder or zip file, for messages and for the split."""

    @property
    def picture(self) -> str:
        """Name of the file that it is, or is a part of: what is held out as a whole."""

    @property
    def num_bytes(self) -> int:
        """Size of the stored image, to notice changed data."""

    def read(self, *, channels: int, reduce: int) -> Pixels:
        """Decode the image; raises `UnusableImageError` or `OSError`."""


@dataclass(frozen=True)
class File:
    """An image file."""

    name: str
    path: Path
    num_bytes: int

    @property
    def picture(self) -> str:
        """The file itself."""
        return self.name

    def read(self, *, channels: int, reduce: int) -> Pixels:
        """Decode the file."""
        _require_reasonable_bytes(self.num_bytes)
        return decode(self.path.read_bytes(), channels=channels, reduce=reduce)


@dataclass(frozen=True)
class ZipMember:
    """An image file inside a zip file, which stays open."""

    info: zipfile.ZipInfo
    archive: zipfile.ZipFile

    @property
    def name(self) -> str:
        """Path inside the zip file."""
        return self.info.filename

    @property
    def picture(self) -> str:
        """The file itself."""
        return self.name

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.info.file_size

    def read(self, *, channels: int, reduce: int) -> Pixels:
        """Decompress and decode the member."""
        _require_reasonable_bytes(self.num_bytes)
        try:
            encoded = self.archive.read(self.info)
        except Exception as error:  # damaged, encrypted or oddly compressed: each raises another type
            raise UnusableImageError(f"unreadable in the zip file: {error}") from None
        return decode(encoded, channels=channels, reduce=reduce)


def files_of(paths: Sequence[Path]) -> Iterator[File | ZipMember]:
    """Yield the images and slides that `paths` name, those of a folder or zip file in the order of names.

    Raises:
        ValueError: a path is missing, of an unsupported kind, or a zip file is damaged.
    """
    for path in paths:
        if path.is_dir():
            yield from _folder(path)
        elif not path.exists():
            raise ValueError(f"{path}: no such file or folder; give a folder, a zip file, images or slides")
        elif path.suffix.lower() == ".zip":
            yield from _zip_file(path)
        elif _is_image(path.name):
            yield File(path.name, path, path.stat().st_size)
        else:
            raise ValueError(
                f"{path}: unsupported kind of file; give a folder, a zip file, or files that end in "
                + " ".join((*IMAGE_SUFFIXES, *SLIDE_SUFFIXES))
            )


def is_slide(file: File | ZipMember, microns_per_px: float | None) -> bool:
    """Tell whether `file` is read as a slide: by its suffix, or a tiled TIFF pyramid if a scale is given."""
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix in SLIDE_SUFFIXES:
        return True
    if microns_per_px is None or suffix not in TIFF_SUFFIXES or isinstance(file, ZipMember):
        return False
    return _is_tiled_pyramid(file.path)


def _folder(folder: Path) -> Iterator[File]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    for name in sorted(found):
        if _is_image(name) and found[name].is_file():
            yield File(name, found[name], found[name].stat().st_size)


def _zip_file(path: Path) -> Iterator[ZipMember]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable zip file ({error}); pack or download it again") from None
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if not info.is_dir() and _is_image(info.filename):
            yield ZipMember(info, archive)


def _is_image(name: str) -> bool:
    """Tell whether `name` ends like an image or slide and nothing in it is hidden (as `._x.jpg` of macOS)."""
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES + SLIDE_SUFFIXES and not is_hidden


def _require_reasonable_bytes(num_bytes: int) -> None:
    if num_bytes > LARGEST_FILE_BYTES:
        raise UnusableImageError(f"gigantic: {num_bytes:,} bytes; at most {LARGEST_FILE_BYTES:,} are read")


def _is_tiled_pyramid(path: Path) -> bool:
    """Tell whether a TIFF file stores tiles and is large (BigTIFF) or has more than one resolution."""
    try:
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            header = file.read(8)
            is_big = header[2] == BIG_TIFF or header[3] == BIG_TIFF
            tags = ImageFileDirectory_v2(header + file.read(8) if is_big else header)
            file.seek(tags.next)
            tags.load(file)
            return TILEWIDTH in tags and (is_big or SUBIFD in tags or bool(tags.next))
    except Exception:  # a damaged file is no slide; decoding it will tell what is wrong
        return False
