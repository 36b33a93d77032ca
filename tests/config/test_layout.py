"""The legend of layouts: its names, its colours, and how a file keeps it."""

from dataclasses import replace

import pytest

from diffnca.config.json import from_json, to_json
from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, with_fields


def test_a_class_has_the_name_and_the_colour_that_it_is_given() -> None:
    legend = LayoutConfig(("gland=#8250A5",))
    assert (legend.names, legend.colours) == (("gland",), ((0x82, 0x50, 0xA5),))


def test_classes_without_a_colour_get_different_ones_that_stay() -> None:
    legend = LayoutConfig(tuple(map(str, range(32))))
    assert len(set(legend.colours)) == 32
    assert replace(legend) == legend


def test_there_is_a_plane_for_each_class_and_one_for_what_is_known() -> None:
    assert [LayoutConfig(classes).num_planes(3) for classes in ((), ("a",), ("a", "b"))] == [0, 1, 2]


def test_the_class_white_is_the_measured_one() -> None:
    assert [LayoutConfig(classes).measured for classes in (("a", "b"), ("a", "white"))] == [None, 1]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("a", "a"), "layout.classes=a=.*: must be classes of different names"),
        (("a=#000000", "b=#000000"), "must be classes of different colours"),
        (("a=red",), r"layout.classes=a=red: must be NAME or NAME=#RRGGBB, such as gland=#8250a5"),
        (("",), "must be NAME or"),
        (tuple(map(str, range(33))), "layout.classes=33 classes: must be at most 32 classes"),
    ],
)
def test_another_legend_is_refused(classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayoutConfig(classes)


def test_a_file_keeps_the_legend() -> None:
    config = with_fields(Config(), {"layout.classes": ("a", "b"), "model.given_channels": 2})
    assert from_json(to_json(config)) == config


def test_a_configuration_without_a_legend_is_written_as_before_there_were_any() -> None:
    assert "layout" not in to_json(Config())


def test_a_network_has_the_planes_of_the_legend() -> None:
    with pytest.raises(
        ValueError, match="layout.classes=a, b: must be of a model of cells with model.given_"
    ):
        with_fields(Config(), {"layout.classes": ("a", "b"), "model.given_channels": 3})


def test_a_map_that_is_made_has_no_coarse_colours() -> None:
    with pytest.raises(ValueError, match="layout.coarse=8: must be 0 with layout.made"):
        LayoutConfig(("a", "b"), coarse=8, made=True)


def test_colours_have_planes_beside_classes_only() -> None:
    assert [LayoutConfig(classes, coarse=8).num_planes(3) for classes in ((), ("a", "b"))] == [0, 6]
