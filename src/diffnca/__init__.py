"""Denoising diffusion whose network is a neural cellular automaton: small models, images of any size.

    >>> import diffnca
    >>> denoiser = diffnca.load("pathology")
    >>> images = diffnca.generate(denoiser, height=576, width=576, seed=0)  # b c h w, in [-1, 1]

The names below are imported at their first use, so that `import diffnca` and `diffnca --help` need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnca import interop, recipes
    from diffnca.config import Config
    from diffnca.diffusion.denoiser import Denoiser
    from diffnca.geometry import Canvas, Region
    from diffnca.noise import Noise
    from diffnca.tasks import extend, generate, guided, inpaint, interpolate, upscale, vary
    from diffnca.training.checkpoint import load

__version__ = "0.1.0"

__all__ = [
    "Canvas",
    "Config",
    "Denoiser",
    "Noise",
    "Region",
    "extend",
    "generate",
    "guided",
    "inpaint",
    "interop",
    "interpolate",
    "load",
    "recipes",
    "upscale",
    "vary",
]

_OWNERS = {
    "Canvas": "geometry",
    "Config": "config",
    "Denoiser": "diffusion.denoiser",
    "Noise": "noise",
    "Region": "geometry",
    "extend": "tasks",
    "generate": "tasks",
    "guided": "tasks",
    "inpaint": "tasks",
    "interpolate": "tasks",
    "load": "training.checkpoint",
    "upscale": "tasks",
    "vary": "tasks",
}
_MODULES = ("interop", "recipes")


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name in _MODULES:
        return importlib.import_module(f"diffnca.{name}")
    if name not in _OWNERS:
        raise AttributeError(f"module 'diffnca' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"diffnca.{_OWNERS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, those not imported yet too."""
    return sorted({*globals(), *__all__})
