"""Stores: what cannot be reached, and what is damaged, is one clear line."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from diffnca.cli.main import main
from diffnca.formats.stores import exists, listed, opened, remove_own, undamaged


class RefusedError(Exception):
    """What the library of an object store raises: no `OSError`, and of many lines."""


class Refusing(AbstractFileSystem):
    """An object store without credentials for it."""

    protocol = "refusing"

    def refuse(self, *arguments: Any, **options: Any) -> NoReturn:
        raise RefusedError("no\ncredentials")

    info = exists = ls = cat_file = cat_ranges = pipe_file = rm = find = refuse


fsspec.register_implementation("refusing", Refusing, clobber=True)
ADDRESS = "refusing://bucket/x.ome.zarr"
LINE = f"{ADDRESS}: RefusedError: no credentials; check the address and your credentials"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: exists(opened(ADDRESS), "zarr.json"),
        lambda: listed(opened(ADDRESS), ""),
        lambda: remove_own(ADDRESS, ".*"),
    ],
)
def test_an_address_that_refuses_is_an_oserror_that_names_it(ask: Any) -> None:
    with pytest.raises(
        OSError, match="^refusing://bucket/.*: RefusedError: no credentials; check the address"
    ):
        ask()


@pytest.mark.parametrize(
    "command", ["sample pathology-4step --height 64 --width 64 --out", "verify", "view --no-open"]
)
def test_a_command_says_so_in_one_line(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), ADDRESS]) == 2
    assert capsys.readouterr().err == f"diffnca: {LINE}\n"


def test_a_protocol_that_does_not_exist_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "nothing://x.ome.zarr"]) == 2
    assert capsys.readouterr().err == "diffnca: nothing://x.ome.zarr: Protocol not known: nothing\n"


def test_a_missing_key_of_an_address_is_no_error() -> None:
    assert not exists(opened("memory://nothing/x.ome.zarr"), "zarr.json")


def test_what_is_damaged_is_named_with_the_remedy() -> None:
    with (
        pytest.raises(ValueError, match=r"^the file: is damaged \(a checksum\); delete it$"),
        undamaged("the file", "delete it"),
    ):
        raise RuntimeError("a\nchecksum")


def test_what_cannot_be_read_is_not_called_damaged() -> None:
    with pytest.raises(PermissionError), undamaged("the file", "delete it"):
        raise PermissionError(13, "Permission denied")


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_own(str(tmp_path / "nothing"), ".*")
    assert list(tmp_path.iterdir()) == []


WRITE_THAT_FAILS = """
import resource, signal
import numpy as np
from diffnca.formats.stores import zarr

array = zarr.create_array("x.zarr", shape=(512, 512), dtype="uint8", chunks=(64, 64), shards=(128, 128))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    array[...] = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
except OSError as error:
    print(error)
"""


def test_sixteen_files_that_cannot_be_written_are_one_error(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WRITE_THAT_FAILS], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("[Errno 27] File too large\n", "")
