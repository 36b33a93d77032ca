"""Which pictures there are in folders (with linked folders), zip files, pictures and slides.

Pictures that are left out are returned with the reason; hidden and other files are ignored.
"""

import re
import unicodedata
import zipfile
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, runtime_checkable

from diffnca.data.decoding import Decoded, decode
from diffnca.data.refusals import UnusableImageError, first_line, refusing, require_reasonable_bytes
from diffnca.data.tiff import SLIDE_SUFFIXES, TIFF_SUFFIXES, is_tiled_pyramid

IMAGE_SUFFIXES = tuple(".png .jpg .jpeg .jfif .tif .tiff .webp .bmp .gif .pgm .ppm .mpo".split())
UNREAD_SUFFIXES = tuple(".heic .heif .avif .jxl .jp2 .psd .dcm .czi .nd2 .exr .npy".split())
"""Pictures of kinds that are not read; users hear of them, but not of other files."""
_MARKED_BYTES = 8192
_OWN_MARKS = {".png": b"iTXtdiffnca:", ".tif": b'K="diffnca:', ".tiff": b'K="diffnca:'}
"""Text in the first bytes of PNG files and in the last bytes of OME-TIFF files that diffnca has written."""


class Remark(NamedTuple):
    """Why a picture is left out, or what a user should know of how it is read."""

    name: str
    text: str


