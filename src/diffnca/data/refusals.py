"""How pictures are refused: one error, whose message is the reason and the fix, without the name."""

from __future__ import annotations

import re

LARGEST_IMAGE_PX = 178_956_970
"""Larger images are refused (a small file may unpack to any size). It is Pillow's own limit."""
LARGEST_FILE_BYTES = 2 << 30


class UnusableImageError(ValueError):
    """A picture that cannot be used; whoever knows its name puts the name before the message."""


def require_decodable_size(width: int, height: int) -> None:
    """Refuse more pixels than are decoded."""
    if width * height > LARGEST_IMAGE_PX:
        raise too_large(f"{width}x{height} px, more")


def too_large(size: str) -> UnusableImageError:
    """Return the refusal of a picture of this size."""
    return UnusableImageError(
        f"gigantic: {size} than the {LARGEST_IMAGE_PX:,} pixels that are decoded; "
        "cut it into parts, or read a tiled pyramid as a slide with microns_per_px"
    )


def require_reasonable_bytes(num_bytes: int) -> None:
    """Refuse files that are larger than is read."""
    if num_bytes > LARGEST_FILE_BYTES:
        raise UnusableImageError(
            f"gigantic: {num_bytes:,} bytes; at most {LARGEST_FILE_BYTES:,} are read; cut it into parts"
        )


def require_content(head: bytes) -> None:
    """Refuse what stands for a picture and is none, by the first bytes of the file."""
    if head.startswith(b"version https://git-lfs"):
        raise UnusableImageError("is a Git LFS pointer, not the picture; fetch it with `git lfs pull`")
    if head[:100].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UnusableImageError("is a web page, not a picture; download the picture itself")


def first_line(error: BaseException) -> str:
    """Return what a decoder complains of, in one line."""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", line).replace("image file image", "image")
