"""However a network is run, the image is the same."""

import inspect

import pytest
import torch

from diffnca import generate, load
from diffnca.engine import prepare
from diffnca.pixels import to_uint8

MOST_LEVELS = 4
"""By which pixels of 8 bits may differ, after all steps, between bfloat16 and float32."""

SHARE_ABOVE_ONE = 0.012
"""Of values that may differ by more than one level; measured with this seed: 0.0045 and 0.0077."""


@pytest.mark.parametrize("name", ["aerial", "pathology"])
def test_the_default_gives_the_image_that_the_network_as_trained_gives(name: str) -> None:
    images = [
        to_uint8(generate(load(name), height=96, width=96, seed=3, engine=engine)).astype(int)
        for engine in ("auto", "eager")
    ]
    difference = abs(images[0] - images[1])
    assert difference.max() <= MOST_LEVELS
    assert (difference > 1).mean() <= SHARE_ABOVE_ONE


def test_an_unknown_engine_is_refused() -> None:
    unchecked = inspect.unwrap(prepare)  # as for users, whose types nobody checks
    with pytest.raises(ValueError, match="engine=quick: must be one of auto, eager, fused"):
        unchecked(torch.nn.Identity(), "cpu", engine="quick")
