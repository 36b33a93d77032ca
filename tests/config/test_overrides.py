"""Fields of a configuration by their dotted names."""

import pytest

from diffnca.config.model import with_fields
from diffnca.config.recipes import recipe_named


def test_a_field_is_changed_and_no_other() -> None:
    config = recipe_named("fourier_diff_nca")
    changed = with_fields(config, {"model.fourier.window": 16, "data.crop": 32})
    assert (changed.model.fourier.window, changed.data.crop) == (16, 32)
    assert with_fields(changed, {"model.fourier.window": 8, "data.crop": 64}) == config


def test_fields_that_only_go_together_are_changed_at_once() -> None:
    changes = {"model.family": "diff_nca", "model.fourier": None}
    assert with_fields(recipe_named("fourier_diff_nca"), changes).model.fourier is None


@pytest.mark.parametrize("name", ["model.fourier.side", "side", "name.length"])
def test_an_unknown_field_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="there is no such field in"):
        with_fields(recipe_named("fourier_diff_nca"), {name: 1})
