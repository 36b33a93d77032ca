"""Noise levels, the denoiser, and the reverse steps from noise to image."""
