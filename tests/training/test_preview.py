"""A look at the images of a training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.config.model import with_fields
from diffnca.config.recipes import recipe_named
from diffnca.training.preview import Preview, preview
from diffnca.training.start import candidates

CANOPY = Path(__file__).parents[1] / "data" / "canopy"
CONFIG = with_fields(recipe_named("diff_nca"), {"data.crop": 16, "training.batch": 1, "data.reduce": 0})


@pytest.fixture(scope="module")
def seen(quick_look: None) -> Preview:
    return preview((CANOPY,), CONFIG, strict=False)


def test_a_look_ranks_the_models_that_a_training_can_begin_with(seen: Preview) -> None:
    assert set(seen.errors) == set(candidates())
    assert list(seen.errors.values()) == sorted(seen.errors.values())


def test_a_look_measures_a_speed(seen: Preview) -> None:
    assert 0.01 < seen.crops_per_second < 10_000


def test_the_sheet_of_a_look_holds_crops_of_the_images(seen: Preview, tmp_path: Path) -> None:
    seen.write_sheet(tmp_path / "look.png")
    sheet = np.asarray(Image.open(tmp_path / "look.png"))
    assert sheet.shape == (5 * 18 - 2, 5 * 18 - 2, 3)
    colours = {tuple(pixel) for image in seen.images for pixel in image.reshape(-1, 3)}
    assert {tuple(pixel) for pixel in sheet[:16, :16].reshape(-1, 3)} <= colours
