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
    from diffnca.canvas.noise import Noise
    from diffnca.canvas.region import Canvas, Region
    from diffnca.config import recipes
    from diffnca.config.model import Config
    from diffnca.diffusion.denoiser import Denoiser
    from diffnca.models.file import load
    from diffnca.sampling.generate import generate
    from diffnca.sampling.guidance import guided
    from diffnca.sampling.inpaint import extend, inpaint
    from diffnca.sampling.upscale import upscale
    from diffnca.sampling.vary import interpolate, vary

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
    "Canvas": "canvas.region",
    "Config": "config.model",
    "Denoiser": "diffusion.denoiser",
    "Noise": "canvas.noise",
    "Region": "canvas.region",
    "extend": "sampling.inpaint",
    "generate": "sampling.generate",
    "guided": "sampling.guidance",
    "inpaint": "sampling.inpaint",
    "interpolate": "sampling.vary",
    "load": "models.file",
    "upscale": "sampling.upscale",
    "vary": "sampling.vary",
}
_MODULES = {"interop": "models.published", "recipes": "config.recipes"}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use."""
    if name in _MODULES:
        return importlib.import_module(f"diffnca.{_MODULES[name]}")
    if name not in _OWNERS:
        raise AttributeError(f"module 'diffnca' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"diffnca.{_OWNERS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, those not imported yet too."""
    return sorted({*globals(), *__all__})
