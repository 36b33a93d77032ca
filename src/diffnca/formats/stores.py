"""Where arrays of zarr lie: folders, and any address that fsspec knows (`s3://...`, `memory://...`).

A key appears whole or not at all: zarr writes a file under another name and renames it, and object stores do
the like. What cannot be reached is an `OSError` of one line, whatever the store's own library raises; what is
there and cannot be decoded is a `ValueError` that names the file.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
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
    from zarr.core.sync import loop, sync
    from zarr.storage import FsspecStore, LocalStore
except ImportError:
    raise ImportError("large images need zarr: pip install 'diffnca[giga]'") from None

from diffnca.errors import one_line

PARTIAL = re.compile(r".*\.[0-9a-f]{32}\.partial")
"""Names of files that zarr is writing."""

if zarr.config.get("threading.max_workers") is None:
    # each of its threads keeps memory of its own that never comes back; two hide the time of a file
    zarr.config.set({"threading.max_workers": 2})


def _end_what_runs() -> None:
    """Wait for what zarr still does: other files of a write that failed, say.

    Their errors are nobody's; cut off by the end of the process, they would be printed after its message.
    """

    async def others() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    if loop[0] is not None:  # where nothing was read or written, there is no loop
        sync(others())


atexit.register(_end_what_runs)  # after zarr's own handler, so it comes before


class AddressStore(FsspecStore):
    """A store at an address of fsspec. Its errors can be sent from a worker; its library's often cannot."""

    @property
    def address(self) -> str:
        """Where it is."""
        return str(getattr(self.fs, "sync_fs", self.fs).unstrip_protocol(self.path))

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names right below a prefix."""
        with reached(self.address):
            async for name in super().list_dir(prefix):
                yield name


def _reaching(method: Any) -> Any:
    """Return a method of a store whose errors name the address."""

    @functools.wraps(method)
    async def call(self: AddressStore, *arguments: Any, **options: Any) -> Any:
        with reached(self.address):
            return await method(self, *arguments, **options)

    return call


for _name in ("get", "get_partial_values", "set", "exists", "delete", "delete_dir"):
    setattr(AddressStore, _name, _reaching(getattr(FsspecStore, _name)))


class FolderStore(LocalStore):
    """A folder. What leads to a device or a pipe has no end, and is refused."""

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        """Return a value, or a part of it; `None` if it is not there."""
        path = self.root / key
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(f"{path}: is no regular file; delete it")
        return await super().get(key, *arguments, **options)


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Within the block, whatever keeps an address from being reached is an `OSError` that names it."""
    try:
        yield
    except FileNotFoundError:  # zarr asks so whether something is there
        raise
    except Exception as error:  # whatever the libraries of object stores raise
        message = (
            f"{address}: {type(error).__name__}: {one_line(error)}; check the address and your credentials"
        )
        raise OSError(message) from None


@contextmanager
def undamaged(what: str, remedy: str) -> Iterator[None]:
    """Within the block, `what` is read: what decoders say of damaged bytes names it and the remedy.

    Raises:
        ValueError: it is damaged.
    """
    try:
        yield
    except OSError:  # it cannot be read, and may be whole
        raise
    except Exception as error:  # whatever decoders raise
        raise ValueError(f"{what}: is damaged ({one_line(error)}); {remedy}") from error


def opened(url: str) -> Store:
    """Return the store at a path or an address.

    Raises:
        OSError: the address cannot be reached.
        ValueError: fsspec knows no such protocol.
        ImportError: it needs a package that is not installed.
    """
    path = url.removeprefix("file://")  # fsspec writes local files in place
    if not is_remote(path):
        return FolderStore(path)
    try:
        return AddressStore.from_url(url)
    except (ValueError, ImportError) as error:
        raise type(error)(f"{url}: {one_line(error)}") from None


def is_remote(url: str) -> bool:
    """Return whether this is an address, and no path of this machine."""
    return "://" in url


def exists(store: Store, key: str) -> bool:
    """Return whether the store has this key."""
    return sync(store.exists(key))


def listed(store: Store, prefix: str) -> list[str]:
    """Return the names right below a prefix, in no order."""

    async def collect(names: AsyncIterator[str]) -> list[str]:
        return [name.rstrip("/") async for name in names]

    return sync(collect(store.list_dir(prefix)))


def delete_folder(store: Store, prefix: str) -> None:
    """Remove all keys below a prefix."""
    sync(store.delete_dir(prefix))


def attributes_of(url: str, path: str = "") -> dict[str, Any] | None:
    """Return the attributes of the group or array at `path`; `None` if there is none.

    Raises:
        ValueError: its metadata are damaged.
    """
    store = opened(url)
    key = f"{path}/zarr.json".lstrip("/")
    if not exists(store, key):
        return None
    with undamaged(f"{url}/{key}", f"delete {url}, then the same command begins again"):
        return dict(zarr.open(store, path=path, mode="r").attrs.asdict())


def facts_in(attributes: dict[str, Any] | None, url: str) -> dict[str, str] | None:
    """Return what attributes say of an image of this package; `None` if they say nothing.

    Raises:
        ValueError: they say it in another form.
    """
    facts = None if attributes is None else attributes.get("diffnca")
    if facts is None:
        return None
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise ValueError(
            f"{url}: its `diffnca` metadata are damaged; delete {url}, then the same command begins again"
        )
    return facts


def remove_leftovers(url: str) -> None:
    """Remove the files that zarr was writing when a process was killed."""
    if not is_remote(url):
        for path in Path(url).rglob("*.partial"):
            if PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)


def others_in(url: str, own: str) -> list[str]:
    """Return the names right below `url` that are neither of this pattern nor files that zarr was writing."""
    names = listed(opened(url), "")
    return sorted(name for name in names if not re.fullmatch(own, name) and not PARTIAL.fullmatch(name))


def remove_own(url: str, own: str) -> None:
    """Remove the names of a pattern right below `url`, and the folder if nothing else lies there."""
    store = opened(url)
    for name in listed(store, ""):
        if re.fullmatch(own, name) or PARTIAL.fullmatch(name):
            sync(store.delete(name)) if "." in name else delete_folder(store, name)
    if not is_remote(url):
        with suppress(OSError):  # it is not there, or holds something else
            Path(url).rmdir()
