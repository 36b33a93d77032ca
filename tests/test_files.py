"""Files of a user are never lost: targets are tested first, locked, and replaced at the end."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffnca.files import (
    LOCK,
    PARTIAL,
    check_not_given,
    check_place,
    check_target,
    lock,
    replace_atomically,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("old")
    with replace_atomically(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and names(tmp_path) == {"table.json"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(error), replace_atomically(path) as partial:  # noqa: PT012
        partial.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == {"a.png"}


def test_a_failed_write_names_the_path_the_reason_and_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(OSError, match=r"a\.png: cannot be written \(no space left on device\); free some"):  # noqa: SIM117
        with replace_atomically(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_error_of_another_file_is_not_blamed_on_the_target(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"input\.png"), replace_atomically(tmp_path / "a.png"):
        (tmp_path / "input.png").read_bytes()


def test_files_that_look_like_parts_are_kept(tmp_path: Path) -> None:
    theirs = {"a.png.partial", "a.png.work", ".a.png.diffnca-partial", ".b.png.12345678.diffnca-partial"}
    for name in theirs:
        (tmp_path / name).write_text("of a user")
    with lock(tmp_path / "a.png"), replace_atomically(tmp_path / "a.png") as partial:
        partial.write_text("new")
    assert names(tmp_path) == theirs | {"a.png"}


def test_what_a_killed_command_left_is_removed_with_the_next_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    program = f"""
import os; from pathlib import Path; from diffnca.files import lock, replace_atomically
with lock(Path({str(path)!r})), replace_atomically(Path({str(path)!r})) as partial:
    partial.write_text("half"); os._exit(9)"""
    subprocess.run([sys.executable, "-c", program], check=False)
    left = names(tmp_path)
    assert len(left) == 2 and all(name.startswith(".") and name.endswith((PARTIAL, LOCK)) for name in left)
    with lock(path):
        assert names(tmp_path) == {f".a.png{LOCK}"}
    assert names(tmp_path) == set()


def test_a_lock_removes_the_partial_files_of_all_that_its_command_writes(tmp_path: Path) -> None:
    left = [".b-000.png.0123abcd.diffnca-partial", ".c.gif.0123abcd.diffnca-partial"]
    theirs = [".d.png.0123abcd.diffnca-partial", ".b-000.png.0123abcx.diffnca-partial"]
    for name in (*left, *theirs):
        (tmp_path / name).touch()
    others = [tmp_path / "b-000.png", tmp_path / "c.gif", tmp_path / "missing" / "e.png"]
    with lock(tmp_path / "b.png", others):
        assert names(tmp_path) == {f".b.png{LOCK}", *theirs}


@pytest.mark.parametrize("target", ["image.ome.zarr", "memory://image.ome.zarr", "x" * 250])
def test_a_second_command_on_a_target_is_refused_until_the_first_ends(tmp_path: Path, target: str) -> None:
    path = target if "://" in target else tmp_path / target
    with lock(path), pytest.raises(ValueError, match="another command writes it"), lock(path):
        pass
    with lock(path):
        pass


def test_a_link_is_kept_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with replace_atomically(tmp_path / "link.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.jpg", r"a\.jpg: the name must end in \.png"),
        ("pipe.png/a.png", r"pipe\.png is no folder; choose one"),
        ("missing/a.png", r"the folder .*missing does not exist; create it first"),
        ("folder.png", "is a folder; give the name of a file"),
        ("pipe.png", "is no regular file"),
        ("x" * 300 + ".png", r"cannot be written \(file name too long\); choose a shorter name"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises((ValueError, OSError), match=message):
        check_target(tmp_path / name, (".png",))


def test_a_folder_in_which_nothing_can_be_written_is_refused() -> None:
    with pytest.raises(OSError, match=r"/proc/a\.png: cannot be written"):
        check_place(Path("/proc/a.png"))


def test_a_test_of_a_target_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("old")
    check_target(tmp_path / "a.PNG", (".png",))
    check_target(tmp_path / "a.png")
    assert names(tmp_path) == {"a.png"} and (tmp_path / "a.png").read_text() == "old"


def test_what_is_given_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("given")
    for given in (tmp_path / "a.png", tmp_path):
        with pytest.raises(ValueError, match=r"a.png: is given, and would be overwritten"):
            check_not_given([tmp_path / "new.png", tmp_path / "x" / ".." / "a.png"], [given])
    check_not_given([tmp_path / "new.png"], [tmp_path])
