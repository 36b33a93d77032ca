"""What the processor is fast at, against what the operating system says of it."""

import platform
from pathlib import Path

import pytest
import torch

from diffnca.engine import machine as precision
from diffnca.engine.machine import fast_dtype, has_triton

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPU_INFO.exists(), reason="needs Linux on x86-64")
def test_bfloat16_is_chosen_just_where_the_processor_has_instructions_for_it() -> None:
    flags = set(CPU_INFO.read_text().split())
    has_instructions = bool(flags & {"amx_bf16", "avx512_bf16"})
    assert (fast_dtype(torch.device("cpu")) == torch.bfloat16) == has_instructions


@pytest.mark.parametrize(("version", "is_enough"), [("3.4.0", False), ("3.7.1", True), ("3.10.0+git", True)])
def test_an_old_triton_is_not_used(version: str, is_enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "version", lambda name: version)
    assert has_triton() is is_enough
