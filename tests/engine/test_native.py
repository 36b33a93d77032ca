"""Native cell steps: where they come from, and what happens where they cannot be had."""

import shlex
from pathlib import Path

import pytest
import torch

from diffnca.engine import native, prepare
from diffnca.engine.blocks import Blocks

from .suite import network_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a compiler that copies the true library; it writes a line for each call."""
    library = native.built()
    if library is None:
        pytest.skip("no C++ compiler here")
    compiler = tmp_path / "compiler"
    log = tmp_path / "log"
    compiler.write_text(
        "#!/bin/sh\nfor last; do true; done\n"
        f"echo built >> {shlex.quote(str(log))}\ncp {shlex.quote(library._name)} $last\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setattr(native, "COMPILERS", (str(compiler),))
    monkeypatch.setattr(native, "built", native.built.__wrapped__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log.touch()
    return tmp_path


def builds(cache: Path) -> int:
    return len((cache / "log").read_text().splitlines())


def test_what_is_built_is_kept(cache: Path) -> None:
    assert native.built() is not None and native.built() is not None
    assert builds(cache) == 1


def test_other_flags_are_another_library(cache: Path) -> None:
    native.built()
    native.built(("-g",))
    assert native.library_path() != native.library_path(("-g",))
    assert builds(cache) == 2


def test_a_broken_library_is_built_again(cache: Path) -> None:
    native.library_path().parent.mkdir(parents=True)
    native.library_path().write_bytes(b"nonsense")
    assert native.built() is not None
    assert builds(cache) == 1


def test_where_nothing_can_be_kept_it_is_built_all_the_same(cache: Path) -> None:
    (cache / "cache").write_text("no folder")
    assert native.built() is not None


@pytest.mark.parametrize("compilers", [(), ("false",), ("no-such-compiler",)], ids=str)
def test_without_a_compiler_torch_does_the_cell_steps(
    cache: Path, compilers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "COMPILERS", compilers)
    assert native.built() is None
    stepper = prepare(network_of("diff_nca"), "cpu", torch.float32).rules[0].stepper
    assert isinstance(stepper, Blocks)


def test_without_the_right_for_tiles_they_are_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = native._loaded

    def forbidden(path: Path) -> object:
        library = loaded(path)
        if library is not None and builds(cache) == 1:
            library.diffnca_may_use_tiles = lambda: 0
        return library

    monkeypatch.setattr(native, "_loaded", forbidden)
    assert native.built() is not None
    assert builds(cache) == 2


def told_where_builds_fail(
    cache: Path, script: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """Return what is logged where two compilers run this script."""
    compiler = cache / "failing"
    compiler.write_text(f"#!/bin/sh\necho built >> {shlex.quote(str(cache / 'log'))}\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(native, "COMPILERS", (str(compiler), str(compiler)))
    with caplog.at_level("INFO", logger="diffnca"):
        assert native.built() is None
    return caplog.messages


def test_where_no_compiler_can_build_one_line_says_what_follows_and_why(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    script = "echo In file a: >&2; echo 'error: no c++20' >&2; exit 1"
    (line,) = told_where_builds_fail(cache, script, monkeypatch, caplog)
    assert line.startswith("torch does the cell steps") and line.endswith("failing: error: no c++20)")


def test_a_library_that_cannot_be_loaded_is_named(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = told_where_builds_fail(cache, "for last; do true; done; : > $last", monkeypatch, caplog)
    assert "cannot be loaded" in line


def test_after_a_compiler_that_takes_too_long_no_other_is_tried(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "BUILD_SECONDS", 0.2)
    (line,) = told_where_builds_fail(cache, "exec sleep 5", monkeypatch, caplog)
    assert "takes more than 0.2 s" in line and builds(cache) == 1
