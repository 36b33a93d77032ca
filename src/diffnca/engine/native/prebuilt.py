"""The libraries that a wheel may hold, for machines without a compiler: one for each set of instructions.

`hatch_build.py` runs this file to build them, so it imports nothing of the package.
"""

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FLAGS = ("-std=c++20", "-O3", "-ffp-contract=off", "-fPIC", "-shared")
"""The source says where a product and a sum are one operation. Else they could be for some cells only."""

FOLDER = Path(__file__).parent / "prebuilt"

AVX2 = frozenset("avx2 fma f16c bmi1 bmi2 movbe abm".split())
AVX512 = AVX2 | frozenset("avx512f avx512bw avx512cd avx512dq avx512vl avx512_bf16".split())


class Instructions(NamedTuple):
    """A set of instructions: its name, the flags of the compiler, and what Linux calls its parts."""

    name: str
    flags: tuple[str, ...]
    parts: frozenset[str]


WITH_BFLOAT16 = ("-march=x86-64-v4", "-mavx512bf16")
SETS = {
    "x86_64": (
        Instructions("amx", (*WITH_BFLOAT16, "-mamx-tile", "-mamx-bf16"), AVX512 | {"amx_tile", "amx_bf16"}),
        Instructions("avx512", WITH_BFLOAT16, AVX512),
        Instructions("avx2", ("-march=x86-64-v3",), AVX2),
    ),
    "aarch64": (Instructions("neon", ("-march=armv8-a",), frozenset()),),
}
"""By architecture, the fastest first."""


def libraries(name: str, parts: set[str], folder: Path = FOLDER) -> Iterator[Path]:
    """Yield where libraries for a processor with these parts would be, the fastest first."""
    for each in SETS.get(platform.machine(), ()):
        if each.parts <= parts:
            yield folder / f"{name}-{each.name}.so"
