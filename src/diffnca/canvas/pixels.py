"""The range, type and colour order of pixels.

Models see float32 numbers in [-1, 1], `c h w`. Files hold unsigned integers from 0 (black) to the largest of
their type, `h w c`. Colours are red, green and blue, then any further channels; gray images have one channel.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor


def to_model(array: Shaped[np.ndarray, "*h_w_c"]) -> Float32[Tensor, "c h w"]:
    """Return the pixels of a file (uint8 or uint16; `h w c`, or `h w` for gray) as a model sees them.

    The range is -1 (black) to 1 (largest of the type); each number is the float32 nearest to its pixel.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(
            f"pixels of type {type(array).__name__}: must be an array of NumPy, as files hold them"
        )
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ValueError(f"pixels of type {array.dtype}: must be uint8 or uint16; convert them with astype")
    if array.ndim not in (2, 3):
        raise ValueError(
            f"pixels of shape {array.shape}: must be (h, w, c), or (h, w) for gray; choose one image"
        )
    largest = np.float32(np.iinfo(array.dtype).max)
    channels_last = array if array.ndim == 3 else array[..., None]
    pixels = np.moveaxis(channels_last, -1, 0).astype(np.float32, order="C")
    return torch.from_numpy((2.0 * pixels - largest) / largest)  # exact but for the division


def to_uint8(images: Float[Tensor, "b c h w"]) -> UInt8[np.ndarray, "b h w c"]:
    """Return the pixels of a model as an 8-bit file holds them.

    -1 becomes 0 and 1 becomes 255; others are rounded to the nearest pixel, halves up, and clamped. Float32
    and narrower types have no rounding error.

    Raises:
        ValueError: the images are no tensor of such numbers, b c h w, or hold a NaN.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images of type {type(images).__name__}: must be a tensor, b c h w")
    if not images.is_floating_point():
        raise ValueError(f"images of {images.dtype}: must hold numbers from -1 to 1; see to_model")
    if images.ndim != 4:
        raise ValueError(f"images of shape {tuple(images.shape)}: must be (b, c, h, w); index one with None")
    pixels = images.detach().cpu()
    num_nan = int(pixels.isnan().sum())
    if num_nan:
        raise ValueError(
            f"pixels hold {num_nan} NaN: must be numbers; the model has diverged, take an earlier one"
        )
    scaled = pixels.clamp(-1.0, 1.0).to(torch.float64) * 127.5  # exact: 24 + 8 bits
    array: np.ndarray = (scaled.floor_() + 128.0).to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return array
