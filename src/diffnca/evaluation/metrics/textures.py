"""Statistics of textures: power at each scale, colours, steps at seams; float64, of pixels in [0, 1]."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

MIN_SIDE_PX = 4

ROUNDING_POWER = 1 / (12 * 255**2)
"""Variance of the rounding to 8 bits; a smaller power counts as this power."""

_IMAGES_AT_A_TIME = 64


def radial_spectrum(images: UInt8[Tensor, "n c h w"]) -> Float64[Tensor, " k"]:
    """Return the mean power of the brightness on rings of 1, 2, ... cycles per smaller side (4 px or more).

    The mean of each image is subtracted. A Hann window hides the jump between opposite edges. White noise of
    variance v has the power v on every ring.
    """
    height, width = images.shape[2:]
    side = min(height, width)
    if side < MIN_SIDE_PX:
        raise ValueError(f"images of {height}x{width} px: a spectrum needs {MIN_SIDE_PX} px or more a side")
    window = torch.outer(*(torch.hann_window(n, False, dtype=torch.float64) for n in (height, width)))
    power = torch.zeros(height, width, dtype=torch.float64)
    for part in images.split(_IMAGES_AT_A_TIME):
        brightness = part.double().mean(1) / 255
        centred = brightness - brightness.mean((1, 2), keepdim=True)
        power += torch.fft.fft2(centred * window).abs().square().sum(0)
    y, x = torch.fft.fftfreq(height).double(), torch.fft.fftfreq(width).double()
    ring = (torch.hypot(y[:, None], x) * side).round().long().flatten()
    sums = torch.zeros(int(ring.max()) + 1, dtype=torch.float64).index_add_(0, ring, power.flatten())
    means = sums / ring.bincount() / (len(images) * window.square().sum())
    return means[1 : side // 2 + 1]


def spectrum_error_db(generated: UInt8[Tensor, "n c h w"], reference: UInt8[Tensor, "m c h w"]) -> float:
    """Return the RMS difference of the radial spectra in decibels: 0 if equal, 3 for twice the power."""
    a, b = (radial_spectrum(images).clamp(min=ROUNDING_POWER) for images in (generated, reference))
    return float((10 * (a / b).log10()).square().mean().sqrt())


def colour_moments(images: UInt8[Tensor, "n c h w"]) -> tuple[Float64[Tensor, " c"], Float64[Tensor, "c c"]]:
    """Return mean and covariance of the colours of all pixels."""
    channels = images.shape[1]
    total = torch.zeros(channels, dtype=torch.float64)
    products = torch.zeros(channels, channels, dtype=torch.float64)
    for part in images.split(_IMAGES_AT_A_TIME):
        pixels = part.double().movedim(1, 0).flatten(1) / 255
        total += pixels.sum(1)
        products += pixels @ pixels.T
    count = images.numel() // channels
    mean = total / count
    return mean, products / count - torch.outer(mean, mean)


def colour_error(generated: UInt8[Tensor, "n c h w"], reference: UInt8[Tensor, "m c h w"]) -> float:
    """Return the 2-Wasserstein distance of Gaussians fitted to the colours, in levels of 8 bits."""
    mean_a, covariance_a = colour_moments(generated)
    mean_b, covariance_b = colour_moments(reference)
    root = _root(covariance_a)
    overlap = _root(root @ covariance_b @ root).trace()
    squared = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * overlap
    return 255 * float(squared.clamp(min=0).sqrt())


def seam_ratio(pictures: Iterable[UInt8[np.ndarray, "h w c"]], every_px: int) -> float:
    """Return the mean step across lines `every_px` apart, on both axes, over the mean step elsewhere.

    A ratio of 1 means no seam between tiles. Give whole pictures, because a crop shifts the lines.
    """
    at_seams, elsewhere = [], []
    for picture in pictures:
        check_seams(every_px, (picture.shape[0], picture.shape[1]))
        for axis in (0, 1):
            steps = np.abs(np.diff(picture.astype(np.float64), axis=axis)).mean((1 - axis, 2))
            is_seam = np.arange(1, len(steps) + 1) % every_px == 0
            at_seams.append(steps[is_seam])
            elsewhere.append(steps[~is_seam])
    return float(np.concatenate(at_seams).mean() / np.concatenate(elsewhere).mean())


def check_seams(every_px: int, size: tuple[int, int]) -> None:
    """Refuse a distance of lines if no line, or nothing else, lies within the image."""
    largest = max(size) - 1
    if not 2 <= every_px <= largest:
        raise ValueError(f"seams every {every_px} px: must be from 2 to {largest} px apart, within the image")


def _root(matrix: Float64[Tensor, "c c"]) -> Float64[Tensor, "c c"]:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors * values.clamp(min=0).sqrt() @ vectors.T
    return root
