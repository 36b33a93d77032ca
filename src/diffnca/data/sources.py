"""Which pictures there are.

A path names a folder (searched with all folders below, also linked ones), a zip file, a picture or a slide.
What looks like a picture and is not taken is returned with the reason; hidden and other files are ignored.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from diffnca.data.decoding import Decoded, decode
from diffnca.data.refusals import UnusableImageError, first_line, require_reasonable_bytes
from diffnca.data.tiff import SLIDE_SUFFIXES, TIFF_SUFFIXES, is_tiled_pyramid

IMAGE_SUFFIXES = tuple(".png .jpg .jpeg .jfif .tif .tiff .webp .bmp .gif .pgm .ppm .mpo".split())
UNREAD_SUFFIXES = tuple(".heic .heif .avif .jxl .jp2 .psd .dcm .czi .nd2 .exr .npy".split())
"""Pictures of kinds that are not read; they are named, other files are not."""
_RUN_FILES = ("state.safetensors", "model.safetensors", "log.jsonl")
_MARKED_BYTES = 8192
_OWN_MARKS = {
    ".png": (0, b"iTXtdiffnca:"),
    ".tif": (-_MARKED_BYTES, b'K="diffnca:'),
    ".tiff": (-_MARKED_BYTES, b'K="diffnca:'),
}
"""Where to look for what in files that diffnca may have written."""


class Remark(NamedTuple):
    """Something to be said of a picture: why it is left out, or how it is read."""

    name: str
    text: str


@dataclass(frozen=True)
class File:
    """An image file that can be read again at any time.

    Attributes:
        name: path inside the folder or zip file, for messages and for the split.
        path: the file, or the zip file that holds it.
        num_bytes: size of the stored image, to notice changed data.
        member: its entry in the zip file, which stays open; `None` outside of zip files.
    """

    name: str
    path: Path
    num_bytes: int
    member: tuple[zipfile.ZipFile, zipfile.ZipInfo] | None = None

    @property
    def picture(self) -> str:
        """What is held out as a whole: the file itself."""
        return self.name

    def read(self, *, channels: int, reduce: int) -> Decoded:
        """Decode the file; raises `UnusableImageError`."""
        encoded = content_of(self.path) if self.member is None else self._unpacked(*self.member)
        return decode(encoded, channels=channels, reduce=reduce)

    def _unpacked(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
        require_reasonable_bytes(self.num_bytes)
        try:
            return archive.read(info)
        except Exception as error:  # damaged, encrypted or oddly compressed: each raises another type
            raise UnusableImageError(f"unreadable in the zip file: {first_line(error)}") from None


@dataclass
class Listing:
    """The pictures and slides that were found, and what was left out."""

    files: list[File] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)


def content_of(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UnusableImageError: it is no file, cannot be read, or is gigantic.
    """
    try:
        if not path.is_file():
            is_dangling = path.is_symlink() and not path.exists()
            raise UnusableImageError("is a link to nothing" if is_dangling else "there is no such file")
        require_reasonable_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise UnusableImageError(f"cannot be read: {error.strerror or first_line(error)}") from None


def listed(paths: Iterable[Path]) -> Listing:
    """List the images and slides that `paths` name, those of a folder or zip file in the order of names.

    Raises:
        ValueError: a path is missing, of an unsupported kind, or a zip file is damaged.
    """
    found = Listing()
    for path in paths:
        if path.is_dir():
            of_folder = folder_listed(path)
            found.files += without_own(of_folder)
            found.left_out += of_folder.left_out
        elif not path.exists() and not path.is_symlink():
            raise ValueError(f"{path}: no such file or folder; give a folder, a zip file, images or slides")
        elif path.suffix.lower() == ".zip":
            found.files += sorted(_zip_file_listed(path, found.left_out), key=lambda file: file.name)
        elif is_picture(path.name):
            found.files.append(_file(path.name, path))
        else:
            raise ValueError(
                f"{path}: unsupported kind of file; give a folder, a zip file, or files that end in "
                + " ".join((*IMAGE_SUFFIXES, *SLIDE_SUFFIXES))
            )
    return found


