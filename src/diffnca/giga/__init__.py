"""Images larger than memory: tiles in any order, on many workers, with restarts, to the same pixels."""

from __future__ import annotations

from diffnca.giga.blended import Blended
from diffnca.giga.crews import Alone, Crew, DaskCluster, Processes
from diffnca.giga.plan import Plan, Rates, default_tile, make_plan
from diffnca.giga.sweeps import sample_tiled
from diffnca.giga.tiles import Job, TileWriter

__all__ = [
    "Alone",
    "Blended",
    "Crew",
    "DaskCluster",
    "Job",
    "Plan",
    "Processes",
    "Rates",
    "TileWriter",
    "default_tile",
    "make_plan",
    "sample_tiled",
]
