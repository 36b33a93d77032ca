"""Canvases and regions, pixels, and all random numbers of sampling."""
