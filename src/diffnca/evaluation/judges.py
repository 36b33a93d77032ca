"""The networks that look at images, by the names of the command line (`options.Judge`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffnca.engine.machine import device_named
from diffnca.evaluation.metrics.faces import face_descriptor, face_landmarks
from diffnca.evaluation.metrics.features import FeatureExtractor, efficientnet_lite0
from diffnca.evaluation.metrics.inception import inception, inception_nsfwjs
from diffnca.evaluation.options import JUDGES_WITH_A_FILE, Judge


def judges_named(names: Sequence[Judge], weights: Sequence[Path], device: str) -> list[FeatureExtractor]:
    """Return the feature networks; `weights` are the files of networks that read one, in their order."""
    files = iter(weights)
    return [
        extractor_named(name, next(files, None) if name in JUDGES_WITH_A_FILE else None, device)
        for name in names
    ]


def extractor_named(name: Judge, weights: Path | None, device: str) -> FeatureExtractor:
    """Return the feature network of this name; `None` looks for its weights in the usual place."""
    place = device_named(device)
    match name:
        case "inception":
            return inception(weights, place)
        case "inception_nsfwjs":
            return inception_nsfwjs(weights, place)
        case "face_descriptor":
            return face_descriptor(weights, place)
        case "face_landmarks":
            return face_landmarks(place)
        case "efficientnet_lite0":
            return efficientnet_lite0(place)


def check_impartial(names: Sequence[Judge], model: str, card: Mapping[str, Any]) -> None:
    """Refuse a network that looked at the images of a model in training, as the card of the model says."""
    for name in names:
        if name in card.get("trained_with", ()):
            raise ValueError(
                f"--features {name}: must not judge {model}, which was trained with it, as its card says; "
                "choose another network"
            )
