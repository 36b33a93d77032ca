"""Pairs of an image and its map: which there are, how each is asked for, and what tells them from others."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config
from diffnca.data.layouts import layouts_in
from diffnca.data.outlines import OUTLINE_SUFFIXES
from diffnca.jobs.options import Choices
from diffnca.jobs.request import Request, asked, layout_text
from diffnca.jobs.target import IN_MEMORY_PX
from diffnca.jobs.tasks import New
from diffnca.models.file import find_model, read_card, read_config
from diffnca.sampling.layouts import Layout, read_layout
from diffnca.sampling.maps import sides_of
from diffnca.sampling.styles import read_style

Size = tuple[int, int]


@dataclass(frozen=True)
class GivenMap:
    """A given map: its name in its folder, the size of its images, and what their files say of it."""

    name: str
    path: Path
    size: Size
    text: str


@dataclass(frozen=True)
class Pairs:
    """Pairs that differ by their seeds, and by their maps where maps are given.

    Attributes:
        requests: the request of all pairs of a size, with the layout of one of them.
        maps: the given maps, which the images follow in turn; none if a model makes the maps.
    """

    requests: Mapping[Size, Request]
    maps: tuple[GivenMap, ...] = ()

    @property
    def first(self) -> Request:
        """The request of all pairs, in the size of the first one."""
        return next(iter(self.requests.values()))

    @property
    def count(self) -> int:
        """How many pairs are asked for."""
        return self.first.count

    @property
    def legend(self) -> LayoutConfig:
        """The classes of the maps."""
        layout: LayoutConfig = self.first.opened().config.layout
        return layout

    def map_of(self, index: int) -> GivenMap | None:
        """Return the given map of a pair: the pairs take the maps in turn."""
        return self.maps[index % len(self.maps)] if self.maps else None

    def request(self, index: int) -> Request:
        """Return the request of a pair alone; `diffnca sample` makes its image by its seed, map and maker."""
        given = self.map_of(index)
        if given is None:
            return self.first.image(index)
        one = self.requests[given.size].image(index)
        return _following(one, read_layout(given.path, one.opened().config, given.size))

    def batches(self, indices: Iterable[int], most: int) -> Iterator[list[int]]:
        """Yield indices of pairs that are made together: at most so many, and of one size."""
        by_size = defaultdict[Size | None, list[int]](list)
        for index in indices:
            given = self.map_of(index)
            by_size[None if given is None else given.size].append(index)
        for alike in by_size.values():
            yield from (alike[start : start + most] for start in range(0, len(alike), most))

    def facts(self) -> dict[str, str]:
        """Return what decides the pairs, but for their number, in the words of their files."""
        facts = self.first.written()
        if self.maps:
            digest = sha256("\n".join(each.text for each in self.maps).encode()).hexdigest()[:16]
            facts["layout"] = f"{len(self.maps)} maps {digest}"
        if len(self.requests) > 1:
            facts.pop("grown", None)
            facts |= {"height": "of each map", "width": "of each map"}
        if self.first.guide is None:
            facts.setdefault("guidance", f"{self.first.opened().config.sampling.guidance:g}")
        facts.pop("count", None)
        return facts

    def licences(self) -> dict[str, str]:
        """Return the licences of the models that make the pairs, by what each makes."""
        weights = {"model": self.first.model, "maker": self.first.maker}
        cards = {kind: read_card(find_model(each.name)) for kind, each in weights.items() if each is not None}
        return {kind: str(card.get("licence", "not stated")) for kind, card in cards.items()}


def pairs_of(
    model: str,
    choices: Choices,
    size: tuple[int | None, int | None] = (None, None),
    layout: Path | None = None,
    maker: str | None = None,
    label: str | None = None,
    like: Path | None = None,
    obey: float = 1.0,
) -> Pairs:
    """Return the pairs of a model that follows maps, or that makes a map with each image.

    `layout` is a folder of label images or of drawings in GeoJSON, or one of these files. `maker` is a model
    that makes maps, or what they leave free; `None` is the model's own choice. The size is that of new
    images, as for `asked`. `like` is a picture whose style the images have.

    Raises:
        ValueError: the model knows no maps, or a choice is not allowed.
    """
    config = read_config(find_model(model))
    _check_maps(model, config, layout, maker)
    new = New(label=label, like=None if like is None else read_style(like, config), obey=obey)
    if layout is None:
        request = asked(model, new, choices, size, maker=maker)
        return Pairs(_of_allowed_size({(request.canvas.height, request.canvas.width): request}))
    firsts, maps, is_free = dict[Size, Layout](), list[GivenMap](), False
    for name, path in _maps_in(layout).items():
        planes = read_layout(path, config, size)
        own = sides_of(planes.map.size, *size)
        firsts.setdefault(own, planes)
        maps.append(GivenMap(name, path, own, layout_text(planes)))
        is_free = is_free or planes.leaves_free
    if is_free:  # one model makes all pairs, also those of complete maps
        maker = maker or config.layout.maker
    requests = {
        own: asked(model, replace(new, layout=planes), choices, own, maker=maker)
        for own, planes in firsts.items()
    }
    return Pairs(_of_allowed_size(requests), tuple(maps))


def _following(request: Request, layout: Layout) -> Request:
    assert isinstance(request.task, New)
    return replace(request, task=replace(request.task, layout=layout))


def _maps_in(path: Path) -> dict[str, Path]:
    """Return maps by their names; of a folder, its drawings in GeoJSON, or its label images."""
    if path.is_dir():
        drawings = sorted(path.glob("[!.]*.geojson"))
    else:
        drawings = [path] if path.suffix.lower() in OUTLINE_SUFFIXES else []
    return {each.name: each for each in drawings} or {each.name: each.path for each in layouts_in([path])}


def _check_maps(model: str, config: Config, layout: Path | None, maker: str | None) -> None:
    """Refuse a model that knows no maps, and one that follows maps if nobody gives or makes them."""
    if not config.layout.classes:
        raise ValueError(
            f"model {model}: must follow or make maps, but was trained without layouts; train one with "
            "diffnca train --layouts"
        )
    if not config.layout.made and layout is None and maker is None and config.layout.maker is None:
        raise ValueError(
            f"--layout: must be given for {model}, which follows maps: a folder of maps; or --maker, a model "
            "that makes maps"
        )


def _of_allowed_size(requests: Mapping[Size, Request]) -> Mapping[Size, Request]:
    """Return requests; refuse sizes that are not made in memory."""
    for height, width in requests:
        if height * width > IN_MEMORY_PX:
            raise ValueError(
                f"{height}x{width} px: must be at most {IN_MEMORY_PX:,} pixels for a pair, which is made in "
                "memory; give a smaller --height and --width"
            )
    return requests
