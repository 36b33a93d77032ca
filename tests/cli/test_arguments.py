"""What is typed, as it is understood."""

import pytest

from diffnca.cli.main import gathered, parse
from diffnca.cli.models import Train


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        ("train --data a b --images 5", "train --data a b --images 5"),
        ("train --data a --data b", "train --data a b"),
        ("train --data a --images 5 --data b c --out d", "train --data a b c --images 5 --out d"),
        ("train --data=a --out d --data=b", "train --data a b --out d"),
        ("sample m --tone -0.5 --seed 1", "sample m --tone -0.5 --seed 1"),
    ],
)
def test_the_values_of_a_repeated_flag_are_all_kept(typed: str, understood: str) -> None:
    assert gathered(typed.split()) == understood.split()


@pytest.mark.parametrize("flag", ["--data.flips", "--data.no-flips", "--layout.style", "--layout.no-style"])
def test_a_choice_of_the_recipe_can_be_said_even_if_it_is_the_default(flag: str) -> None:
    command = parse(["train", "--data", "photos", flag])
    assert isinstance(command, Train)
    chosen = command.config.data.flips if "flips" in flag else command.config.layout.style
    assert chosen is ("no-" not in flag)


@pytest.mark.parametrize("start", ["auto", "none"])
def test_without_another_model_the_images_decide_scale_and_what_is_held_out(start: str) -> None:
    default, typed = (parse(["train", "--data", "photos", *more]) for more in ([], ["--from", start]))
    assert isinstance(default, Train)
    assert isinstance(typed, Train)
    assert (typed.config, default.start) == (default.config, "auto")
    assert (typed.config.data.reduce, typed.config.data.validation) == (0, None)
