"""Test a target before the work, lock the target during the work, and replace the target at the end.

A file appears complete or not at all. Only this package gives the names of its partial files and locks. It
removes no other file.
"""

import errno
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from filelock import FileLock, Timeout

LFS_POINTER = b"version https://git-lfs"
"""First bytes of a file that Git LFS has not fetched yet."""

OWN = "diffnca:"
"""First part of the keys of the text by which images and films say how they were made."""

PARTIAL = ".diffnca-partial"
"""Ending of the names of partial files."""

PARTIAL_NAME = re.compile(rf"(\..+)\.[0-9a-f]{{8}}{re.escape(PARTIAL)}", re.DOTALL)
"""Pattern of these names: the target, hidden, and a token."""

LOCK = ".diffnca-lock"
"""Ending of the name of a lock, which lies beside its target."""

NAME_BYTES = 120
"""Longest part of a target's name in the names of its partial files; file systems allow 255 bytes."""

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and repeat the command"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder in which you may write"),
    errno.ENAMETOOLONG: "choose a shorter name",
}


def cache_folder() -> Path | None:
    """Return the folder for what can be made or fetched again; `None` for a user without a home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return cache / "diffnca" if cache.is_absolute() else None


def local(address: str) -> str:
    """Return the path of an address `file://...`; any other address or path stays as it is."""
    return address.removeprefix("file://")


@contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """Yield a partial file to write; after the block the file replaces `path`.

    A reader sees the old file or the new file, never a part. Two writers do not disturb each other. After an
    error the old file stays.
    """
    target = Path(os.path.realpath(path))  # a link stays; the file behind it is replaced
    with _partial_of(target, path) as partial:
        partial.touch(exist_ok=False)  # with the usual rights of new files
        rights = partial.stat().st_mode
        yield partial
        partial.chmod(rights)  # some libraries make their files private
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)


@contextmanager
def lock(path: str | Path, others: Iterable[Path] = ()) -> Iterator[None]:
    """Lock `path`, which need not exist, during the block; refuse a path that another command has locked.

    First remove the partial files of `path` that killed commands left, and those of the `others`, which the
    command writes too. The lock holds on this machine only.
    """
    if "://" in str(path):
        marker, own = Path(tempfile.gettempdir()) / f"{_hash(str(path).encode(), 32)}{LOCK}", []
    else:
        target = Path(os.path.realpath(path))
        marker, own = target.with_name(_hidden(target) + LOCK), [target]
    held = FileLock(marker, timeout=0, thread_local=False)
    try:
        with _named(path, marker):
            held.acquire()
    except Timeout:
        raise ValueError(f"{path}: another command writes it; wait for it, or stop it") from None
    try:
        _remove_leftovers([*own, *others])
        yield
    finally:
        with suppress(OSError):
            marker.unlink(missing_ok=True)
        held.release()


def is_partial(name: str) -> bool:
    """Return whether a name is that of a partial file of this package."""
    return PARTIAL_NAME.fullmatch(name) is not None


def begun_in(folder: Path) -> set[str]:
    """Return the names of the files of which partial files lie in a folder; long names are cut."""
    found = map(PARTIAL_NAME.fullmatch, os.listdir(folder) if folder.is_dir() else ())
    return {match[1].removeprefix(".") for match in found if match is not None}


def remove_partials(folder: Path, hidden: Set[str] | None = None) -> None:
    """Remove the partial files that killed commands left in a folder; a lock must be held.

    With `hidden`, remove those of targets with these hidden names only.
    """
    for name in os.listdir(folder) if folder.is_dir() else ():
        match = PARTIAL_NAME.fullmatch(name)
        if match is not None and (hidden is None or match[1] in hidden):
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)


def check_target(path: Path, endings: Sequence[str] = ()) -> None:
    """Refuse a target that cannot be written, before the work; a regular file may already exist there.

    Without `endings`, such as `(".png",)`, all names are allowed.

    Raises:
        ValueError: the name has another ending, the folder does not exist, or `path` is no regular file.
        OSError: the folder takes no file.
    """
    with _named(path):
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
    if endings and not path.name.lower().endswith(tuple(endings)):
        raise ValueError(f"{path}: the name must end in {' or '.join(endings)}")
    if is_folder:
        raise ValueError(f"{path}: is a folder; give the name of a file")
    if is_other:
        raise ValueError(f"{path}: is no regular file; give another name")
    check_place(path)


def check_not_given(paths: Iterable[Path], given: Iterable[Path]) -> None:
    """Refuse to overwrite what is given: one of these files, or a file in one of these folders."""
    sources = {each.resolve() for each in given}
    for path in paths:
        target = path.resolve()
        if target in sources or (target.exists() and not sources.isdisjoint(target.parents)):
            raise ValueError(f"{path}: is given, and would be overwritten; write to another file")


def check_own(path: Path) -> None:
    """Refuse to replace a file that this package has not made: it is not empty, and has no `OWN` in it."""
    if path.is_file() and (content := path.read_bytes()) and OWN.encode() not in content:
        raise ValueError(f"{path}: is there, and diffnca has not made it; give another name, or delete it")


def check_place(path: Path) -> None:
    """Refuse a path whose parent folder does not exist (`ValueError`) or takes no file (`OSError`)."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        folder = target.parent if path.is_symlink() else path.parent
        if target.parent.exists():
            raise ValueError(f"{path}: {folder} is no folder; choose one")
        raise ValueError(f"{path}: the folder {folder} does not exist; create it first")
    with _partial_of(target, path) as trial:
        target.exists()  # fails for a name that is too long
        trial.write_bytes(b"\0" * 512)


def _hidden(path: Path) -> str:
    """Return the first part of the names of partial files and locks of `path`."""
    name = path.name.encode(errors="surrogateescape")
    if len(name) <= NAME_BYTES:
        return f".{path.name}"
    return f".{name[:NAME_BYTES].decode(errors='ignore')}-{_hash(name, 8)}"


def _hash(data: bytes, length: int) -> str:
    return sha256(data).hexdigest()[:length]


@contextmanager
def _partial_of(target: Path, path: Path) -> Iterator[Path]:
    """Yield the name of a partial file of `target`, and remove this file at the end; errors name `path`."""
    partial = target.with_name(f"{_hidden(target)}.{uuid.uuid4().hex[:8]}{PARTIAL}")
    try:
        with _named(path, partial):
            yield partial
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _remove_leftovers(targets: Iterable[Path]) -> None:
    """Remove the partial files of targets whose lock is held."""
    hidden: dict[Path, set[str]] = {}
    for target in map(Path, map(os.path.realpath, targets)):
        hidden.setdefault(target.parent, set()).add(_hidden(target))
    for folder, names in hidden.items():
        remove_partials(folder, names)


@contextmanager
def _named(path: str | Path, own: Path | None = None) -> Iterator[None]:
    """Let an error about `path` or `own` name `path`, the reason and the remedy."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        own_names = (str(path), str(own), os.path.realpath(path))
        if error.errno is None or (error.filename is not None and str(error.filename) not in own_names):
            raise
        reason = (error.strerror or os.strerror(error.errno)).lower()
        remedy = REMEDIES.get(error.errno, "check the folder and the disk")
        named = OSError(f"{path}: cannot be written ({reason}); {remedy}")
        named.errno = error.errno
        raise named from error
