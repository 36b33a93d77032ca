"""Denoising diffusion whose network is a neural cellular automaton: small models, images of any size.

    >>> import diffnca
    >>> denoiser = diffnca.load("pathology")
    >>> images = diffnca.generate(denoiser, height=576, width=576, seed=0)  # b c h w, in [-1, 1]

The names below are imported at their first use, so that `import diffnca` and `diffnca --help` need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnca.canvas.noise import Noise as Noise
    from diffnca.canvas.region import Canvas as Canvas
    from diffnca.canvas.region import Region as Region
    from diffnca.config import recipes as recipes
    from diffnca.config.model import Config as Config
    from diffnca.diffusion.denoiser import Denoiser as Denoiser
    from diffnca.models.file import load as load
    from diffnca.models.hub import Pretrained as Pretrained
    from diffnca.sampling.generate import generate as generate
    from diffnca.sampling.generate import world as world
    from diffnca.sampling.guidance import guided as guided
    from diffnca.sampling.inpaint import extend as extend
    from diffnca.sampling.inpaint import inpaint as inpaint
    from diffnca.sampling.upscale import upscale as upscale
    from diffnca.sampling.vary import interpolate as interpolate
    from diffnca.sampling.vary import vary as vary

__version__ = "0.1.0"

_OWNERS = {
    "Canvas": "canvas.region",
    "Config": "config.model",
    "Denoiser": "diffusion.denoiser",
    "Noise": "canvas.noise",
    "Pretrained": "models.hub",
    "Region": "canvas.region",
    "extend": "sampling.inpaint",
    "generate": "sampling.generate",
    "guided": "sampling.guidance",
    "inpaint": "sampling.inpaint",
    "interop": "models.published",
    "interpolate": "sampling.vary",
    "load": "models.file",
    "recipes": "config.recipes",
    "upscale": "sampling.upscale",
    "vary": "sampling.vary",
    "world": "sampling.generate",
}
__all__ = list(_OWNERS)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use; `interop` and `recipes` are modules."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'diffnca' has no attribute {name!r}")
    module = importlib.import_module(f"diffnca.{_OWNERS[name]}")
    value = globals()[name] = getattr(module, name, module)
    return value


def __dir__() -> list[str]:
    """Return all names, those not imported yet too."""
    return sorted({*globals(), *__all__})
