"""The network of FID has the layers, the preprocessing and the file that published numbers are made with."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffnca.evaluation.metrics.features import FeatureExtractor, extract
from diffnca.evaluation.metrics.inception import (
    INCEPTION_ADDRESS,
    INCEPTION_SHA256,
    InceptionFid,
    inception,
    inception_network,
)
from diffnca.models.tensorflow import resized_as_tensorflow

MODULE = "diffnca.evaluation.metrics.inception"


@pytest.fixture(scope="module")
def extractor() -> InceptionFid:
    """Return the network with random weights that neither vanish nor explode."""
    torch.manual_seed(0)
    network = inception_network()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return InceptionFid(network, "0" * 64)


@pytest.fixture
def weights(extractor: InceptionFid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of those weights, which passes for the known one."""
    path = tmp_path / "weights.pth"
    torch.save(extractor.network.state_dict(), path)
    monkeypatch.setattr(f"{MODULE}.INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def images(n: int, channels: int = 3, height_px: int = 32, width_px: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height_px, width_px), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def features(extractor: InceptionFid) -> Tensor:
    """The features of two images that are looked at together."""
    return extractor(images(2))


def plain_resize(image: Tensor, height: int, width: int) -> Tensor:
    """Return the interpolation of `image`, "h w", pixel by pixel in float64."""
    h, w = image.shape
    resized = torch.empty(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            y, x = i * h / height, j * w / width
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = y - top, x - left
            resized[i, j] = (1 - a) * ((1 - b) * image[top, left] + b * image[top, right]) + a * (
                (1 - b) * image[bottom, left] + b * image[bottom, right]
            )
    return resized


def test_the_network_has_the_published_number_of_parameters(extractor: InceptionFid) -> None:
    # torchvision states 27,161,264 for the same layers with 1000 classes and a second classifier
    second_classifier = (768 * 128 + 2 * 128) + (128 * 768 * 25 + 2 * 768) + (768 * 1000 + 1000)
    without_classifiers = 27_161_264 - second_classifier - (2048 * 1000 + 1000)
    parameters = sum(weight.numel() for weight in extractor.network.parameters())
    assert parameters == without_classifiers + (2048 * 1008 + 1008) == 23_850_960


def test_the_state_has_the_entries_of_the_weights_file(extractor: InceptionFid) -> None:
    state = extractor.network.state_dict()
    # 94 convolutions with a weight and the five tensors of their normalisation, and the classifier
    assert len(state) == 94 * 6 + 2
    assert state["Conv2d_2b_3x3.conv.weight"].shape == (64, 32, 3, 3)
    assert state["Mixed_5b.branch5x5_2.conv.weight"].shape == (64, 48, 5, 5)
    assert state["Mixed_6a.branch3x3.conv.weight"].shape == (384, 288, 3, 3)
    assert state["Mixed_6c.branch7x7dbl_2.conv.weight"].shape == (160, 160, 7, 1)
    assert state["Mixed_7a.branch7x7x3_4.bn.running_var"].shape == (192,)
    assert state["Mixed_7c.branch3x3dbl_3b.conv.weight"].shape == (384, 384, 3, 1)
    assert state["Mixed_7c.branch_pool.bn.num_batches_tracked"].shape == ()
    assert state["fc.weight"].shape == (1008, 2048)


def test_the_blocks_have_the_published_sizes(extractor: InceptionFid) -> None:
    sizes, x = {}, torch.zeros(1, 3, 299, 299)
    with torch.inference_mode():
        for name, layer in extractor.network.named_children():
            x = layer(x)
            sizes[name] = tuple(x.shape[1:])
    assert (sizes["MaxPool_1"], sizes["MaxPool_2"]) == ((64, 73, 73), (192, 35, 35))
    assert (sizes["Mixed_5b"], sizes["Mixed_5d"]) == ((256, 35, 35), (288, 35, 35))
    assert sizes["Mixed_6a"] == sizes["Mixed_6e"] == (768, 17, 17)
    assert (sizes["Mixed_7a"], sizes["Mixed_7c"]) == ((1280, 8, 8), (2048, 8, 8))
    assert sizes["fc"] == (1008,)


@pytest.mark.parametrize("name", ["Mixed_5b", "Mixed_5d", "Mixed_6b", "Mixed_6e", "Mixed_7b"])
def test_the_average_pooling_does_not_count_the_padding(extractor: InceptionFid, name: str) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = extractor.network.get_submodule(name).pool(x)
    assert pooled[0, 0, 0, 0] == (0 + 1 + 4 + 5) / 4
    assert pooled[0, 0, 1, 1] == x[0, 0, :3, :3].mean()


def test_the_last_block_pools_the_largest(extractor: InceptionFid) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = extractor.network.get_submodule("Mixed_7c").pool(x)
    assert torch.equal(pooled[0, 0, 0], torch.tensor([5.0, 6.0, 7.0, 7.0]))


def test_every_normalisation_adds_a_thousandth_to_the_variance(extractor: InceptionFid) -> None:
    normalisations = [layer for layer in extractor.network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {layer.eps for layer in normalisations} == {0.001}


@pytest.mark.parametrize(("height", "width"), [(5, 13), (13, 5), (7, 9), (20, 31)])
def test_resizing_is_the_plain_formula(height: int, width: int) -> None:
    image = torch.rand(1, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    resized = resized_as_tensorflow(image, height, width)[0, 0].double()
    torch.testing.assert_close(resized, plain_resize(image[0, 0], height, width), rtol=0, atol=1e-5)


def test_an_image_has_2048_finite_features_that_are_not_all_alike(features: Tensor) -> None:
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert features.isfinite().all()
    assert (features[0] - features[1]).std() > 1e-3 * features.std() > 0


def test_the_features_are_those_before_the_classifier_of_pixels_around_0(
    extractor: InceptionFid, features: Tensor
) -> None:
    x = (resized_as_tensorflow(images(2)[:1].float(), 299, 299) - 128) / 128
    network = extractor.network
    with torch.inference_mode():
        torch.testing.assert_close(network.fc(features[:1]), network(x), rtol=1e-4, atol=1e-4)


def test_the_features_of_an_image_do_not_depend_on_its_batch(
    extractor: InceptionFid, features: Tensor
) -> None:
    alone = extract(extractor, images(2), batch_size=1)
    torch.testing.assert_close(alone, features, rtol=1e-4, atol=1e-5 * features.max().item())


def test_a_gray_image_has_the_features_of_its_rgb_copy(extractor: InceptionFid) -> None:
    gray = images(1, channels=1)
    assert torch.equal(extractor(gray), extractor(gray.expand(-1, 3, -1, -1).contiguous()))


def test_five_channels_are_one_clear_line(extractor: InceptionFid) -> None:
    with pytest.raises(ValueError, match="^inception_fid reads images of 1 or 3 channels, not 5: choose"):
        extractor(images(1, channels=5))


def test_it_is_a_feature_extractor(extractor: InceptionFid) -> None:
    assert isinstance(extractor, FeatureExtractor)


def test_a_file_of_weights_is_read_back(features: Tensor, weights: Path) -> None:
    loaded = inception(weights)
    assert loaded.checksum == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert torch.equal(loaded(images(2)), features)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"none\.pth is no file: give the path of https:[^\n]+ as --weights$"
    ):
        inception(tmp_path / "none.pth")


def test_other_weights_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(
        ValueError, match=r"has the checksum d9298a10d1b0, not 6726825d0af5: replace it by https:[^\n]+$"
    ):
        inception(tmp_path / "other.pth")


def test_the_address_names_the_first_digits_of_the_checksum() -> None:
    assert INCEPTION_ADDRESS.endswith(f"-{INCEPTION_SHA256[:8]}.pth")


def test_without_a_file_the_weights_are_downloaded_once(
    weights: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.INCEPTION_ADDRESS", weights.as_uri())
    checksum = inception().checksum
    weights.unlink()
    assert inception().checksum == checksum
    assert [path.name for path in (home / ".cache" / "diffnca").iterdir()] == ["weights.pth"]


def test_a_download_of_something_else_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.html").write_bytes(b"other")
    monkeypatch.setattr(f"{MODULE}.INCEPTION_ADDRESS", (tmp_path / "page.html").as_uri())
    with pytest.raises(
        ValueError, match=r"came with the checksum d9298a10d1b0, not 6726825d0af5: repeat [^\n]+--weights$"
    ):
        inception()
    assert list((home / ".cache" / "diffnca").iterdir()) == []


def test_an_address_out_of_reach_is_one_clear_line(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{MODULE}.INCEPTION_ADDRESS", (tmp_path / "away.pth").as_uri())
    with pytest.raises(
        ValueError, match=r"^file:[^\n]+away\.pth cannot be downloaded \([^\n]+\): fetch it by hand[^\n]+$"
    ):
        inception()
    assert list((home / ".cache" / "diffnca").iterdir()) == []
