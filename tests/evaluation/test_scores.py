"""An evaluation says all that its numbers depend on, and numbers of different protocols do not meet."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffnca.evaluation.metrics.faces import FaceLandmarks, face_landmarks
from diffnca.evaluation.metrics.features import ModuleFeatures
from diffnca.evaluation.scores import Evaluation, Protocol, as_table, evaluate, require_one_protocol
from diffnca.evaluation.selections import Selection


def noise(n: int, seed: int, side: int = 8) -> Selection:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return Selection(images, torch.arange(n))


class FourNumbers(torch.nn.Module):
    """The brightness of the quarters of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1)


class TwoNumbers(torch.nn.Module):
    """The brightness of the halves of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), (1, 2)).flatten(1)


QUARTERS, HALVES = ModuleFeatures("quarters", FourNumbers()), ModuleFeatures("halves", TwoNumbers())


def test_an_evaluation_names_its_protocol() -> None:
    result = evaluate(
        noise(20, 0), noise(30, 1), [QUARTERS], protocol=Protocol("published", "first", stored="JPEG")
    )
    protocol = result.protocol
    assert (protocol.name, protocol.split, protocol.stored) == ("published", "first", "JPEG")
    assert (protocol.height, protocol.width) == (8, 8)
    assert (result.first.score.n, result.first.score.n_reference) == (20, 30)
    assert (result.first.score.features, result.first.score.preprocessing) == ("quarters", "[-1, 1]")


def test_memorisation_is_reported_where_training_images_are_known() -> None:
    generated, reference = noise(20, 0), noise(120, 1)
    assert evaluate(generated, reference, [QUARTERS]).memorisation is None
    found = evaluate(generated, reference, [QUARTERS], training=generated).memorisation
    assert found is not None
    assert found.copied == 1.0 and found.p_value < 1e-6


def test_features_are_kept_in_the_cache(tmp_path: Path) -> None:
    first = evaluate(noise(20, 0), noise(30, 1), [QUARTERS], cache=tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert evaluate(noise(20, 0), noise(30, 1), [QUARTERS], cache=tmp_path) == first


def of_pictures(selection: Selection, num_pictures: int) -> Selection:
    """Return images as crops of so many pictures."""
    return Selection(selection.images, torch.arange(len(selection)) % num_pictures)


def one() -> Evaluation:
    return evaluate(noise(20, 0), noise(30, 1), [QUARTERS])


def test_numbers_of_one_protocol_may_meet() -> None:
    other = evaluate(noise(20, 7), noise(30, 1), [QUARTERS])
    require_one_protocol([one(), other])


@pytest.mark.parametrize(
    "other",
    [
        evaluate(noise(21, 0), noise(30, 1), [QUARTERS]),
        evaluate(noise(20, 0), noise(30, 2), [QUARTERS]),
        evaluate(of_pictures(noise(20, 0), 1), noise(30, 1), [QUARTERS]),
        evaluate(noise(20, 0), of_pictures(noise(30, 1), 10), [QUARTERS]),
        evaluate(noise(20, 0), noise(30, 1), [ModuleFeatures("other", FourNumbers())]),
        evaluate(noise(20, 0), noise(30, 1), [QUARTERS], protocol=Protocol(stored="JPEG")),
        evaluate(noise(20, 0), noise(30, 1), [QUARTERS], protocol=Protocol(split="held out")),
        evaluate(noise(20, 0), noise(30, 1), [QUARTERS, HALVES]),
    ],
    ids=[
        "another n",
        "another reference",
        "one generated picture",
        "crops of fewer pictures",
        "other features",
        "stored otherwise",
        "another split",
        "one network more",
    ],
)
def test_numbers_of_different_protocols_may_not(other: Evaluation) -> None:
    with pytest.raises(ValueError, match="are of different protocols: their numbers do not compare"):
        require_one_protocol([one(), one(), other])


def test_what_was_made_does_not_make_a_protocol() -> None:
    require_one_protocol([one(), replace(one(), made={"seed": "3"})])


def test_each_network_says_what_it_says_alone() -> None:
    both = evaluate(noise(20, 0), noise(30, 1), [QUARTERS, HALVES])
    alone = [evaluate(noise(20, 0), noise(30, 1), [each]) for each in (QUARTERS, HALVES)]
    assert both.judgements == tuple(each.first for each in alone)


def test_the_first_network_answers_for_memorisation() -> None:
    generated, reference = noise(20, 0), noise(120, 1)
    both = evaluate(generated, reference, [QUARTERS, HALVES], training=noise(50, 2))
    assert both.memorisation == evaluate(generated, reference, [QUARTERS], training=noise(50, 2)).memorisation


def test_a_table_has_a_column_for_each_network() -> None:
    lines = as_table(evaluate(noise(20, 0), noise(30, 1), [QUARTERS, HALVES])).splitlines()
    assert lines[0].split() == ["features", "quarters", "halves"]
    assert [lines[2].count("±"), lines[4].count(", "), lines[5].count(", ")] == [2, 3, 3]


def test_landmarks_also_say_how_far_out_the_faces_are() -> None:
    result = evaluate(noise(8, 0, 16), noise(200, 1, 16), [QUARTERS, face_landmarks()])
    assert result.first.faces is None
    shapes = result.judgements[1].faces
    assert shapes is not None
    assert shapes.num_real == 100
    assert "shapes of faces" in as_table(result)


def test_a_table_says_that_too_few_real_faces_tell_nothing_of_shapes() -> None:
    result = evaluate(noise(8, 0, 16), noise(20, 1, 16), [face_landmarks()])
    assert result.first.score.features == FaceLandmarks.name
    assert "unknown: it takes 200 real faces" in as_table(result)
