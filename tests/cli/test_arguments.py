"""What is typed, as it is understood."""

import pytest

from diffnca.cli.main import gathered


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
