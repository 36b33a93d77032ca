"""Puts the native code into a wheel for Linux, built for each set of instructions, if DIFFNCA_PREBUILT=1.

Without it the wheel is one for all systems, and the native code is built at first use. A plain
`pip install .` so needs no compiler.
"""

import os
import platform
import re
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = "src/diffnca/engine/native"
ALONE = ("-static-libstdc++", "-static-libgcc", "-s")  # needs no library but that of C
OLDEST = (2, 17)  # the oldest C library that wheels may name
GLIBC = re.compile(rb"GLIBC_(\d+)\.(\d+)")  # what a library needs stands in it


class Prebuilt(BuildHookInterface):
    """Builds the libraries into a folder for the time of the build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the libraries, and name the platform of the wheel."""
        if os.environ.get("DIFFNCA_PREBUILT") != "1" or version == "editable":
            return
        native, machine = Path(self.root) / NATIVE, platform.machine()
        known = runpy.run_path(str(native / "prebuilt.py"))
        if platform.system() != "Linux" or machine not in known["SETS"]:
            raise ValueError(
                f"DIFFNCA_PREBUILT=1: must be on Linux, {' or '.join(known['SETS'])}; leave it out"
            )
        self.folder, needed = Path(tempfile.mkdtemp()), OLDEST
        for source in sorted(native.glob("*.cpp")):
            for each in known["SETS"][machine]:
                made = self.folder / f"{source.stem}-{each.name}.so"
                flags = (*known["FLAGS"], *each.flags, *ALONE, "-Wno-psabi")
                subprocess.run(["c++", *flags, str(source), "-o", str(made)], check=True)
                versions = GLIBC.findall(made.read_bytes())
                needed = max(needed, *((int(major), int(minor)) for major, minor in versions))
                build_data["force_include"][str(made)] = f"diffnca/engine/native/prebuilt/{made.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{needed[0]}_{needed[1]}_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder."""
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)
