"""What a model is told of an image: the legend of maps of what stands where, and labels and style of all."""

import colorsys
import math
import re
from dataclasses import dataclass

from diffnca.errors import number, require, require_within

MOST_CLASSES = 32
"""A map with more numbers is taken for one that counts objects."""

MOST_LABELS = 32

LONGEST_NAME = 40

LARGEST_COARSE = 64

MEASURED = "white"
"""A class of this name is measured: it holds the pixels of an image that are white or nearly white."""

STYLE_OF_COLOUR = ("red", "green", "blue", "fine", "coarse", "hues")
STYLE_OF_GRAY = ("gray", "fine", "coarse")
"""Numbers that are the style of a picture; `diffnca.data.styles` says what they are."""

TURN = 0.618_034
"""The golden ratio: any number of hues that are this far apart are all different."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LayoutConfig:
    """The maps, the labels and the style that a model follows, and how training shows them.

    Attributes:
        classes: name and colour of each class in the order of their numbers (0, 1, 2, ...), such as
            `gland=#8250a5`. A name alone gets a colour. The class `white` is measured from the images.
        labels: names of the labels, one of which says what a complete image shows; always in their order.
        dropped: share of the crops that training shows without their map, and as large shares without label
            and without style.
        coarse: with maps that also have colours, how many times smaller these are than the image; 0 is for
            maps of classes alone. Training measures the colours, and shows them for half of the crops.
        made: whether the model makes a map with each image, instead of following a given one.
        maker: the bundled model that makes the map where none is given.
        style: whether the model follows the style of a picture: its colours and its texture in a few numbers.
        styles: the styles of some training images, all their numbers in a row; training measures them.
    """

    classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    dropped: float = number(0.15, within=(0, 1))
    coarse: int = number(0, within=(0, LARGEST_COARSE))
    made: bool = False
    maker: str | None = None
    style: bool = False
    styles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_within(self, "layout.")
        count, name = len(self.classes), "layout.classes"
        require(count <= MOST_CLASSES, name, f"{count} classes", f"at most {MOST_CLASSES} classes")
        classes = tuple(_coloured(text, index) for index, text in enumerate(self.classes))
        object.__setattr__(self, "classes", classes)
        for kind, values in (("names", self.names), ("colours", self.colours)):
            require(len(set(values)) == count, name, ", ".join(classes), f"classes of different {kind}")
        self._check_labels()
        require(self.coarse != 1, "layout.coarse", self.coarse, "0, or 2 and more")
        is_given = not (self.made and self.coarse)
        require(is_given, "layout.coarse", self.coarse, "0 with layout.made")
        require(not (self.made and self.style), "layout.style", self.style, "False with layout.made")
        require(self.style or not self.styles, "layout.style", False, "True for a model that knows styles")
        require(all(map(math.isfinite, self.styles)), "layout.styles", self.styles, "finite numbers")

    def _check_labels(self) -> None:
        labels, name = tuple(sorted(self.labels)), "layout.labels"
        require(len(labels) <= MOST_LABELS, name, f"{len(labels)} labels", f"at most {MOST_LABELS} labels")
        for text in labels:
            allowed = f"a name of 1 to {LONGEST_NAME} characters without spaces around it"
            require(_is_name(text), name, text[:60], allowed)
        require(len(set(labels)) == len(labels), name, ", ".join(labels), "labels of different names")
        object.__setattr__(self, "labels", labels)

    @property
    def is_used(self) -> bool:
        """Whether a model follows or makes anything: it knows classes, labels or styles."""
        return bool(self.classes or self.labels or self.style)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each class."""
        return tuple(text.partition("=")[0] for text in self.classes)

    @property
    def colours(self) -> tuple[Colour, ...]:
        """Red, green and blue of each class, from 0 to 255."""
        numbers = (bytes.fromhex(text.partition("=#")[2]) for text in self.classes)
        return tuple((red, green, blue) for red, green, blue in numbers)

    @property
    def told(self) -> str:
        """Names and colours of all classes, as a user types them."""
        return " ".join(f"'{text}'" if " " in text else text for text in self.classes)

    def num_planes(self, image_channels: int) -> int:
        """Return the number of given planes: of a map, one for each label, one for each number of a style."""
        labels = len(self.labels)
        return self.num_map_planes(image_channels) + labels + len(self.style_numbers(image_channels))

    def style_numbers(self, image_channels: int) -> tuple[str, ...]:
        """Return the names of the numbers of a style; none for a model that follows no style."""
        own = STYLE_OF_GRAY if image_channels == 1 else STYLE_OF_COLOUR
        return own if self.style else ()

    def num_map_planes(self, image_channels: int) -> int:
        """Return the number of planes of a map: one for each class; one for each colour, and their trust."""
        if self.made or not self.classes:
            return 0
        return len(self.classes) + (image_channels + 1 if self.coarse else 0)

    @property
    def num_made(self) -> int:
        """Number of the planes that the model makes after the colours of an image."""
        return len(self.classes) if self.made else 0

    @property
    def measured(self) -> int | None:
        """Number of the class that is measured; `None` without such a class."""
        return self.names.index(MEASURED) if MEASURED in self.names else None


def _coloured(text: str, index: int) -> str:
    """Return name and colour of a class; a class without a colour gets that of its number."""
    name, equals, colour = text.partition("=")
    is_class = _is_name(name) and (not equals or re.fullmatch(r"#[0-9a-fA-F]{6}", colour) is not None)
    require(is_class, "layout.classes", text[:60], "NAME or NAME=#RRGGBB, such as gland=#8250a5")
    return f"{name}={colour.lower() if equals else _colour_of(name, index)}"


def _is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and text.isprintable() and text == text.strip()


def _colour_of(name: str, index: int) -> str:
    red, green, blue = (
        (1.0, 1.0, 1.0) if name == MEASURED else colorsys.hsv_to_rgb(index * TURN % 1, 0.6, 0.8)
    )
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