def folder_listed(folder: Path, is_deep: bool = True) -> Listing:
    """List the pictures of a folder in the order of names, with all folders below or not.

    Linked folders come after the others, so that a folder that is reached twice has its own name.
    """
    found, seen = Listing(), set[tuple[int, int]]()
    waiting, linked = [("", folder)], list[tuple[str, Path]]()
    while waiting or linked:
        prefix, path = waiting.pop() if waiting else linked.pop(0)
        name = prefix.rstrip("/") or str(folder)
        try:
            stat, entries = path.stat(), sorted(path.iterdir())
        except OSError as error:
            found.left_out.append(Remark(name, f"cannot be opened: {error.strerror}"))
            continue
        if (stat.st_dev, stat.st_ino) in seen:
            found.left_out.append(Remark(name, "links to a folder that is searched already"))
            continue
        seen.add((stat.st_dev, stat.st_ino))
        if _is_run({entry.name for entry in entries}):
            found.left_out.append(Remark(name, "is the folder of a training of diffnca, no input"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                _list_file(prefix + entry.name, entry, found)
            elif entry.suffix.lower() == ".zarr":
                found.left_out.append(Remark(prefix + entry.name, "OME-Zarr is no input; save it as TIFF"))
            elif is_deep:
                (linked if entry.is_symlink() else waiting).append((f"{prefix}{entry.name}/", entry))
    found.files.sort(key=lambda file: file.name)
    return found


def without_own(listing: Listing) -> list[File]:
    """Return the files of a folder without what diffnca has written beside other pictures.

    Where all pictures are generated, they are what the user means. What goes is added to what is left out.
    """
    own = {file.name for file in listing.files if _is_made_here(file.path)}
    if len(own) == len(listing.files):
        return listing.files
    text = (
        "was made by diffnca, so it is no input beside others; give generated images in a folder of their own"
    )
    listing.left_out += [Remark(name, text) for name in sorted(own)]
    return [file for file in listing.files if file.name not in own]


def summary(remarks: Sequence[Remark]) -> list[str]:
    """Return remarks as lines, those of equal text as one line with their number."""
    counts = Counter(remark.text for remark in remarks)
    first = {remark.text: remark.name for remark in reversed(remarks)}
    others = {1: "", 2: " and 1 other"}
    return [
        f"{first[text]}{others.get(count, f' and {count - 1:,} others')}: {text}"
        for text, count in counts.items()
    ]


def is_slide(file: File, microns_per_px: float | None) -> bool:
    """Tell whether `file` is read as a slide: by its suffix, or a tiled TIFF pyramid if a scale is given."""
    suffix = PurePosixPath(file.name).suffix.lower()
    if suffix in SLIDE_SUFFIXES:
        return True
    if microns_per_px is None or suffix not in TIFF_SUFFIXES or file.member is not None:
        return False
    return is_tiled_pyramid(file.path)


def is_picture(name: str) -> bool:
    """Tell whether `name` ends like an image or slide and nothing in it is hidden (as `._x.jpg` of macOS)."""
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES + SLIDE_SUFFIXES and not is_hidden


def _list_file(name: str, path: Path, found: Listing) -> None:
    if is_picture(path.name):
        if path.is_file() or path.is_symlink():
            found.files.append(_file(name, path))
        else:
            found.left_out.append(Remark(name, "is no regular file"))
    elif path.suffix.lower() in UNREAD_SUFFIXES:
        found.left_out.append(_unread(name))


def _unread(name: str) -> Remark:
    return Remark(name, f"{PurePosixPath(name).suffix.lower()} is not read; save it as PNG or TIFF")


def _file(name: str, path: Path) -> File:
    try:
        return File(name, path, path.stat().st_size)
    except OSError:  # a link to nothing: reading it will tell
        return File(name, path, 0)


def _is_run(names: set[str]) -> bool:
    """Tell whether a folder that holds these names is that of a training, finished or not."""
    state, *others = _RUN_FILES
    return state in names and any(other in names for other in others)


def _is_made_here(path: Path) -> bool:
    """Tell whether diffnca wrote a PNG file (its text comes first) or an OME-TIFF (its text comes last)."""
    place, mark = _OWN_MARKS.get(path.suffix.lower(), (0, b""))
    try:
        if not mark or not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(max(place + path.stat().st_size, 0) if place else 0)
            return mark in file.read(_MARKED_BYTES)
    except OSError:
        return False


def _zip_file_listed(path: Path, left_out: list[Remark]) -> Iterator[File]:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable zip file ({error}); pack or download it again") from None
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        name = "/".join(part for part in parts if part not in ("", ".", ".."))  # none leads out of it
        if is_picture(name) and not info.is_dir():
            yield File(name, path, info.file_size, (archive, info))
        elif PurePosixPath(name).suffix.lower() in UNREAD_SUFFIXES:
            left_out.append(_unread(name))
