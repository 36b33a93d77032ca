"""`diffnca evaluate`: a model, or a folder of images, against real images."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import numpy as np

from diffnca.config.model import Config, DataConfig
from diffnca.data.images import ImageSet, open_images
from diffnca.engine.machine import device_named
from diffnca.evaluation.metrics import FeatureExtractor, efficientnet_lite0, inception
from diffnca.evaluation.metrics.distances import check_pictures
from diffnca.evaluation.metrics.manifolds import MIN_IMAGES
from diffnca.evaluation.metrics.memorisation import MIN_UNSEEN, check_unseen
from diffnca.evaluation.metrics.textures import MIN_SIDE_PX, check_seams, seam_ratio
from diffnca.evaluation.samples import JPEG_QUALITY, Samples, as_jpeg
from diffnca.evaluation.scores import Evaluation, check_size, evaluate
from diffnca.evaluation.selections import Picture, Pictures, Selection, count_crops, crops, whole
from diffnca.files import check_target
from diffnca.formats.png import contact_sheet, write_png
from diffnca.jobs.making import progress_bar
from diffnca.models.file import MODEL_FILE, bundled_models, find_model, read_card, read_config

if TYPE_CHECKING:
    from diffnca.cli.measurements import Evaluate

FEATURES_FOLDER = Path.home() / ".cache" / "diffnca" / "features"
"""Where features of images are kept, by the hash of their pixels."""

PAIR_PX = 128
"""Least side of an image in the picture of the closest pairs."""


@dataclass(frozen=True)
class RealImages:
    """The real images of an evaluation.

    Attributes:
        reference: what generated images are compared with.
        training: what the model has seen; `None` if that is not known.
        split: in words, which of the images the reference is.
    """

    reference: Selection
    training: Selection | None
    split: str


def run(command: Evaluate) -> int:
    """Evaluate as the command says, print a table; return the exit code."""
    check(command)
    config = None if is_folder_of_images(command.model) else read_config(find_model(command.model))
    extractor = extractor_named(command.features, command.weights, device_named(command.device))
    real = real_images(command, config)
    check_real(real)
    pictures, made = images_of(command) if config is None else generated_by(command, config, real)
    if command.protocol == "published":
        pictures = [as_jpeg(picture) for picture in pictures]
    generated = select(pictures, command.crop, command.n, command.model)
    evaluation = evaluate(
        generated,
        real.reference,
        extractor,
        training=real.training,
        cache=command.cache or FEATURES_FOLDER,
        seams=None if command.seam_px is None else seam_ratio(islice(pictures, command.n), command.seam_px),
        protocol=command.protocol,
        split=real.split,
        stored=f"JPEG of quality {JPEG_QUALITY}" if command.protocol == "published" else "as they are",
        made=made,
    )
    if command.pairs is not None and real.training is not None:
        write_pairs(command.pairs, generated, real.training, evaluation)
    facts = json.dumps(dataclasses.asdict(evaluation), indent=1)
    if command.out is not None:
        command.out.write_text(facts + "\n", encoding="utf-8")
    print(facts if command.json else as_table(evaluation))
    return 0


def is_folder_of_images(name: str) -> bool:
    """Return whether a name stands for images, not for a model."""
    path = Path(name)
    return path.is_dir() and not (path / MODEL_FILE).is_file() and name not in bundled_models()


def check(command: Evaluate) -> None:
    """Refuse what would fail only after hours.

    Raises:
        ValueError: a number or a path does not fit.
    """
    if command.n < MIN_IMAGES:
        raise ValueError(f"--n {command.n}: must be {MIN_IMAGES} or more images")
    if command.protocol == "published":
        for name in ("held_out", "train", "pairs"):
            if getattr(command, name):
                raise ValueError(
                    f"--{name.replace('_', '-')}: must stand without --protocol published, whose reference "
                    "is training images: none are left unseen; leave one out"
                )
    if command.held_out and command.train is not None:
        raise ValueError("--held-out: must stand without --train; leave one out")
    if command.pairs is not None:
        check_target(command.pairs, (".png",))
        if command.train is None and not command.held_out:
            raise ValueError("--pairs: needs the training images; give --train FOLDER or --held-out")
    for name, path in (("--out", command.out), ("--samples", command.samples)):
        if path is not None and not path.resolve().parent.is_dir():
            raise ValueError(f"{name} {path}: the folder {path.parent} does not exist; create it first")
    if command.out is not None and command.out.is_dir():
        raise ValueError(f"--out {command.out}: is a folder; give the name of a file")
    if command.samples is not None and command.samples.exists() and not command.samples.is_dir():
        raise ValueError(f"--samples {command.samples}: is a file; give a folder")
    check_writable(command.cache or FEATURES_FOLDER)


def check_writable(cache: Path) -> None:
    """Make the folder of the cache.

    Raises:
        ValueError: nothing can be written there.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise ValueError(f"--cache {cache}: cannot keep features ({error}); give another folder") from None


