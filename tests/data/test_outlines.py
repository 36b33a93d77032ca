"""Outlines: which points a polygon covers, which class it has, and what is refused."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from diffnca.config.layout import LayoutConfig
from diffnca.data.layouts import UNKNOWN
from diffnca.data.outlines import outlines_in

LEGEND = LayoutConfig(("stroma", "Gland", "white"))
SQUARE = [[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]
HOLE = [[3, 2], [3, 3], [5, 3], [5, 2], [3, 2]]


def feature(coordinates: Any = (SQUARE,), kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    properties = properties or {"classification": {"name": "gland", "color": [200, 0, 0]}}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def encoded(content: Any) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def covered(*coordinates: Any, kind: str = "Polygon") -> np.ndarray:
    """Return how many polygons cover the middle of each pixel of a 6x8 canvas."""
    outlines = outlines_in(encoded([feature(list(coordinates), kind)]), LEGEND)
    y, x = np.arange(6) + 0.5, np.arange(8) + 0.5
    return sum(outline.covers(y, x).astype(int) for outline in outlines)


def test_a_polygon_covers_the_pixels_whose_middles_it_holds() -> None:
    expected = np.zeros((6, 8), dtype=int)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(covered(SQUARE), expected)


def test_a_polygon_does_not_cover_its_holes() -> None:
    expected = np.zeros((6, 8), dtype=int)
    expected[1:4, 2:6] = 1
    expected[2, 3:5] = 0
    np.testing.assert_array_equal(covered(SQUARE, HOLE), expected)


def test_a_multipolygon_covers_what_its_polygons_cover() -> None:
    other = [[x, y + 3] for x, y in SQUARE]
    both = covered([SQUARE, HOLE], [other], kind="MultiPolygon")
    np.testing.assert_array_equal(both, covered(SQUARE, HOLE) + covered(other))


def test_a_ring_may_be_open_and_turn_either_way() -> None:
    np.testing.assert_array_equal(covered(SQUARE[:-1][::-1]), covered(SQUARE))


def test_a_slanted_polygon_covers_the_points_on_its_side_of_the_line() -> None:
    triangle = [[0.3, 0.1], [7.9, 0.1], [0.3, 5.9]]
    y, x = np.arange(6)[:, None] + 0.5, np.arange(8) + 0.5
    expected = (x - 0.3) / 7.6 + (y - 0.1) / 5.8 < 1.0
    np.testing.assert_array_equal(covered(triangle), expected & (x >= 0.3))


def test_polygons_with_common_edges_cover_each_point_once() -> None:
    """A fan of triangles around a point, whose edges pass through middles of pixels."""
    corners, middle = [[0, 0], [8, 0], [8, 6], [0, 6], [0, 0]], [3.5, 2.5]
    fan = [[[a, b, middle]] for a, b in pairwise(corners)]
    np.testing.assert_array_equal(covered(*fan, kind="MultiPolygon"), np.ones((6, 8)))


@pytest.mark.parametrize(
    ("properties", "number"),
    [
        ({"classification": {"name": "GLAND"}, "name": "stroma"}, 1),
        ({"classification": {"names": ["White"]}}, 2),
        ({"classification": " white"}, 2),
        ({"name": "Stroma"}, 0),
        ({"name": "unknown"}, UNKNOWN),
    ],
)
def test_the_class_is_that_of_the_classification_or_of_the_name(
    properties: dict[str, Any], number: int
) -> None:
    (outline,) = outlines_in(encoded([feature(**properties)]), LEGEND)
    assert outline.number == number


@pytest.mark.parametrize(
    "wrapped",
    [lambda one: [one], lambda one: one, lambda one: {"type": "FeatureCollection", "features": [one]}],
)
def test_features_come_in_a_collection_in_a_list_or_alone(wrapped: Any) -> None:
    assert len(outlines_in(encoded(wrapped(feature())), LEGEND)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG", "^is no JSON; export the polygons as GeoJSON$"),
        (b"[" * 100_000, "^is no JSON"),
        ([], "^holds no features; export the polygons as GeoJSON$"),
        ({"features": 3}, "^holds no features"),
        ([3], "^feature 1 is nothing with a geometry: must be a Polygon or MultiPolygon; draw areas$"),
        ([feature(), feature(kind="LineString")], "^feature 2 is LineString: must be a Polygon"),
        (
            [feature(name="Tumor")],
            "^feature 1 is of the class 'Tumor': must be one of stroma, Gland, white, or ",
        ),
        (
            [feature(isLocked=True)],
            "^feature 1 has no class: must be one of stroma, Gland, white, or unk",
        ),
        ([feature(SQUARE)], "^feature 1 has coordinates that are no rings of points: must be lists of 3 or "),
        ([feature([[["1", "2"], [3, 4], [5, 6]]])], "^feature 1 has coordinates that are no rings"),
        ([feature([[[1, 2], [3, 4], [5, float("nan")]]])], "^feature 1 has coordinates that are no rings"),
        ([feature([[[1, 2], [3, 4], [5, 10**400]]])], "^feature 1 has coordinates that are no rings"),
        ([feature([SQUARE[:2]])], "^feature 1 has coordinates that are no rings"),
        ([feature([])], "^feature 1 has other coordinates than a Polygon: must be lists of 3 or more points"),
        ([feature([SQUARE], "MultiPolygon")], "^feature 1 has coordinates that are no rings"),
        ([feature(None, "MultiPolygon")], "^feature 1 has other coordinates than a MultiPolygon"),
    ],
)
def test_what_holds_no_polygons_of_the_legend_is_refused_in_one_line(content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outlines_in(encoded(content), LEGEND)
