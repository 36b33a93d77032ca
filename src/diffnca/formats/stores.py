"""Stores of zarr arrays: folders, and all addresses of fsspec (`s3://...`, `memory://...`).

A key appears complete or not at all: zarr renames complete files, and object stores behave alike. An
unreachable address is an `OSError` of one line. A damaged file is a `ValueError` that names the file.
"""

import asyncio
import atexit
import functools
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fsspec  # noqa: F401  zarr imports it when an address is opened
    import zarr as zarr
    from zarr.abc.store import Store
    from zarr.codecs import Crc32cCodec as Crc32cCodec
    from zarr.core.sync import collect_aiterator, loop, sync
    from zarr.storage import FsspecStore, LocalStore
except ImportError:
    raise ImportError("large images need zarr: pip install 'diffnca[giga]'") from None

from diffnca.errors import one_line
from diffnca.files import is_partial, local

PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial")
"""Pattern of the names of files that zarr is writing."""

if zarr.config.get("threading.max_workers") is None:
    # each thread of zarr keeps memory for ever; two threads hide the latency of files
    zarr.config.set({"threading.max_workers": 2})


def _end_what_runs() -> None:
    """Wait for the tasks of zarr that still run, such as other files of a failed write.

    Otherwise Python would print their errors after the message of the command.
    """

    async def others() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    if loop[0] is not None:  # without reads and writes there is no loop
        sync(others())


atexit.register(_end_what_runs)  # runs before the handler of zarr, which was registered earlier


class AddressStore(FsspecStore):
    """A store at an address of fsspec; its errors can be pickled, errors of the libraries often cannot."""

    @property
    def address(self) -> str:
        """The address of the store."""
        return str(getattr(self.fs, "sync_fs", self.fs).unstrip_protocol(self.path))

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names directly below a prefix."""
        with reached(self.address):
            async for name in super().list_dir(prefix):
                yield name


def _reaching(method: Any) -> Any:
    @functools.wraps(method)
    async def call(self: AddressStore, *arguments: Any, **options: Any) -> Any:
        with reached(self.address):
            return await method(self, *arguments, **options)

    return call


for _name in ("get", "get_partial_values", "getsize", "set", "exists", "delete", "delete_dir"):
    setattr(AddressStore, _name, _reaching(getattr(FsspecStore, _name)))


class FolderStore(LocalStore):
    """A folder; refuses devices and pipes, whose data have no end."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """Return a value or a part of a value; `None` if the key does not exist."""
        path = self.root / key
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(f"{path}: is no regular file; delete it")
        return await super().get(key, *arguments, **options)

    async def getsize(self, key: str) -> int:
        """Return the bytes of a value; raise `FileNotFoundError` if the key does not exist."""
        path = self.root / key
        if not path.is_file():
            raise FileNotFoundError(key)
        return path.stat().st_size


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Turn each error of the block into an `OSError` that names the address."""
    try:
        yield
    except FileNotFoundError:  # tells zarr that a key does not exist
        raise
    except Exception as error:  # libraries of object stores raise any error
        message = (
            f"{address}: {type(error).__name__}: {one_line(error)}; check the address and your credentials"
        )
        raise OSError(message) from None


@contextmanager
def undamaged(what: str, remedy: str) -> Iterator[None]:
    """Turn each decoding error of the block into a `ValueError` that names `what` and the remedy."""
    try:
        yield
    except OSError:  # an unreadable file may be undamaged
        raise
    except Exception as error:  # decoders raise any error
        raise ValueError(f"{what}: is damaged ({one_line(error)}); {remedy}") from error


def opened(url: str) -> Store:
    """Return the store at a path or an address.

    Raises:
        ValueError: fsspec does not know the protocol.
        ImportError: the protocol needs a missing package.
    """
    path = local(url)
    if not is_remote(path):
        return FolderStore(os.path.realpath(path))  # a link may lead to a folder that is not there yet
    try:
        return AddressStore.from_url(url)
    except (ValueError, ImportError) as error:
        raise type(error)(f"{url}: {one_line(error)}") from None


def is_remote(url: str) -> bool:
    """Return whether `url` is an address, not a path on this machine."""
    return "://" in url


def exists(store: Store, key: str) -> bool:
    """Return whether the store has a key."""
    return sync(store.exists(key))


def lack_of(store: Store, key: str) -> str | None:
    """Return why the file of a shard holds nothing; `None` if it holds something.

    zarr reads a missing shard as black, and an empty one too. The size takes no more requests than `exists`.
    """
    try:
        return None if sync(store.getsize(key)) else "is empty"
    except FileNotFoundError:
        return "is missing"


def listed(store: Store, prefix: str) -> list[str]:
    """Return the names directly below a prefix, in no order."""
    return [name.rstrip("/") for name in collect_aiterator(store.list_dir(prefix))]


def delete_folder(store: Store, prefix: str) -> None:
    """Remove all keys below a prefix."""
    sync(store.delete_dir(prefix))


def attributes_of(url: str, path: str = "") -> dict[str, Any] | None:
    """Return the attributes of the group or array at `path`; `None` if neither exists."""
    store = opened(url)
    key = f"{path}/zarr.json".lstrip("/")
    if not exists(store, key):
        return None
    with undamaged(f"{url}/{key}", f"delete {url}, then the same command begins again"):
        return dict(zarr.open(store, path=path, mode="r").attrs.asdict())


def facts_of(url: str, path: str = "") -> dict[str, str] | None:
    """Return the `diffnca` metadata at `path`; `None` without such metadata; refuse another form."""
    facts: dict[str, str] | None = (attributes_of(url, path) or {}).get("diffnca")
    is_text = isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values())
    if facts is not None and not is_text:
        raise ValueError(
            f"{url}: its `diffnca` metadata are damaged; delete {url}, then the same command begins again"
        )
    return facts


def remove_leftovers(url: str) -> None:
    """Remove the partial files of zarr that killed processes left."""
    if not is_remote(url):
        for path in Path(url).rglob("*.partial"):
            if PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)


def others_in(url: str, own: str) -> list[str]:
    """Return the names directly below `url`, without partial files and names that match `own`."""
    return sorted(name for name in listed(opened(url), "") if not _is_own(name, own))


def remove_own(url: str, own: str) -> None:
    """Remove the names that match `own` directly below `url`; then remove the folder if it is empty."""
    store = opened(url)
    for name in listed(store, ""):
        if _is_own(name, own):
            sync(store.delete(name)) if "." in name else delete_folder(store, name)
    if not is_remote(url):
        with suppress(OSError):  # the folder does not exist, or holds other files
            Path(url).rmdir()


def _is_own(name: str, own: str) -> bool:
    """Return whether a name matches `own`, or is that of a partial file of zarr or of this package."""
    return any((re.fullmatch(own, name), PARTIAL.fullmatch(name), is_partial(name)))
