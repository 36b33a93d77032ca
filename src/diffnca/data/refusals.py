"""How pictures are refused: one error, whose message gives the reason and the fix, but no name."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from diffnca.files import LFS_POINTER

LARGEST_IMAGE_PX = 178_956_970
"""Larger images are refused (a small file may unpack to any size). It is Pillow's own limit."""
LARGEST_FILE_BYTES = 2 << 30
TOO_LARGE = (
    f"more than the {LARGEST_IMAGE_PX:,} pixels that are decoded; make it smaller, or cut it into parts; a "
    "tiled pyramid can be trained on as a slide, with a scale in microns per pixel"
)


class UnusableImageError(ValueError):
    """A picture that cannot be used; callers that know its name put the name before the message."""


@contextmanager
def refusing(complaint: str, passed_on: type[Exception] = UnusableImageError) -> Iterator[None]:
    """Within the block, errors of decoders, which may be of any type, become `UnusableImageError`."""
    try:
        yield
    except (UnusableImageError, passed_on):
        raise
    except Image.DecompressionBombError:
        raise UnusableImageError(f"gigantic: {TOO_LARGE}") from None
    except MemoryError:
        raise UnusableImageError(f"{complaint}: there is not enough memory to decode it") from None
    except Exception as error:
        raise UnusableImageError(f"{complaint}: {first_line(error)}") from None


def require_decodable_size(width: int, height: int) -> None:
    """Refuse pictures of too many pixels."""
    if width * height > LARGEST_IMAGE_PX:
        raise UnusableImageError(f"gigantic: {width}x{height} px, {TOO_LARGE}")


def require_reasonable_bytes(num_bytes: int) -> None:
    """Refuse files of too many bytes."""
    if num_bytes > LARGEST_FILE_BYTES:
        raise UnusableImageError(
            f"gigantic: {num_bytes:,} bytes; at most {LARGEST_FILE_BYTES:,} are read; cut it into parts"
        )


def require_content(head: bytes) -> None:
    """Refuse files that stand for a picture, by their first bytes."""
    if head.startswith(LFS_POINTER):
        raise UnusableImageError("is a Git LFS pointer, not the picture; fetch it with `git lfs pull`")
    if head[:100].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UnusableImageError("is a web page, not a picture; download the picture itself")


def first_line(error: BaseException) -> str:
    """Return the complaint of a decoder in one line."""
    text = repr(error) if isinstance(error, KeyError) else str(error)  # its text is the key alone
    line = next(iter(text.strip().splitlines()), type(error).__name__)
    return re.sub(r" <_io\.BytesIO object at 0x[0-9a-f]+>", "", line).replace("image file image", "image")
