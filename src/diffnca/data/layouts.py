"""Layouts: label images that say which class stands at each pixel of an image, and their planes.

A layout holds the numbers of classes (0, 1, 2, ...), or the colours of the legend. A mask in black and white
holds the classes 0 and 1. What is transparent is unknown. Planes are stored as uint8, where 255 is all of a
pixel: a plane for each class. All planes are 0 where the class is unknown.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter

from diffnca.config.layout import MOST_CLASSES, LayoutConfig
from diffnca.data.decoding import NEARLY_WHITE, OPAQUE, Decoded, picture_in
from diffnca.data.refusals import UnusableImageError
from diffnca.data.sources import AroundSource, File, listed, stem_of

LAYOUT_SUFFIXES = (".png", ".tif", ".tiff")
"""Kinds of files that keep every number; if one name has several layouts, the first of these is taken."""

UNKNOWN = 255
"""The number of a pixel whose class is unknown."""

BLACK_AND_WHITE = {0, 255}

MOST_SHOWN = 8
"""Largest number of colours that a message names."""

WHITE_RADIUS_PX = 3
"""White pixels that stand alone are no white place."""

Numbers = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class Labelled(AroundSource):
    """An image with its layout: the pixels of both, as channels of one image."""

    image: File
    layout: File
    legend: LayoutConfig

    @property
    def num_bytes(self) -> int:
        """Size of both files."""
        return self.image.num_bytes + self.layout.num_bytes

    def read(self, *, channels: int, reduce: int) -> Decoded:
        """Decode both; the planes follow the channels of the image. Raises `UnusableImageError`."""
        made = self.image.read(channels=channels, reduce=reduce)
        whole = made if reduce == 1 else self.image.read(channels=channels, reduce=1)
        numbers, (height, width) = self._numbers(), whole.pixels.shape[:2]
        if numbers.shape != (height, width):
            raise UnusableImageError(
                f"its layout {self.layout.name} has {numbers.shape[1]}x{numbers.shape[0]} px: must have "
                f"{width}x{height} px, as the image; save it in this size"
            )
        if self.legend.measured is not None:
            is_white = white_in(whole.pixels) & (numbers != UNKNOWN)
            numbers = np.where(is_white, np.uint8(self.legend.measured), numbers)
        planes = reduced(planes_of(numbers, len(self.legend.classes)), reduce)
        return Decoded(np.concatenate([made.pixels, planes], axis=2), made.notes)

    def _numbers(self) -> Numbers:
        try:
            return numbers_in(self.layout.content(), self.legend)
        except UnusableImageError as error:
            raise UnusableImageError(f"its layout {self.layout.name}: {error}") from None


def planes_of(numbers: Numbers, num_classes: int) -> UInt8[np.ndarray, "h w k"]:
    """Return the planes of a layout: 255 where a pixel has the class."""
    planes: np.ndarray = (numbers[..., None] == np.arange(num_classes)).astype(np.uint8) * np.uint8(255)
    return planes


def white_in(pixels: UInt8[np.ndarray, "h w c"]) -> np.ndarray:
    """Return where an image (h, w) is nearly white, on average over the pixels around."""
    smooth = Image.fromarray(pixels.squeeze()).filter(ImageFilter.BoxBlur(WHITE_RADIUS_PX))
    is_white: np.ndarray = np.asarray(smooth).reshape(pixels.shape).min(axis=2) >= NEARLY_WHITE
    return is_white


def reduced(planes: UInt8[np.ndarray, "h w k"], factor: int) -> UInt8[np.ndarray, "y x k"]:
    """Return planes that are smaller by a whole factor: the share of each class in a pixel, rounded."""
    if factor == 1:
        return planes
    height, width = (side // factor for side in planes.shape[:2])
    kept = planes[: height * factor, : width * factor].astype(np.uint32)
    sums = kept.reshape(height, factor, width, factor, -1).sum(axis=(1, 3))
    shares: np.ndarray = (sums + factor**2 // 2) // factor**2
    return shares.astype(np.uint8)


def numbers_in(encoded: bytes, legend: LayoutConfig) -> Numbers:
    """Return the class of each pixel of a label image, `UNKNOWN` where it is transparent.

    Raises:
        UnusableImageError: it is no image, or it holds other values and colours than the legend.
    """
    with _label_image(encoded) as (image, known, values):
        by_value = None if values is None else _of_values(values, known, len(legend.classes))
        by_colour = _of_colours(image, known, legend)
        found = by_value if by_colour is None or (by_value is not None and image.mode != "P") else by_colour
        if found is None:
            raise UnusableImageError(_complaint(image, values, known, legend))
        numbers: Numbers = np.where(known, found, np.uint8(UNKNOWN))
        return numbers


def coloured(numbers: UInt8[np.ndarray, "*shape"], legend: LayoutConfig) -> UInt8[np.ndarray, "*shape 3"]:
    """Return a layout in the colours of its legend, gray where it is unknown."""
    colours = np.full((256, 3), 128, dtype=np.uint8)
    colours[: len(legend.classes)] = legend.colours
    picture: np.ndarray = colours[numbers]
    return picture


def count_classes(files: Iterable[File]) -> int:
    """Return how many classes the numbers of label images need; images that cannot be read are passed over.

    Raises:
        ValueError: an image holds colours, or numbers beyond any legend.
    """
    count = 1
    for file in files:
        try:
            with _label_image(file.content()) as (image, known, values):
                seen = None if values is None else _seen(values, known)
                colours = _colours(image, known) if seen is None else ""
        except UnusableImageError:
            continue
        if seen is None:
            raise ValueError(
                f"{file.name}: holds the colours {colours}, so it needs a legend: give --layout.classes "
                "NAME=#RRGGBB ..."
            )
        most = 1 if 255 in seen and seen <= BLACK_AND_WHITE else max(seen, default=0)
        if most >= MOST_CLASSES:
            raise ValueError(
                f"{file.name}: holds the value {most}: must be the number of a class, at most "
                f"{MOST_CLASSES - 1}, or a colour; give --layout.classes NAME=#RRGGBB ..."
            )
        count = max(count, most + 1)
    return count


def layouts_in(paths: Sequence[Path]) -> list[File]:
    """Return the label images that folders and zip files hold; refuse paths without any."""
    files = [file for file in listed(paths).files if _suffix(file) in LAYOUT_SUFFIXES]
    if not files:
        where, kinds = ", ".join(map(str, paths)), ", ".join(LAYOUT_SUFFIXES)
        raise ValueError(f"{where}: holds no layouts; give a folder of label images ({kinds})")
    return files


class Layouts:
    """The label images of folders and zip files, by the names of the images."""

    def __init__(self, paths: Sequence[Path], legend: LayoutConfig) -> None:
        self.legend, self.where = legend, ", ".join(map(str, paths))
        self.files = layouts_in(paths)
        self.by_path, self.by_stem = dict[str, list[File]](), dict[str, list[File]]()
        for file in sorted(self.files, key=lambda file: LAYOUT_SUFFIXES.index(_suffix(file))):
            self.by_path.setdefault(_path_of(file), []).append(file)
            self.by_stem.setdefault(stem_of(file.name), []).append(file)

    def without_own(self, images: Iterable[File]) -> list[File]:
        """Return the images that are no layouts, as images and layouts may lie in one folder."""
        own = {file.path.resolve() for file in self.files if file.member is None}
        return [image for image in images if image.member is not None or image.path.resolve() not in own]

    def of(self, images: Sequence[File]) -> list[Labelled | UnusableImageError]:
        """Return each image with its layout, or why it has none.

        The layout has the path of the image in its folder, but for the ending; or it alone has its name.
        """
        namesakes = Counter(stem_of(image.name) for image in images)
        return [self._of(image, namesakes[stem_of(image.name)]) for image in images]

    def _of(self, image: File, namesakes: int) -> Labelled | UnusableImageError:
        stem = stem_of(image.name)
        found = self.by_path.get(_path_of(image)) or self.by_stem.get(stem, [])
        if not found:
            return UnusableImageError(f"has no layout in {self.where}; give it one of this name")
        is_alone = namesakes == 1 and len({_path_of(file) for file in found}) == 1
        if _path_of(found[0]) != _path_of(image) and not is_alone:
            return UnusableImageError(
                "shares its name with other images or layouts; put its layout into a folder of its own name"
            )
        return Labelled(image, found[0], self.legend)


def _suffix(file: File) -> str:
    return PurePosixPath(file.name).suffix.lower()


def _path_of(file: File) -> str:
    return str(PurePosixPath(file.name).parent / stem_of(file.name))


@contextmanager
def _label_image(encoded: bytes) -> Iterator[tuple[Image.Image, np.ndarray, Numbers | None]]:
    """Within the block, a label image, where it is not transparent, and its numbers (`None`: colours)."""
    with picture_in(encoded) as picture:
        if picture.is_deep:
            raise UnusableImageError("holds 16-bit samples; save the numbers of the classes with 8 bits")
        yield picture.image, _known(picture.image), _values(picture.image)


def _known(image: Image.Image) -> np.ndarray:
    """Return where an image is not transparent."""
    if image.mode != "RGBA":
        return np.ones((image.height, image.width), dtype=bool)
    known: np.ndarray = np.asarray(image.getchannel("A")) >= OPAQUE // 2
    return known


def _values(image: Image.Image) -> Numbers | None:
    """Return the numbers in a gray image, or those of a palette; `None` if the image has colours."""
    if image.mode in ("1", "P"):
        return np.array(image).astype(np.uint8)
    colours = np.array(image.convert("RGB"))
    seen = colours[_known(image)]
    return colours[..., 0] if (seen == seen[:, :1]).all() else None


def _of_values(values: Numbers, known: np.ndarray, num_classes: int) -> Numbers | None:
    seen = _seen(values, known)
    if seen <= set(range(num_classes)):
        return values
    return (values > 0).astype(np.uint8) if seen <= BLACK_AND_WHITE and num_classes > 1 else None


def _seen(values: Numbers, known: np.ndarray) -> set[int]:
    return {int(value) for value in np.unique(values[known])}


def _of_colours(image: Image.Image, known: np.ndarray, legend: LayoutConfig) -> Numbers | None:
    codes = _codes(np.array(image.convert("RGB")))
    wanted = _codes(np.array(legend.colours, dtype=np.uint8))
    order = np.argsort(wanted)
    places = np.searchsorted(wanted[order], codes).clip(max=len(order) - 1)
    numbers: Numbers = order[places].astype(np.uint8)
    return numbers if (wanted[numbers] == codes)[known].all() else None


def _colours(image: Image.Image, known: np.ndarray) -> str:
    """Return the colours of an image as text, and not more than a message can hold."""
    codes = np.unique(_codes(np.array(image.convert("RGB")))[known]).tolist()
    some = [f"#{code:06x}" for code in codes[:MOST_SHOWN]]
    return ", ".join(some + ["..."] * (len(codes) > MOST_SHOWN))


def _codes(colours: UInt8[np.ndarray, "*shape 3"]) -> np.ndarray:
    """Return each colour as one number."""
    codes: np.ndarray = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return codes


def _complaint(image: Image.Image, values: Numbers | None, known: np.ndarray, legend: LayoutConfig) -> str:
    last = len(legend.classes) - 1
    allowed = f"must be numbers from 0 to {last}, or the colours of {', '.join(legend.classes)}"
    if values is not None:
        return f"holds the value {int(values[known].max())}: {allowed}"
    codes = np.unique(_codes(np.array(image.convert("RGB")))[known])
    other = next(code for code in codes if code not in _codes(np.array(legend.colours, dtype=np.uint8)))
    return f"holds the colour #{other:06x}: {allowed}"
