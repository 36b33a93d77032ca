"""The labels of a model: their order, their planes, how a file keeps them, and what is none."""

import pytest

from diffnca.config.json import from_json, to_json
from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, with_fields

LABELS = {"layout.labels": ("moss", "bark"), "model.given_channels": 2}


def test_labels_stand_in_their_order() -> None:
    assert LayoutConfig(labels=("moss", "bark")).labels == ("bark", "moss")


def test_planes_of_labels_follow_those_of_a_map() -> None:
    labels = ("a", "b", "c")
    for layout, count in (
        (LayoutConfig(labels=labels), 0),
        (LayoutConfig(("x", "y"), labels), 2),
        (LayoutConfig(("x", "y"), labels, coarse=4), 6),
        (LayoutConfig(("x", "y"), labels, made=True), 0),
    ):
        assert (layout.num_map_planes(3), layout.num_planes(3)) == (count, count + 3)


def test_a_file_keeps_the_labels() -> None:
    config = with_fields(Config(), LABELS)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("a", "a"), "layout.labels=a, a: must be labels of different names"),
        (("",), "layout.labels=: must be a name of 1 to 40 characters without spaces around it"),
        ((" a",), "must be a name of 1 to 40 characters"),
        (("a\nb",), "must be a name of 1 to 40 characters"),
        (("a" * 41,), "must be a name of 1 to 40 characters"),
        (tuple(map(str, range(33))), "layout.labels=33 labels: must be at most 32 labels"),
    ],
)
def test_what_is_no_label_is_refused(labels: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayoutConfig(labels=labels)


def test_a_network_has_a_plane_for_each_label() -> None:
    with pytest.raises(
        ValueError, match="layout.labels=bark, moss: must be of a model of cells with model.gi"
    ):
        with_fields(Config(), LABELS | {"model.given_channels": 3})
