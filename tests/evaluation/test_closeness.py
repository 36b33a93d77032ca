"""How close a new model comes to held-out crops."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffnca.data import ImageSet, open_images
from diffnca.evaluation import closeness as measured
from diffnca.evaluation.closeness import closeness
from diffnca.models.file import find_model


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    folder = tmp_path_factory.mktemp("noise")
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (128, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return open_images([folder])


def test_crops_of_the_training_images_are_nearer_than_samples_of_another_material(
    noise: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "NUM_CROPS", 24)
    monkeypatch.setattr(measured, "NUM_SAMPLES", 3)
    monkeypatch.setattr(measured, "SAMPLE_PX", 96)
    found = closeness(find_model("pathology-4step"), noise, noise, lambda *_: None)
    assert found is not None
    assert abs(found.seen.kid_x1000) < 20 < found.samples.kid_x1000


def test_too_few_held_out_crops_are_not_measured(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    images = open_images([tmp_path])
    assert closeness(find_model("pathology-4step"), images, images) is None
