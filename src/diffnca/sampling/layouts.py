"""Layouts of new images: a map says which class stands where, and the model makes the image of it.

A model that was trained with layouts, and at times without them, guides itself to follow a map [1]:

    obeying = without + obey * (with - without)

Both estimates see the style of the image, if the model knows styles: it says which image, not how closely.

[1] Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffnca.canvas.region import Canvas, Region
from diffnca.config.layout import LayoutConfig
from diffnca.config.model import LARGEST_GUIDANCE, Config
from diffnca.data.layouts import UNKNOWN, numbers_in, planes_of
from diffnca.data.outlines import OUTLINE_SUFFIXES, outlines_in
from diffnca.data.refusals import UnusableImageError
from diffnca.data.sources import content_of
from diffnca.diffusion.denoiser import ImageDenoiser, Query
from diffnca.errors import require
from diffnca.sampling.arguments import number
from diffnca.sampling.guidance import AroundDenoiser
from diffnca.sampling.labels import Told, check_label
from diffnca.sampling.maps import Outlines, Raster


@dataclass(frozen=True, eq=False)
class Layout:
    """What stands where on any canvas, as given planes.

    Attributes:
        map: the class of each place.
        num_classes: number of classes of the legend.
    """

    map: Raster | Outlines
    num_classes: int

    @property
    def leaves_free(self) -> bool:
        """Whether the class of some place is unknown."""
        return self.map.leaves_free

    def __call__(self, region: Region) -> Float[Tensor, "b k h w"]:
        """Return the planes on `region`."""
        planes = np.stack([planes_of(each, self.num_classes) for each in self.map.on(region).numpy()])
        return torch.from_numpy(planes).movedim(-1, 1) / 255.0


def check_proportions(size: tuple[int, int], canvas: Canvas) -> None:
    """Refuse a map with other proportions than a canvas; a side may be rounded to whole pixels."""
    height, width = size
    if abs(height * canvas.width - width * canvas.height) > max(canvas.height, canvas.width):
        raise ValueError(
            f"layout of {height}x{width} px: must have the proportions of the whole result, "
            f"{canvas.height}x{canvas.width} px; draw all of it"
        )


def layout_of(
    numbers: Shaped[Tensor, "*b y x"] | None,
    obey: float,
    config: Config,
    images: int,
    has_label: bool = False,
) -> Layout | None:
    """Return the layout of class numbers, -1 where a class is unknown; `None` if there are no numbers.

    Raises:
        ValueError: the numbers are no classes of the model, or no maps for so many images; or `obey` has no
            layout, and no label either.
    """
    check_obey(obey, has_layout=has_label or numbers is not None)
    if numbers is None:
        return None
    legend = legend_of(config)
    check_kept(config, obey, has_label)
    is_map = isinstance(numbers, Tensor) and numbers.ndim in (2, 3) and 0 not in numbers.shape
    if not is_map or numbers.is_floating_point() or numbers.is_complex():
        raise ValueError("layout: must be a tensor of whole numbers, (height, width) or (b, height, width)")
    signed, last = numbers.cpu().long().reshape(-1, *numbers.shape[-2:]), len(legend.classes) - 1
    worst = int(signed.max() if signed.min() >= -1 else signed.min())
    allowed = f"from 0 to {last} ({', '.join(legend.names)}), or -1 where unknown"
    require(-1 <= worst <= last, "layout", worst, allowed)
    if len(signed) not in (1, images):
        raise ValueError(f"layout of {len(signed)} maps: must be one map, or one for each of {images} images")
    return Layout(Raster(signed.where(signed >= 0, UNKNOWN).to(torch.uint8)), last + 1)


def read_layout(path: Path, config: Config, size: tuple[int | None, int | None] = (None, None)) -> Layout:
    """Return the layout in a label image or a GeoJSON file; refuse what does not fit the model's legend.

    `size` is the height and width of the image, as polygons have none; a side of `None` holds them all.
    """
    legend = legend_of(config)
    try:
        encoded = content_of(path)
        if path.suffix.lower() in OUTLINE_SUFFIXES:
            return Layout(Outlines.of(outlines_in(encoded, legend), *size), len(legend.classes))
        numbers = numbers_in(encoded, legend)
    except UnusableImageError as error:
        raise ValueError(f"{path}: {error}") from None
    return Layout(Raster(torch.from_numpy(numbers.copy())[None]), len(legend.classes))


def shown_layout(planes: Float[Tensor, "b k h w"]) -> Raster:
    """Return the map whose classes have the largest share in given planes."""
    numbers = torch.where(planes.sum(dim=1) >= 0.5, planes.argmax(dim=1), UNKNOWN)
    return Raster(numbers.to(torch.uint8))


def legend_of(config: Config) -> LayoutConfig:
    """Return the legend of a model; refuse a model that knows no layouts."""
    if not config.layout.classes:
        raise ValueError(
            "layout: must be left out for a model that was trained without layouts; or "
            "draw the image in its colours, and make variations of the drawing (diffnca vary)"
        )
    return config.layout


@dataclass(frozen=True)
class Obeying(AroundDenoiser):
    """A denoiser that its own estimate without a layout guides; each call evaluates both.

    Attributes:
        denoiser: the model.
        obey: how closely it follows the layout, from 0 to 10: 0 not at all, 1 as it was trained.
    """

    denoiser: ImageDenoiser
    obey: float

    def __post_init__(self) -> None:
        check_obey(self.obey, has_layout=True)

    def context(self, query: Query) -> Tensor | None:
        """Return the context with the layout, and after it the context without."""
        followed = self.denoiser.context(query)
        if followed is None or query.given is None:
            return followed
        free = self.denoiser.context(replace(query, given=self._free(query.given)))
        assert free is not None
        return torch.cat([followed, free], dim=1)

    def estimate(self, query: Query) -> Float[Tensor, "b n h w"]:
        """Return the estimate of the clean image, led to the layout."""
        if query.given is None:
            return self.denoiser.estimate(query)
        contexts: Any = (None, None) if query.context is None else query.context.chunk(2, dim=1)
        followed = self.denoiser.estimate(replace(query, context=contexts[0]))
        given = self._free(query.given)
        free = self.denoiser.estimate(replace(query, context=contexts[1], given=given))
        return self.obey * followed - (self.obey - 1.0) * free

    def _free(self, given: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"] | None:
        """Return the planes without layout and label: those of the style, which are the last, and zeros."""
        layout, colours = self.config.layout, self.config.model.image_channels
        own = len(layout.style_numbers(colours))
        if own == 0 or given.shape[1] < layout.num_planes(colours):
            return None
        return torch.cat([torch.zeros_like(given[:, :-own]), given[:, -own:]], dim=1)


def led(
    model: Any,
    numbers: Shaped[Tensor, "*b y x"] | None,
    label: Told | Sequence[Told] | None,
    obey: float,
    images: int,
) -> tuple[Any, Layout | None]:
    """Return a model that follows class numbers and labels as closely as asked, and their layout."""
    obey = number("obey", obey)
    check_label(label, images, model.config)
    if numbers is not None:
        check_edited(model.config)
    layout = layout_of(numbers, obey, model.config, images, has_label=label is not None)
    return model if layout is None and label is None else obeying(model, obey), layout


def obeying(model: ImageDenoiser, obey: float) -> ImageDenoiser:
    """Return a model that follows layouts as closely as asked; 1 is the model itself."""
    return model if obey == 1.0 else Obeying(model, obey)


def check_edited(config: Config) -> None:
    """Refuse a layout for an edit or a film of a model that makes maps: its maps are edited too."""
    if config.layout.made:
        raise ValueError("layout: must be left out for edits by a model that makes maps")


def check_kept(config: Config, obey: float, has_label: bool) -> None:
    """Refuse to lead a model that makes maps to a layout: it keeps all known classes of the layout."""
    if config.layout.made and not has_label:
        require(obey == 1.0, "obey", obey, "1 for a model that makes maps: it keeps all of a layout")


def check_obey(obey: Any, has_layout: bool) -> None:
    """Refuse a number out of range, and one that leads to no layout; a label counts as one."""
    obey = number("obey", obey)
    require(0.0 <= obey <= LARGEST_GUIDANCE, "obey", obey, f"from 0 to {LARGEST_GUIDANCE}")
    require(has_layout or obey == 1.0, "obey", obey, "1 without layout and label; give one")
