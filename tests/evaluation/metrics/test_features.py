"""The feature network is the known one, and its preprocessing is as stated."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from diffnca.evaluation.metrics.features import (
    EFFICIENTNET_LITE0_SHA256,
    EfficientNetLite0,
    FeatureExtractor,
    ModuleFeatures,
    efficientnet_lite0,
    extract,
)

CANOPY = Path(__file__).parents[2] / "data" / "canopy"


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
    monkeypatch.setattr("diffnca.evaluation.metrics.features.EFFICIENTNET_LITE0_SHA256", "0" * 64)
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


def small_network(bias: float = 0.25) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5))
    nn.init.constant_(network[0].bias, bias)
    return network


def test_a_module_is_a_feature_extractor() -> None:
    extractor = ModuleFeatures("small", small_network())
    assert isinstance(extractor, FeatureExtractor)
    assert extractor.name == "small"


def test_a_module_sees_black_as_minus_1_and_white_as_1() -> None:
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1)
    features = ModuleFeatures("flat", nn.Flatten())(black_and_white)
    assert torch.equal(features, torch.tensor([[-1.0], [1.0]]))


def test_an_output_with_a_height_and_a_width_is_averaged_over_them() -> None:
    network = small_network()
    pooled = nn.Sequential(network, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    features = ModuleFeatures("small", network)(images(4))
    assert features.shape == (4, 5)
    torch.testing.assert_close(features, ModuleFeatures("pooled", pooled)(images(4)))


def test_the_features_of_a_module_do_not_depend_on_the_batch() -> None:
    extractor = ModuleFeatures("small", small_network())  # in training, it would normalise by the batch
    torch.testing.assert_close(extract(extractor, images(5), 2), extract(extractor, images(5), 5))


def test_an_adapted_module_stays_as_it_was() -> None:
    network = small_network()
    ModuleFeatures("small", network)(images(2))
    assert network.training
    assert network[0].weight.requires_grad


def test_training_a_module_further_does_not_change_its_features() -> None:
    network = small_network()
    extractor = ModuleFeatures("small", network)
    before = extractor(images(2))
    nn.init.zeros_(network[0].weight)
    assert torch.equal(extractor(images(2)), before)


def test_the_checksum_of_a_module_is_that_of_its_weights() -> None:
    checksum = ModuleFeatures("small", small_network()).checksum
    assert checksum == ModuleFeatures("other name", small_network()).checksum
    assert len(checksum) == 64


def test_other_weights_of_a_module_have_another_checksum() -> None:
    other_names = nn.Sequential(nn.Identity(), small_network())
    modules = [small_network(), small_network(bias=0.5), small_network().half(), other_names]
    modules.append(small_network().to(torch.bfloat16))
    assert len({ModuleFeatures("small", module).checksum for module in modules}) == 5


def test_an_output_that_is_no_vector_per_image_is_one_clear_line() -> None:
    with pytest.raises(
        ValueError, match=r"^deep makes \(2, 3, 1600\) of 2 images: must be \(images, features\)[^\n]+$"
    ):
        ModuleFeatures("deep", nn.Flatten(2))(images(2))
