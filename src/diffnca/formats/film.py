"""Films: animated GIF, WebP and PNG, repeated without end, and MP4 (H.264)."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from diffnca.files import OWN, check_own, check_target, replace_atomically

ANIMATED = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}

FORMATS = (*ANIMATED, ".mp4")

MARK = f"{OWN}film"
"""Text in each film, by which the package knows its own."""

LAST_MILLISECONDS = 2000
"""Duration of the last frame."""

SHOWN_PX = 256
"""A whole factor enlarges smaller images up to this side."""


def check_film(path: Path) -> None:
    """Refuse a path like `check_png`, another ending, and MP4 without PyAV (`ImportError`)."""
    check_target(path, FORMATS)
    check_own(path)
    if path.suffix.lower() == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise ImportError(f"{path}: MP4 needs PyAV: pip install 'diffnca[films]'") from None


def write_film(frames: Sequence[UInt8[np.ndarray, "y x c"]], path: Path, milliseconds: int) -> None:
    """Write a film of one or more frames of equal size, gray or RGB; `path` ends in one of `FORMATS`.

    Each frame lasts `milliseconds`, and the last frame lasts `LAST_MILLISECONDS`.
    """
    factor = max(1, SHOWN_PX // max(frames[0].shape[:2]))
    shown = [frame.repeat(factor, axis=0).repeat(factor, axis=1) for frame in frames]
    suffix = path.suffix.lower()
    with replace_atomically(path) as partial:
        if suffix in ANIMATED:
            _write_animated(shown, partial, ANIMATED[suffix], milliseconds)
        else:
            _write_mp4(shown, partial, milliseconds)


def _write_animated(frames: list[np.ndarray], path: Path, kind: str, milliseconds: int) -> None:
    images = [Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame) for frame in frames]
    durations = [milliseconds] * (len(images) - 1) + [LAST_MILLISECONDS]
    first, *others = images
    text = PngImagePlugin.PngInfo()
    text.add_text(MARK, "")
    marks: dict[str, Any] = {"comment": MARK, "xmp": MARK.encode(), "pnginfo": text}  # each format takes one
    first.save(path, kind, save_all=True, append_images=others, duration=durations, loop=0, **marks)


def _write_mp4(frames: list[np.ndarray], path: Path, milliseconds: int) -> None:
    """Write H.264 that all browsers play: colours at half resolution, even sides (repeat the edge)."""
    import av

    height, width = frames[0].shape[:2]
    last_repeats = max(1, LAST_MILLISECONDS // milliseconds)
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as film:
        film.metadata["comment"] = MARK
        stream = film.add_stream("libx264", rate=Fraction(1000, milliseconds))
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "16"}  # 23 is usual; noise needs a lower number
        for frame in [*frames, *frames[-1:] * (last_repeats - 1)]:
            rgb = np.broadcast_to(frame, (height, width, 3))
            even = np.pad(rgb, [(0, height % 2), (0, width % 2), (0, 0)], mode="edge")
            film.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        film.mux(stream.encode())