def check_real(real: RealImages) -> None:
    """Refuse real images that cannot be compared with.

    Raises:
        ValueError: they are too few, of too few pictures, of other sizes than the training images, or among
            them.
    """
    needed = MIN_IMAGES if real.training is None else MIN_UNSEEN
    if len(real.reference) < needed:
        why = "" if real.training is None else ", for the report on memorisation"
        raise ValueError(
            f"--reference: gives {len(real.reference)} images or crops, {real.split}; must be {needed} or "
            f"more{why}; give more"
        )
    check_pictures(real.reference.pictures, "reference")
    if real.training is not None and real.training.images.shape[1:] != real.reference.images.shape[1:]:
        shapes = [tuple(each.images.shape[1:]) for each in (real.training, real.reference)]
        raise ValueError(
            f"--train: its images have the shape (c, h, w) {shapes[0]}, those of --reference {shapes[1]}: "
            "bring them to one size, or take crops"
        )
    if real.training is not None:
        seen = {image.numpy().tobytes() for image in real.training.images}
        num_seen = sum(image.numpy().tobytes() in seen for image in real.reference.images)
        check_unseen(num_seen, len(real.reference))


def check_made(size: tuple[int, int], real: RealImages) -> None:
    """Refuse generated images or crops of them, before they are made, that could not be measured.

    Raises:
        ValueError: their size is not that of the real ones, or is too small.
    """
    check_size(size, real.reference)
    if min(size) < MIN_SIDE_PX:
        raise ValueError(f"images of {size[0]}x{size[1]} px: must be {MIN_SIDE_PX} px or more a side")


def extractor_named(name: str, weights: Path | None, device: str) -> FeatureExtractor:
    """Return the feature network of this name.

    Raises:
        ValueError: it cannot be had, or its weights are not the known ones.
    """
    if name == "inception":
        return inception(weights, device)
    if weights is not None:
        raise ValueError(f"--weights {weights}: goes with --features inception; leave it out")
    return efficientnet_lite0(device)


def opened(path: Path, command: Evaluate, data: DataConfig, channels: int) -> ImageSet:
    """Open a folder of real images, prepared as for the training of the model."""
    images = open_images(
        [path],
        reduce=data.reduce if command.reduce is None else command.reduce,
        max_background=data.max_background if command.max_background is None else command.max_background,
        channels=channels,
        microns_per_px=data.microns_per_px if command.microns_per_px is None else command.microns_per_px,
        min_size=data.crop if command.held_out else 1,  # so that slides have the tiles of training
    )
    for name, reason in images.skipped:
        print(f"diffnca: left out {name}: {reason}", file=sys.stderr)
    return images


def real_images(command: Evaluate, config: Config | None) -> RealImages:
    """Return what to compare with, and what the model has seen.

    Raises:
        ValueError: there are too few, their sizes differ, or those held out are not there.
    """
    data, channels = (DataConfig(crop=1), 3) if config is None else (config.data, config.model.image_channels)
    images = opened(command.reference, command, data, channels)
    n, crop, name = None if command.crop is None else command.n, command.crop, str(command.reference)
    if command.protocol == "published":
        return RealImages(select(images, crop, command.n, name), None, "the first images of training")
    if command.held_out:
        seen, held_out = apart(images, command.model)
        reference = select(held_out, crop, n, f"the held-out part of {name}")
        return RealImages(reference, select(seen, crop), "held out")
    training = None if command.train is None else opened(command.train, command, data, channels)
    reference = select(images, crop, n, name)
    known = None if training is None else select(training, crop)
    return RealImages(reference, known, "all images of the folder")


def apart(images: ImageSet, model: str) -> tuple[list[Picture], list[Picture]]:
    """Return the images that the model was trained on, and those that its training held out.

    Raises:
        ValueError: the model's card names none that are here.
    """
    card = {} if is_folder_of_images(model) else read_card(find_model(model))
    names = set(card.get("held_out", ()))
    is_held_out = [name in names for name in images.names]
    if not any(is_held_out) or all(is_held_out):
        raise ValueError(
            f"--held-out: the card of {model} names {len(names)} images, {sum(is_held_out)} of the "
            f"{len(images)} in --reference; give the folder of its training, or leave out --held-out"
        )
    return (
        [images[k] for k, is_it in enumerate(is_held_out) if not is_it],
        [images[k] for k, is_it in enumerate(is_held_out) if is_it],
    )


