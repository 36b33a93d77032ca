"""Which images training does not see: complete images and slides, or a strip of each image."""

from collections import Counter
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from diffnca.data.decoding import Decoded
from diffnca.data.images import ImageSet
from diffnca.data.sources import AroundSource, Source

FEWEST_PICTURES = 10
"""Of fewer pictures, in all or of a label, each would miss too much: `None` then holds out strips."""

USUAL_SHARE = 0.1
STRIP_SHARE = 0.2

Sides = tuple[int, int]

Found = tuple[int, Source, Sides]
"""The number of an image in its set, what is taken of it, and the height and width of that."""


@dataclass(frozen=True)
class Part(AroundSource):
    """A rectangle of an image, as an image of its own; `box` is top, left, height, width in px."""

    image: Source
    box: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        """The name of the image, with rows and columns of the rectangle."""
        top, left, height, width = self.box
        return f"{self.image.name}[{top}:{top + height}, {left}:{left + width}]"

    def read(self, *, channels: int, reduce: int) -> Decoded:
        """Decode the image and cut out the rectangle; raises `UnusableImageError`."""
        pixels, notes = self.image.read(channels=channels, reduce=reduce)
        top, left, height, width = self.box
        return Decoded(pixels[top : top + height, left : left + width].copy(), notes)


def split(images: ImageSet, share: float | None, seed: int, side: int) -> tuple[ImageSet, ImageSet]:
    """Return the images to train on, and the held-out images, which may be none.

    A `share` above 0 holds out at least one complete image or slide. `None` holds out a tenth of the pictures
    if there are ten or more of each label. Of fewer, or of namesakes, it holds out a strip of each image that
    has room for crops of `side` px in both parts.

    Raises:
        ValueError: no image would be left to train on, or two images have one name, and nobody could tell
            later which of them was held out.
    """
    pictures = {source.picture for source in images.sources}
    if share is None and (_of_rarest_label(images) < FEWEST_PICTURES or len(set(images.names)) < len(images)):
        return without_strips(images, side)
    return _without_pictures(images, USUAL_SHARE if share is None else share, seed, pictures)


def _of_rarest_label(images: ImageSet) -> int:
    """Return the number of pictures of the rarest label; without labels, of all pictures."""
    pictures: dict[bytes, set[str]] = {}
    for source, label in zip(images.sources, images.labels, strict=True):
        pictures.setdefault(label.tobytes(), set()).add(source.picture)
    return min(map(len, pictures.values()))


def _without_pictures(
    images: ImageSet, share: float, seed: int, pictures: set[str]
) -> tuple[ImageSet, ImageSet]:
    """Hold out the first pictures in the order of a hash: a few more images hardly change the choice."""
    if not 0.0 <= share < 1.0:
        raise ValueError(f"validation fraction {share}: must lie in [0, 1)")
    count = max(round(len(pictures) * share), int(share > 0))
    if count >= len(pictures):
        raise ValueError(
            f"validation fraction {share} of {len(pictures)} image(s) leaves none to train "
            "on; give more images or a fraction of 0"
        )
    name, namesakes = Counter(images.names).most_common(1)[0]
    if count and namesakes > 1:
        raise ValueError(
            f"{name}: {namesakes} images have this name, so they cannot be told apart when some are held "
            "out; give the folder above them, or hold out none"
        )

    def rank(name: str) -> bytes:
        return sha256(f"{seed}\0{name}".encode("utf-8", "surrogateescape")).digest()

    held_out = set(sorted(pictures, key=rank)[:count])
    sized = list(zip(range(len(images)), images.sources, map(tuple, images.sizes.tolist()), strict=True))
    kept = [each for each in sized if each[1].picture not in held_out]
    return _of(images, kept), _of(images, [each for each in sized if each[1].picture in held_out])


def without_strips(images: ImageSet, side: int) -> tuple[ImageSet, ImageSet]:
    """Hold out the end of the longer side of each image, if it has room for crops of `side` px in both."""
    kept: list[Found] = []
    strips: list[Found] = []
    for index, (source, (height, width)) in enumerate(
        zip(images.sources, images.sizes.tolist(), strict=True)
    ):
        longer = max(height, width)
        strip = max(round(STRIP_SHARE * longer), side)
        first = longer - strip
        if first < 2 * side:
            kept.append((index, source, (height, width)))
            continue
        is_wide = width >= height
        inside = (0, 0, height, first) if is_wide else (0, 0, first, width)
        outside = (0, first, height, strip) if is_wide else (first, 0, strip, width)
        kept.append((index, Part(source, inside), inside[2:]))
        strips.append((index, Part(source, outside), outside[2:]))
    return _of(images, kept), _of(images, strips)


def _of(images: ImageSet, found: list[Found]) -> ImageSet:
    sizes = np.array([size for _, _, size in found], np.int64).reshape(-1, 2)
    rows, sources = [index for index, _, _ in found], tuple(source for _, source, _ in found)
    return replace(
        images, sources=sources, sizes=sizes, labels=images.labels[rows], styles=images.styles[rows]
    )
