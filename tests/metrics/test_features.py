"""The feature network is the known one, and its preprocessing is as stated."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from diffnca.metrics import efficientnet_lite0, extract
from diffnca.metrics.features import EFFICIENTNET_LITE0_SHA256, EfficientNetLite0

CANOPY = Path(__file__).parents[1] / "data" / "canopy"


@pytest.fixture(scope="module")
def extractor() -> EfficientNetLite0:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra eval")
    return efficientnet_lite0()


def images(n: int, channels: int = 3, side_px: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, side_px, side_px), generator=generator, dtype=torch.uint8)


def test_an_image_has_1280_finite_features(extractor: EfficientNetLite0) -> None:
    features = extractor(images(2))
    assert features.shape == (2, 1280)
    assert features.isfinite().all()


def test_the_features_are_those_before_the_classifier(extractor: EfficientNetLite0) -> None:
    x = functional.interpolate(images(2) / 255, (224, 224), mode="bicubic", antialias=True)
    network = extractor.network
    torch.testing.assert_close(
        network._fc(extractor(images(2))), network((x - 0.5) / 0.5), rtol=1e-4, atol=1e-4
    )


def test_the_features_of_an_image_do_not_depend_on_its_batch(extractor: EfficientNetLite0) -> None:
    torch.testing.assert_close(
        extract(extractor, images(5), batch_size=2),
        extract(extractor, images(5), batch_size=5),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_gray_image_has_the_features_of_its_rgb_copy(extractor: EfficientNetLite0) -> None:
    gray = images(1, channels=1)
    assert torch.equal(extractor(gray), extractor(gray.expand(-1, 3, -1, -1).contiguous()))


def test_the_classifier_behind_the_features_takes_canopy_from_the_air_for_a_valley(
    extractor: EfficientNetLite0,
) -> None:
    pixels = torch.from_numpy(np.array(Image.open(CANOPY / "canopy_02.jpg"))).movedim(2, 0)[None]
    logits = extractor.network._fc(extractor(pixels))
    assert logits.argmax() == 979  # `valley, vale` of ImageNet; not so with blue and red exchanged


def test_five_channels_are_one_clear_line(extractor: EfficientNetLite0) -> None:
    with pytest.raises(
        ValueError, match="^efficientnet_lite0 reads images of 1 or 3 channels, not 5: choose"
    ):
        extractor(images(1, channels=5))


def test_the_checksum_is_that_of_the_weights(extractor: EfficientNetLite0) -> None:
    assert extractor.checksum == EFFICIENTNET_LITE0_SHA256


def test_other_weights_are_one_clear_line(
    extractor: EfficientNetLite0, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffnca.metrics.features.EFFICIENTNET_LITE0_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="has the checksum 579344248a93, not 000000000000: install [^\n]+$"):
        efficientnet_lite0()


def test_a_missing_extra_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ValueError, match=r"need the package efficientnet_lite_pytorch: pip install 'diffnca\[eval\]'$"
    ):
        efficientnet_lite0()
