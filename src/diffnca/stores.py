"""Where arrays of zarr lie: folders, and any address that fsspec knows (`s3://...`, `memory://...`).

A key appears whole or not at all: zarr writes a file under another name and renames it, and object stores do
the like.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

try:
    import fsspec
    import zarr as zarr
    from zarr.abc.store import Store
    from zarr.codecs import Crc32cCodec as Crc32cCodec
    from zarr.core.sync import sync
    from zarr.storage import FsspecStore, LocalStore
except ImportError:
    raise ImportError("large images need zarr: pip install 'diffnca[giga]'") from None


def opened(url: str) -> Store:
    """Return the store at a path or an address."""
    path = url.removeprefix("file://")  # fsspec writes local files in place
    return FsspecStore.from_url(url) if is_remote(path) else LocalStore(path)


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


def remove(url: str) -> None:
    """Remove a folder with all that is in it, if it is there."""
    files, path = fsspec.core.url_to_fs(url)
    if files.exists(path):
        files.rm(path, recursive=True)


def remove_leftovers(url: str) -> None:
    """Remove the files that were being written when a process was killed."""
    if not is_remote(url):
        for path in Path(url).rglob("*.partial"):
            path.unlink(missing_ok=True)