@runtime_checkable
class Source(Hashable, Protocol):
    """An image that can be read again at any time: a file, a tile of a slide, or a part of these.

    Attributes:
        path: the file, or the zip file that holds it.
        name: path inside the folder or zip file, for messages and for the choice of held-out images.
        picture: the file or slide that the image belongs to.
        num_bytes: size of the stored image, to notice changed data.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def picture(self) -> str: ...  # noqa: D102

    @property
    def num_bytes(self) -> int: ...  # noqa: D102

    def read(self, *, channels: int, reduce: int) -> Decoded:
        """Decode the image; raises `UnusableImageError`."""


class AroundSource:
    """An image that is made of another one, `image`, and passes on all members that it does not replace."""

    image: Source

    path = property(attrgetter("image.path"))
    name = property(attrgetter("image.name"))
    picture = property(attrgetter("image.picture"))
    num_bytes = property(attrgetter("image.num_bytes"))


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
        """The unit that is held out: the file itself."""
        return self.name

    def read(self, *, channels: int, reduce: int) -> Decoded:
        """Decode the file; raises `UnusableImageError`."""
        return decode(self.content(), channels=channels, reduce=reduce)

    def content(self) -> bytes:
        """Return the stored bytes; raises `UnusableImageError`."""
        if self.member is None:
            return content_of(self.path)
        archive, info = self.member
        require_reasonable_bytes(self.num_bytes)
        with refusing("unreadable in the zip file"):
            return archive.read(info)


@dataclass
class Listing:
    """The pictures and slides that were found, and what was left out."""

    files: list[File] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)

    def add(self, file: File) -> None:
        """Add a file: a picture to the files, a picture of a kind that is not read to what is left out."""
        suffix = PurePosixPath(file.name).suffix.lower()
        if is_picture(file.name):
            self.files.append(file)
        elif suffix in UNREAD_SUFFIXES:
            self.left_out.append(Remark(file.name, f"{suffix} is not read; save it as PNG or TIFF"))


def content_of(path: Path) -> bytes:
    """Return the bytes of a file; raises `UnusableImageError`."""
    try:
        if not path.is_file():
            is_there, is_link = path.exists(), path.is_symlink()
            missing = "is a link to nothing" if is_link else "there is no such file"
            raise UnusableImageError("is no regular file" if is_there else missing)
        require_reasonable_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise UnusableImageError(f"cannot be read: {error.strerror or first_line(error)}") from None


def listed(paths: Iterable[Path]) -> Listing:
    """List the images and slides that `paths` name; a folder or zip file is listed in the order of names."""
    found = Listing()
    for path in paths:
        if path.is_dir():
            listing = _without_own(folder_listed(path))
        elif not path.exists() and not path.is_symlink():
            raise ValueError(f"{path}: no such file or folder; give a folder, a zip file, images or slides")
        elif path.suffix.lower() == ".zip":
            listing = _zip_file_listed(path)
        elif is_picture(path.name):
            listing = Listing([_file(path.name, path)])
        else:
            raise ValueError(
                f"{path}: unsupported kind of file; give a folder, a zip file, or files that end in "
                + " ".join((*IMAGE_SUFFIXES, *SLIDE_SUFFIXES))
            )
        found.files += listing.files
        found.left_out += listing.left_out
    return found


def folder_listed(folder: Path, is_recursive: bool = True) -> Listing:
    """List the pictures of a folder in the order of names, with all folders below or not.

    Linked folders come last, so that a folder that is reached twice has its own name.
    """
    found, seen, waiting = Listing(), set[tuple[int, int]](), deque([("", folder)])
    while waiting:
        prefix, path = waiting.popleft()
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
        names = {entry.name for entry in entries}
        if "state.safetensors" in names and names & {"model.safetensors", "log.jsonl"}:
            found.left_out.append(Remark(name, "is the folder of a training of diffnca, no input"))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                if not is_picture(entry.name) or entry.is_file() or entry.is_symlink():
                    found.add(_file(prefix + entry.name, entry))
                else:
                    found.left_out.append(Remark(prefix + entry.name, "is no regular file"))
            elif entry.suffix.lower() == ".zarr":
                found.left_out.append(Remark(prefix + entry.name, "OME-Zarr is no input; save it as TIFF"))
            elif is_recursive:
                wait = waiting.append if entry.is_symlink() else waiting.appendleft
                wait((f"{prefix}{entry.name}/", entry))
    found.files.sort(key=lambda file: file.name)
    return found


def _without_own(listing: Listing) -> Listing:
    """Leave out what diffnca has written beside other pictures; keep a folder of generated pictures alone."""
    text = (
        "was made by diffnca, so it is no input beside others; give generated images in a folder of their own"
    )
    own = [Remark(file.name, text) for file in listing.files if _is_made_here(file.path)]
    names = {remark.name for remark in own}
    files = [file for file in listing.files if file.name not in names]
    return Listing(files, listing.left_out + own) if files else listing


def stem_of(name: str) -> str:
    """Return the name of a file without folders and ending; names are equal in any normal form of Unicode."""
    return unicodedata.normalize("NFC", PurePosixPath(name).stem)


def summary(remarks: Sequence[Remark]) -> list[str]:
    """Return remarks as lines: remarks that differ in numbers alone are one line, the first of them."""
    kinds: dict[str, list[Remark]] = {}
    for remark in remarks:
        kinds.setdefault(re.sub(r"\d[\d.,]*", "0", remark.text), []).append(remark)
    return [f"{alike[0].name}: {alike[0].text}{_likewise(len(alike) - 1)}" for alike in kinds.values()]


def _likewise(others: int) -> str:
    return f"; {others:,} other{'s' * (others > 1)} likewise" if others else ""


def is_slide(file: File, microns_per_px: float | None) -> bool:
    """Tell whether `file` is read as a slide: by its suffix, or a tiled TIFF pyramid if a scale is given."""
    suffix = PurePosixPath(file.name).suffix.lower()
    may_be_pyramid = microns_per_px is not None and suffix in TIFF_SUFFIXES and file.member is None
    return suffix in SLIDE_SUFFIXES or (may_be_pyramid and is_tiled_pyramid(file.path))


def is_picture(name: str) -> bool:
    """Tell whether `name` ends like an image or slide and nothing in it is hidden (as `._x.jpg` of macOS)."""
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES + SLIDE_SUFFIXES and not is_hidden


def _file(name: str, path: Path) -> File:
    try:
        return File(name, path, path.stat().st_size)
    except OSError:  # a link to nothing is refused when it is read
        return File(name, path, 0)


def _is_made_here(path: Path) -> bool:
    mark = _OWN_MARKS.get(path.suffix.lower())
    try:
        if mark is None or not path.is_file():
            return False
        with path.open("rb") as file:
            if path.suffix.lower() != ".png":
                file.seek(max(path.stat().st_size - _MARKED_BYTES, 0))
            return mark in file.read(_MARKED_BYTES)
    except OSError:
        return False


def _zip_file_listed(path: Path) -> Listing:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a readable zip file ({error}); pack or download it again") from None
    found = Listing()
    for info in archive.infolist():
        parts = info.filename.replace("\\", "/").split("/")
        name = "/".join(part for part in parts if part not in ("", ".", ".."))  # inside the zip file
        if not info.is_dir():
            found.add(File(name, path, info.file_size, (archive, info)))
    found.files.sort(key=lambda file: file.name)
    return found
