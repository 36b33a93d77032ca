"""Outlines: polygons of classes in GeoJSON, as QuPath and other tools export annotations.

Coordinates are pixels, (x, y) from the upper left corner. A polygon may have holes. Its class is the name of
its classification, or its own name, and is a class of the legend; capital letters do not matter. The name
`unknown` leaves a place free.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from diffnca.canvas.region import MAX_SIDE_PX
from diffnca.config.layout import LayoutConfig
from diffnca.data.layouts import UNKNOWN
from diffnca.data.refusals import UnusableImageError

OUTLINE_SUFFIXES = (".geojson", ".json")

RINGS = "must be lists of 3 or more points [x, y] in pixels"


@dataclass(frozen=True, eq=False)
class Outline:
    """A polygon of one class.

    Attributes:
        number: the number of the class.
        edges: x and y of the upper end, then of the lower end, of each edge of the polygon and its holes.
    """

    number: int
    edges: Float64[np.ndarray, "n 4"]

    @cached_property
    def box(self) -> Float64[np.ndarray, "4"]:
        """The smallest and largest x, then the smallest and largest y."""
        x, y = self.edges[:, 0::2], self.edges[:, 1::2]
        return np.array([x.min(), x.max(), y.min(), y.max()])

    def covers(self, y: Float64[np.ndarray, " h"], x: Float64[np.ndarray, " w"]) -> Bool[np.ndarray, "h w"]:
        """Return which points of a grid, given by growing coordinates, lie in the polygon.

        A point lies inside if an odd number of edges is on its left. Two polygons with a common edge share
        no point, and leave none out.
        """
        upper_x, upper_y, lower_x, lower_y = self.edges.T
        first, end = np.searchsorted(y, upper_y), np.searchsorted(y, lower_y)
        counts = end - first
        edge = np.repeat(np.arange(len(counts)), counts)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - end, counts)
        share = (y[row] - upper_y[edge]) / (lower_y[edge] - upper_y[edge])
        column = np.searchsorted(x, upper_x[edge] + share * (lower_x[edge] - upper_x[edge]))
        crossed = np.zeros((len(y), len(x) + 1), dtype=np.uint8)
        np.add.at(crossed, (row, column), 1)
        inside: np.ndarray = np.cumsum(crossed, axis=1, dtype=np.uint8)[:, :-1] % 2 == 1
        return inside


def outlines_in(encoded: bytes, legend: LayoutConfig) -> tuple[Outline, ...]:
    """Return the polygons of a GeoJSON file; later ones lie on top.

    Raises:
        UnusableImageError: it is no GeoJSON, or a feature is no polygon of a class of the legend.
    """
    try:
        found = json.loads(encoded)
    except (ValueError, RecursionError):
        raise UnusableImageError("is no JSON; export the polygons as GeoJSON") from None
    features = found.get("features", [found]) if isinstance(found, dict) else found
    if not isinstance(features, list) or not features:
        raise UnusableImageError("holds no features; export the polygons as GeoJSON")
    outlines: list[Outline] = []
    for count, feature in enumerate(features, start=1):
        try:
            outlines += _outlines(feature, legend)
        except UnusableImageError as error:
            raise UnusableImageError(f"feature {count} {error}") from None
    return tuple(outlines)


def _outlines(feature: Any, legend: LayoutConfig) -> list[Outline]:
    geometry, properties = (_record_in(feature, key) for key in ("geometry", "properties"))
    kind, polygons = geometry.get("type", "nothing with a geometry"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise UnusableImageError(f"is {kind}: must be a Polygon or MultiPolygon; draw areas")
    number = _number(properties, legend)
    parts = [polygons] if kind == "Polygon" else polygons
    if not isinstance(parts, list) or not all(isinstance(rings, list) and rings for rings in parts):
        raise UnusableImageError(f"has other coordinates than a {kind}: {RINGS}")
    return [Outline(number, np.concatenate([_edges(ring) for ring in rings])) for rings in parts]


def _record_in(feature: Any, key: str) -> dict[str, Any]:
    found = feature.get(key) if isinstance(feature, dict) else None
    return found if isinstance(found, dict) else {}


def _number(properties: dict[str, Any], legend: LayoutConfig) -> int:
    """Return the number of the class of a feature."""
    numbers = {"unknown": UNKNOWN, **{name.casefold(): index for index, name in enumerate(legend.names)}}
    found = properties.get("classification") or properties.get("name")
    if isinstance(found, dict):
        found = found.get("name") or ": ".join(map(str, found.get("names") or ()))
    if isinstance(found, str) and found.strip().casefold() in numbers:
        return numbers[found.strip().casefold()]
    has = f"is of the class {found!r:.60}" if found else "has no class"
    raise UnusableImageError(f"{has}: must be one of {', '.join(legend.names)}, or unknown")


def _edges(ring: Any) -> Float64[np.ndarray, "n 4"]:
    """Return the edges of a closed line through points."""
    if not isinstance(ring, list) or len(ring) < 3 or not all(map(_is_point, ring)):
        raise UnusableImageError(f"has coordinates that are no rings of points: {RINGS}")
    points = np.array([point[:2] for point in ring], dtype=np.float64)
    others = np.roll(points, -1, axis=0)
    is_upper = points[:, 1:] < others[:, 1:]
    ends = np.where(is_upper, points, others), np.where(is_upper, others, points)
    return np.concatenate(ends, axis=1)


def _is_point(point: Any) -> bool:
    """Return whether a value is a list of x and y, in pixels of any canvas."""
    if not isinstance(point, list) or len(point) < 2:
        return False
    return all(type(each) in (int, float) and abs(each) <= MAX_SIDE_PX for each in point[:2])
