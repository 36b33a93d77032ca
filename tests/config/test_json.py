"""JSON of configurations: every wrong shape is one line that names the file."""

import json
from typing import Any

import pytest

from diffnca.config.json import from_json, to_json
from diffnca.config.recipes import recipe_named

WRONG = [None, True, -1, 1.5, float("nan"), float("inf"), 10**400, "text", [], [[]], {}, {"a": 1}]


def fields_of(values: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the paths of all fields of a JSON object."""
    inner = {name: value for name, value in values.items() if isinstance(value, dict)}
    below = [(name, *rest) for name, value in inner.items() for rest in fields_of(value)]
    return [(name,) for name in values] + below


def changed(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**values, first: changed(values[first], tuple(rest), value) if rest else value}


def refusal(values: dict[str, Any]) -> str | None:
    """Return the message with which values are refused; `None` if they are a configuration."""
    try:
        from_json(json.dumps(values), "a.safetensors")
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "1", "NaN", "[" * 100_000, "\0", '"text"', "{}", '{"format_version": null}'],
)
def test_a_text_that_is_no_configuration_is_one_line_that_names_the_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a\.safetensors: ") as error:
        from_json(text, "a.safetensors")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


# all recipes have the same fields, but for those of their models
@pytest.mark.parametrize(
    ("recipe", "of_model_alone"), [("fourier_diff_nca", False), ("unet_1m", True), ("vnca", True)]
)
def test_any_value_in_any_field_is_read_or_is_one_line_that_names_the_file(
    recipe: str, of_model_alone: bool
) -> None:
    values = json.loads(to_json(recipe_named(recipe)))
    paths = [path for path in fields_of(values) if path[0] == "model" or not of_model_alone]
    refusals = [refusal(changed(values, path, value)) for path in paths for value in WRONG]
    messages = [message for message in refusals if message is not None]
    assert len(messages) > len(refusals) / 2
    assert all(message.startswith("a.safetensors: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("recipe", ["diff_nca", "fourier_diff_nca", "unet_1m", "vnca"])
def test_every_number_has_an_upper_bound(recipe: str) -> None:
    values = json.loads(to_json(recipe_named(recipe)))
    without = []
    for path in fields_of(values):
        value: Any = values
        for name in path:
            value = value[name]
        if type(value) in (int, float) and refusal(changed(values, path, type(value)(10**30))) is None:
            without.append(path)
    assert without == []
