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
from typing import Literal

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn import functional as F

from diffnca.engine.cells import Modulations, Work
from diffnca.engine.layers import LANES
from diffnca.engine.machine import instructions
from diffnca.engine.native import prebuilt
from diffnca.errors import one_line
from diffnca.files import cache_folder, replace_atomically

SOURCES = Path(__file__).parent
COMPILERS = ("c++", "g++", "clang++")
NATIVE = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
FLAGS = (*prebuilt.FLAGS, NATIVE)
WITHOUT_TILES = ("-mno-amx-bf16",)
LINE_BYTES = 64
Name = Literal["cells", "training"]
"""Of a source, and of the library that is built of it."""

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
        self.library, self.dtype, self.line = library, dtype, line_of(dtype)
        self.function = getattr(library, f"diffnca_step_{name_of(dtype)}")

    def laid(self, weight: Float[Tensor, "k o i"]) -> Tensor:
        """Return weights in panels, as products read them."""
        return panels(weight, self.line)

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
        pointers = (pointer_of(each) for each in (*tensors, work.now.rows, work.next.rows))
        step = Step(*work.grid, *work.widths, work.dilation, is_gated, *spans, *pointers, work.share)
        self.function(ctypes.byref(step))


def native_steps(dtype: torch.dtype, flags: tuple[str, ...] = ()) -> Native | None:
    """Return cell steps in native code; `None` if this machine cannot build them, or not for this `dtype`.

    `flags` are further flags of the compiler.
    """
    library = built(flags)
    knows = library is not None and hasattr(library, f"diffnca_step_{name_of(dtype)}")
    return Native(library, dtype) if library is not None and knows else None


@cache
def built(flags: tuple[str, ...] = (), name: Name = "cells") -> ctypes.CDLL | None:
    """Return a library, built if it is not there; `None` if there is no compiler that can build it."""
    if sys.platform == "win32":
        return None
    path = library_path(flags, name)
    library = _loaded(path) or _built(path, flags)
    if library is not None and not library.diffnca_may_use_tiles():
        return built((*flags, *WITHOUT_TILES), name)
    return library


def library_path(flags: tuple[str, ...] = (), name: Name = "cells") -> Path:
    """Return where the library for this source, this processor and these flags is kept."""
    sources = [
        path.read_text(encoding="utf-8") for path in (SOURCES / f"{name}.cpp", *sorted(SOURCES.glob("*.h")))
    ]
    key = sha256("\n".join([*sources, instructions(), *FLAGS, *flags]).encode())
    cache = cache_folder() or Path(os.devnull)  # without a home, nothing is kept
    return cache / f"{name}-{key.hexdigest()[:16]}.so"


def _built(path: Path, flags: Sequence[str]) -> ctypes.CDLL | None:
    """Build the library with the first compiler that can; if none can, take that of the wheel.

    If the wheel has none, say why the last compiler could not.
    """
    reason = None
    for compiler in filter(None, map(shutil.which, COMPILERS)):
        try:
            return _built_by(compiler, path, flags)
        except OSError as error:
            reason = f"{compiler}: {one_line(error)}"
            if isinstance(error, TimeoutError):
                break
    library = _brought(path.name.partition("-")[0]) if set(flags) <= set(WITHOUT_TILES) else None
    if library is None and reason is not None:
        logging.getLogger(__name__).info(
            "torch does the cell steps, more slowly, as no compiler builds the native code (%s)", reason
        )
    return library


def _brought(name: str) -> ctypes.CDLL | None:
    """Return the fastest library for this processor that the wheel has brought, if it has any."""
    for path in prebuilt.libraries(name, set(instructions().split())):
        library = _loaded(path)
        if library is not None and library.diffnca_may_use_tiles():
            return library
    return None


def _built_by(compiler: str, path: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """Build the library, and keep it at `path` if possible; processes that build at once do not disturb."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / path.name
        _compile(compiler, flags, fresh)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_atomically(path) as partial:
                shutil.copyfile(fresh, partial)
        library = _loaded(path) or _loaded(fresh)
    if library is None:
        raise OSError("what it built cannot be loaded")
    return library


def _compile(compiler: str, flags: Sequence[str], to: Path) -> None:
    """Run the compiler; an `OSError` has its first error, or says that it took too long."""
    source = SOURCES / f"{to.name.partition('-')[0]}.cpp"
    command = [compiler, *FLAGS, *flags, str(source), "-o", str(to)]
    try:
        made = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            errors="replace",
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"takes more than {BUILD_SECONDS} s") from None
    if made.returncode != 0:
        lines = [line for line in made.stderr.splitlines() if "error" in line]
        raise OSError(lines[0] if lines else f"exit status {made.returncode}")


def _loaded(path: Path) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError:  # of another machine
        return None


def panels(weight: Float[Tensor, "k o i"], line: int) -> Tensor:
    """Return weights in panels of `LANES` outputs, input after input, in bfloat16 pair after pair."""
    (count, outputs, _), together = weight.shape, line // LANES
    width = min(outputs, LANES)
    return weight.reshape(count, outputs // width, width, -1, together).transpose(2, 3).contiguous()


def laid(weight: Float[Tensor, "*k o i"], dtype: torch.dtype) -> Tensor:
    """Return weights as products in `dtype` read them, with whole lines of inputs."""
    line = line_of(dtype)
    if weight.numel() == 0:
        return weight
    filled = F.pad(weight, (0, -weight.shape[-1] % line))
    return panels(filled if filled.ndim == 3 else filled[None], line).to(dtype)


def line_of(dtype: torch.dtype) -> int:
    """Return how many numbers have a line of memory."""
    return LINE_BYTES // dtype.itemsize


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a type, with which functions of the libraries end."""
    return str(dtype).removeprefix("torch.")


def pointer_of(tensor: Tensor | None) -> int | None:
    """Return where the numbers of a tensor begin, for a function of a library."""
    assert tensor is None or tensor.is_contiguous()
    return None if tensor is None else tensor.data_ptr()
