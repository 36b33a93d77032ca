"""Cell steps in native code, which the C++ compiler of this machine builds at first use.

The library is no extension of Python or torch: it knows plain memory only, so it fits every version of both.
It is kept in `~/.cache/diffnca`, one file for each source and processor.
"""

import ctypes
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from diffnca.engine.cells import Modulations, Work
from diffnca.engine.layers import LANES
from diffnca.engine.machine import instructions
from diffnca.files import replace_atomically

SOURCE = Path(__file__).parent / "cells.cpp"
COMPILERS = ("c++", "g++", "clang++")
NATIVE = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
FLAGS = ("-std=c++20", "-O3", NATIVE, "-ffp-contract=off", "-fPIC", "-shared")
"""The source says where a product and a sum are one operation. Else they could be for some cells only."""
WITHOUT_TILES = ("-mno-amx-bf16",)
LINE_BYTES = 64
BUILD_SECONDS = 300

INTEGERS = (
    "lines", "length", "halo", "stride_y", "stride_x", "state_width", "seen", "stride", "near", "perceived",
    "hidden", "activated", "first", "plain_hidden", "dilation", "is_gated", "first_image", "last_image",
    "first_line", "last_line", "first_cell", "last_cell",
)  # fmt: skip
POINTERS = (
    "perceive", "perceive_bias", "expand", "expand_bias", "project", "project_bias", "scale", "shift",
    "cell_scale", "cell_shift", "cell_hidden_scale", "cell_hidden_shift", "taken", "state", "now", "next",
)  # fmt: skip


class Step(ctypes.Structure):
    """The arguments of a cell step: in this order, those of `Step` in cells.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in INTEGERS),
        *((name, ctypes.c_void_p) for name in POINTERS),
        ("share", ctypes.c_float),
    )


class Native:
    """Cell steps by a built library, with matrix products in `dtype`."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.library, self.dtype, self.line = library, dtype, LINE_BYTES // dtype.itemsize
        self.function = getattr(library, _name_of(dtype))

    def laid(self, weight: Float[Tensor, "k o i"]) -> Tensor:
        """Return weights in panels of `LANES` outputs, input after input, in bfloat16 pair after pair."""
        (count, outputs, inputs), together = weight.shape, self.line // LANES
        width = min(outputs, LANES)
        panels = weight.reshape(count, outputs // width, width, inputs // together, together)
        return panels.transpose(2, 3).contiguous()

    def surround(self, work: Work, rows: Int32[Tensor, " m"], columns: Int32[Tensor, " n"]) -> None:
        """Copy cells of all images to where they are seen beyond the edges."""
        grid, bytes_of_cell = work.grid, work.widths.stride * self.dtype.itemsize
        sizes = (len(work.state), grid.lines, grid.length, grid.halo, work.dilation, bytes_of_cell)
        pointers = (ctypes.c_void_p(each.data_ptr()) for each in (work.now.rows, rows, columns))
        self.library.diffnca_surround(*pointers, *map(ctypes.c_int64, sizes))

    def step(self, work: Work, lines: range, modulations: Modulations) -> None:
        """Do a cell step for these lines of the images."""
        is_gated, images = work.config.modulation == "gate", work.images
        spans = (images.start, images.stop, lines.start, lines.stop, work.cells.start, work.cells.stop)
        layers = (*work.layers.perceive, *work.layers.expand, *work.layers.project)
        of_cells = (*modulations[0], *modulations[1])
        tensors = (*layers, work.layers.scale, work.layers.shift, *of_cells, work.taken, work.state)
        pointers = (_pointer(each) for each in (*tensors, work.now.rows, work.next.rows))
        step = Step(*work.grid, *work.widths, work.dilation, is_gated, *spans, *pointers, work.share)
        self.function(ctypes.byref(step))


def native_steps(dtype: torch.dtype, flags: tuple[str, ...] = ()) -> Native | None:
    """Return cell steps in native code; `None` if this machine cannot build them, or not for this `dtype`.

    `flags` are further flags of the compiler.
    """
    library = built(flags)
    return Native(library, dtype) if library is not None and hasattr(library, _name_of(dtype)) else None


@cache
def built(flags: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """Return the library, built if it is not there; `None` if there is no compiler that can build it."""
    if sys.platform == "win32":
        return None
    path = library_path(flags)
    library = _loaded(path) or _built(path, flags)
    if library is not None and not library.diffnca_may_use_tiles():
        return built((*flags, *WITHOUT_TILES))
    return library


def library_path(flags: tuple[str, ...] = ()) -> Path:
    """Return where the library for this source, this processor and these flags is kept."""
    key = sha256("\n".join([SOURCE.read_text(encoding="utf-8"), instructions(), *FLAGS, *flags]).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    cache = cache if cache.is_absolute() else Path(os.devnull)  # without a home, nothing is kept
    return cache / "diffnca" / f"cells-{key.hexdigest()[:16]}.so"


def _built(path: Path, flags: Sequence[str]) -> ctypes.CDLL | None:
    """Build the library, and keep it at `path` if possible; processes that build at once do not disturb."""
    for compiler in filter(None, map(shutil.which, COMPILERS)):
        try:
            with tempfile.TemporaryDirectory() as folder:
                fresh = Path(folder) / path.name
                _compile(compiler, flags, fresh)
                with suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with replace_atomically(path) as partial:
                        shutil.copyfile(fresh, partial)
                if (library := _loaded(path) or _loaded(fresh)) is not None:
                    return library
        except (OSError, subprocess.SubprocessError) as error:
            logging.getLogger(__name__).info("%s cannot build %s: %s", compiler, SOURCE.name, error)
    return None


def _compile(compiler: str, flags: Sequence[str], to: Path) -> None:
    command = [compiler, *FLAGS, *flags, str(SOURCE), "-o", str(to)]
    subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)


def _loaded(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError:  # of another machine
        return None


def _name_of(dtype: torch.dtype) -> str:
    return f"diffnca_step_{str(dtype).removeprefix('torch.')}"


def _pointer(tensor: Tensor | None) -> int | None:
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()