def select(pictures: Pictures, crop: int | None, n: int | None = None, where: str = "") -> Selection:
    """Return whole pictures, or crops of them.

    Args:
        pictures: of one size, unless crops are taken.
        crop: side of the crops in pixels; `None` takes whole pictures.
        n: how many, for pictures the first ones; `None` takes all.
        where: what they are of, for an error.

    Raises:
        ValueError: there are fewer, or their sizes differ.
    """
    available = len(pictures) if crop is None else count_crops(pictures, crop)
    if n is not None and n > available:
        kind = "images" if crop is None else f"crops of {crop} px"
        raise ValueError(f"--n {n}: must be at most {available}, as many {kind} as {where} has; give more")
    if crop is not None:
        return crops(pictures, available if n is None else n, crop)
    return whole(list(islice(pictures, n)))


def images_of(command: Evaluate) -> tuple[Pictures, dict[str, str]]:
    """Return the images of a folder, as they are.

    Raises:
        ValueError: an option for models is given.
    """
    for name in ("height", "width", "sampler", "steps", "samples"):
        if getattr(command, name) is not None:
            raise ValueError(
                f"--{name}: must be left out for a folder of images; {command.model} is no model"
            )
    images = open_images([command.model])
    return images, {"folder": command.model, "images": images.fingerprint}


def generated_by(command: Evaluate, config: Config, real: RealImages) -> tuple[list[Picture], dict[str, str]]:
    """Return as many images of the model as it takes, and how they are made.

    Raises:
        ValueError: they could not be compared with the real ones.
    """
    height = command.height or config.data.crop
    width = command.width or config.data.crop
    count = command.n
    if command.crop is not None:
        per_image = (height // command.crop) * (width // command.crop)
        if per_image == 0:
            raise ValueError(
                f"--crop {command.crop}: must be at most {min(height, width)}, the smaller side of the "
                "generated images; give a larger --height and --width"
            )
        count = max(2, math.ceil(command.n / per_image))
    check_made((height, width) if command.crop is None else (command.crop,) * 2, real)
    if command.seam_px is not None:
        check_seams(command.seam_px, (height, width))
    samples = Samples(
        command.model,
        height,
        width,
        command.seed,
        command.sampler,
        command.steps,
        device_named(command.device),
    )
    facts = {"model": command.model, "seed": str(command.seed), **samples.facts()}
    with progress_bar(f"{count} images of {height}x{width} px") as progress:
        return list(samples.pictures(count, command.samples, progress)), facts


def write_pairs(path: Path, generated: Selection, training: Selection, evaluation: Evaluation) -> None:
    """Write a picture of the generated images that are nearest to training images, side by side with them."""
    assert evaluation.memorisation is not None, "training images are known"
    rows = []
    for made, seen, _ in evaluation.memorisation.pairs:
        both = [each.movedim(0, -1).numpy() for each in (generated.images[made], training.images[seen])]
        pair = np.concatenate(both, axis=1)
        times = max(1, -(-PAIR_PX // min(both[0].shape[:2])))
        rows.append(pair.repeat(times, 0).repeat(times, 1))
    write_png(path, contact_sheet(np.stack(rows), gap_px=8), {"diffnca:pairs": "generated, then training"})


def as_table(evaluation: Evaluation) -> str:
    """Return an evaluation as text for people."""
    score, protocol = evaluation.score, evaluation.protocol
    lines = [
        ("KID x 1000", f"{score.kid_x1000:.2f} ± {score.error:.2f}"),
        ("FID", f"{score.fid:.2f}"),
        ("precision, recall", f"{evaluation.precision:.3f}, {evaluation.recall:.3f}"),
        ("density, coverage", f"{evaluation.density:.3f}, {evaluation.coverage:.3f}"),
        ("spectrum", f"{evaluation.spectrum_error_db:.2f} dB off"),
        ("colours", f"{evaluation.colour_error:.2f} levels of 256 off"),
    ]
    if evaluation.seam_ratio is not None:
        lines.append(("steps at seams", f"{evaluation.seam_ratio:.3f} of those elsewhere"))
    if evaluation.memorisation is not None:
        lines.append(("memorisation", _memorised(evaluation)))
    lines += [
        ("compared", f"{score.n} images of {protocol.height}x{protocol.width} px, {protocol.stored}"),
        ("with", f"{score.n_reference} real ones, {protocol.split}"),
        ("protocol", f"{protocol.name}, features {score.features} {score.checksum[:8]}"),
        ("made", ", ".join(f"{key} {_short(key, value)}" for key, value in evaluation.made.items())),
    ]
    return "\n".join(f"{name:18} {value}" for name, value in lines)


def _short(name: str, value: str) -> str:
    """Return a fact for people: of a checksum, the beginning."""
    return value[:16] if name == "weights" else value


def _memorised(evaluation: Evaluation) -> str:
    """Return the report on memorisation as one line."""
    found = evaluation.memorisation
    assert found is not None, "training images are known"
    return (
        f"{found.copied:.1%} nearer to a training image than all but {found.expected:.1%} of unseen images "
        f"are (p = {found.p_value:.2g}); median distance {found.distance_ratio:.2f} of theirs"
    )
