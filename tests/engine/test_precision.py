"""What the processor is fast at, against what the operating system says of it."""

import platform
from pathlib import Path

import pytest
import torch

from diffnca.engine.machine import fast_dtype

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPU_INFO.exists(), reason="needs Linux on x86-64")
def test_bfloat16_is_chosen_just_where_the_processor_has_instructions_for_it() -> None:
    flags = set(CPU_INFO.read_text().split())
    has_instructions = bool(flags & {"amx_bf16", "avx512_bf16"})
    assert (fast_dtype(torch.device("cpu")) == torch.bfloat16) == has_instructions
