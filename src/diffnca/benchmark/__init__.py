"""How fast a model runs on the machine at hand, next to the matrix products that it cannot do without."""

from __future__ import annotations

from diffnca.benchmark.machine import machine, peak_memory_bytes
from diffnca.benchmark.timing import in_turns

__all__ = ["in_turns", "machine", "peak_memory_bytes"]
