"""The real images of an evaluation: the reference, and the training images of the model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from diffnca.config.model import Config, DataConfig
from diffnca.data.images import ImageSet, open_images
from diffnca.data.sources import Remark
from diffnca.evaluation.metrics.memorisation import MIN_UNSEEN, check_unseen
from diffnca.evaluation.options import MIN_IMAGES, Options
from diffnca.evaluation.selections import Picture, Pictures, Selection, count_crops, crops, whole
from diffnca.models.file import find_model, read_card
from diffnca.progress import Report, unseen


@dataclass(frozen=True)
class RealImages:
    """The real images of an evaluation.

    `split` says in words which images the `reference` is. `training` is `None` if nobody knows what the model
    has seen. `skipped` holds unusable files by the flag of their folder.
    """

    reference: Selection
    training: Selection | None
    split: str
    skipped: dict[str, tuple[Remark, ...]]


def real_images(model: str, config: Config | None, options: Options, report: Report = unseen) -> RealImages:
    """Open the real images, prepared as for the training of the model; refuse images that do not fit.

    The card of `model` names the held-out images. `config` is `None` for a folder of images.
    """
    images = _opened(options.reference, config, options, report)
    skipped, split = {"--reference": images.skipped}, "all images of the folder"
    n, where = None if options.crop is None else options.n, str(options.reference)
    pictures: Pictures = images
    seen: Pictures | None = None
    if options.protocol == "published":
        n, split = options.n, "the first images of training"
    elif options.held_out:
        seen, pictures = _apart(images, model, is_model=config is not None)
        where, split = f"the held-out part of {where}", "held out"
    elif options.train is not None:
        seen = train = _opened(options.train, config, options, report)
        skipped["--train"] = train.skipped
    reference = select(pictures, options.crop, n, where)
    training = None if seen is None else select(seen, options.crop)
    _check(reference, training, split)
    return RealImages(reference, training, split, skipped)


def _opened(path: Path, config: Config | None, options: Options, report: Report) -> ImageSet:
    data, channels = (DataConfig(crop=1), 3) if config is None else (config.data, config.model.image_channels)
    return open_images(
        [path],
        reduce=data.reduce if options.reduce is None else options.reduce,
        max_background=data.max_background if options.max_background is None else options.max_background,
        channels=channels,
        microns_per_px=data.microns_per_px if options.microns_per_px is None else options.microns_per_px,
        min_size=data.crop if options.held_out else 1,  # slides then have the tiles of the training
        report=report,
    )


def _apart(images: ImageSet, model: str, is_model: bool) -> tuple[list[Picture], list[Picture]]:
    names = set(read_card(find_model(model)).get("held_out", ())) if is_model else set()
    held_out = [index for index, name in enumerate(images.names) if name in names]
    seen = [index for index, name in enumerate(images.names) if name not in names]
    if not held_out or not seen:
        raise ValueError(
            f"--held-out: the card of {model} names {len(names)} images, {len(held_out)} of the "
            f"{len(images)} in --reference; give the folder of its training, or leave out --held-out"
        )
    return [images[index] for index in seen], [images[index] for index in held_out]


def select(pictures: Pictures, crop: int | None, n: int | None = None, where: str = "") -> Selection:
    """Return whole pictures, or crops of `crop` px a side; `where` names their place in an error.

    `n` takes the first whole pictures, or crops spread evenly; `None` takes all.
    """
    available = len(pictures) if crop is None else count_crops(pictures, crop)
    if n is not None and n > available:
        kind = "images" if crop is None else f"crops of {crop} px"
        raise ValueError(f"--n {n}: must be at most {available}, as many {kind} as {where} has; give more")
    if crop is not None:
        return crops(pictures, available if n is None else n, crop)
    return whole(list(islice(pictures, n)))


def _check(reference: Selection, training: Selection | None, split: str) -> None:
    """Refuse a reference that is too small, of another size than the training images, or among them."""
    needed = MIN_IMAGES if training is None else MIN_UNSEEN
    if len(reference) < needed:
        why = "" if training is None else ", for the report on memorisation"
        raise ValueError(
            f"--reference: gives {len(reference)} images or crops, {split}; must be {needed} or more{why}; "
            "give more"
        )
    if training is None:
        return
    shapes = [tuple(each.images.shape[1:]) for each in (training, reference)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"--train: its images have the shape (c, h, w) {shapes[0]}, those of --reference {shapes[1]}: "
            "bring them to one size, or take crops"
        )
    seen = {image.numpy().tobytes() for image in training.images}
    num_seen = sum(image.numpy().tobytes() in seen for image in reference.images)
    check_unseen(num_seen, len(reference))
