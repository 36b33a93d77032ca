"""Denoising diffusion whose network is a neural cellular automaton: small models, images of any size."""

from __future__ import annotations

__version__ = "0.1.0"
