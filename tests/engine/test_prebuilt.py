"""The native code that a wheel brings: which library a processor takes, and that it needs little."""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from diffnca.engine import native, prepare
from diffnca.engine.native import prebuilt

from .suite import network_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (prebuilt.AVX512 | {"amx_tile", "amx_bf16", "sse2"}, ["amx", "avx512", "avx2"]),
        (prebuilt.AVX512, ["avx512", "avx2"]),
        (prebuilt.AVX2 | {"avx512f"}, ["avx2"]),
        ({"sse2"}, []),
    ],
    ids=["amx", "avx512", "avx2", "old"],
)
def test_a_processor_takes_the_fastest_library_that_it_can_run(
    parts: set[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert [path.stem for path in prebuilt.libraries("cells", set(parts))] == [f"cells-{n}" for n in names]


def test_an_unknown_architecture_has_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert list(prebuilt.libraries("cells", set(prebuilt.AVX512))) == []


def test_without_a_compiler_the_library_of_the_wheel_does_the_cell_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = native.built()
    if library is None:
        pytest.skip("no C++ compiler here")
    shutil.copyfile(library._name, tmp_path / "cells.so")
    monkeypatch.setattr(prebuilt, "libraries", lambda name, parts: iter([tmp_path / f"{name}.so"]))
    monkeypatch.setattr(native, "COMPILERS", ())
    monkeypatch.setattr(native, "built", native.built.__wrapped__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stepper = prepare(network_of("diff_nca"), "cpu", torch.float32).rules[0].stepper
    assert isinstance(stepper, native.Native)
    assert stepper.library._name == str(tmp_path / "cells.so")


@pytest.mark.release
def test_a_wheel_with_native_code_names_the_c_library_that_it_needs(tmp_path: Path) -> None:
    if platform.machine() not in prebuilt.SETS or shutil.which("c++") is None:
        pytest.skip("no such wheel is built here")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)],
        check=True,
        env={**os.environ, "DIFFNCA_PREBUILT": "1"},
    )
    (wheel,) = tmp_path.iterdir()
    named = re.search(rf"-py3-none-manylinux_(\d+)_(\d+)_{platform.machine()}\.whl$", wheel.name)
    assert named is not None
    with zipfile.ZipFile(wheel) as held:
        libraries = [name for name in held.namelist() if "/prebuilt/" in name]
        content = b"".join(map(held.read, libraries))
    sources = len(list(native.SOURCES.glob("*.cpp")))
    assert len(libraries) == sources * len(prebuilt.SETS[platform.machine()])
    needed = [tuple(map(int, version)) for version in re.findall(rb"GLIBC_(\d+)\.(\d+)", content)]
    assert max(needed) <= tuple(map(int, named.groups()))
    assert b"libstdc++.so" not in content
