"""An evaluation from start to end: a model, or a folder of images, against real images."""

import math
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from diffnca.config.model import Config, DataConfig
from diffnca.data.held_out import split, without_strips
from diffnca.data.images import ImageSet, open_images
from diffnca.data.layouts import Layouts
from diffnca.data.sources import Remark
from diffnca.engine.machine import device_named
from diffnca.evaluation.judges import check_impartial, judges_named
from diffnca.evaluation.maps import Maps
from diffnca.evaluation.metrics.distances import PICTURES_FOR_AN_ERROR
from diffnca.evaluation.metrics.features import user_cache
from diffnca.evaluation.metrics.memorisation import MIN_UNSEEN, check_unseen
from diffnca.evaluation.metrics.textures import MIN_SIDE_PX, check_seams, seam_ratio
from diffnca.evaluation.options import MIN_IMAGES, Options, check
from diffnca.evaluation.samples import JPEG_QUALITY, Samples, as_jpeg
from diffnca.evaluation.scores import Evaluation, Protocol, check_size, evaluate
from diffnca.evaluation.selections import Pictures, Selection, count_crops, crops, whole
from diffnca.files import OWN, check_place
from diffnca.formats.png import contact_sheet, write_png
from diffnca.models.file import MODEL_FILE, bundled_models, find_model, read_card, read_config
from diffnca.progress import Report, unseen
from diffnca.sampling.labels import check_label
from diffnca.sampling.layouts import check_obey, legend_of

PAIR_PX = 128

Generated = tuple[Pictures, dict[str, str], tuple[Remark, ...]]


@dataclass(frozen=True)
class RealImages:
    """The real images of an evaluation.

    `split` says in words which images the `reference` is, taken from `pictures`. `training` is `None` if
    nobody knows what the model has seen. `skipped` holds unusable files by the flag of their folder.
    """

    pictures: ImageSet
    reference: Selection
    training: Selection | None
    split: str
    skipped: dict[str, tuple[Remark, ...]]


def measure(
    model: str, options: Options, report: Report = unseen
) -> tuple[Evaluation, dict[str, tuple[Remark, ...]]]:
    """Measure a model, or a folder of generated images, against real images; return also unusable files.

    `model` is what `load` takes, or a folder of images. Unusable files stand under a flag, or `generated`.

    Raises:
        ValueError: an option or the images do not fit; raised before images are made.
    """
    check(options)
    cache = _checked_cache(options.cache)
    config = None if _is_folder_of_images(model) else read_config(find_model(model))
    if config is not None:
        check_impartial(options.features, model, read_card(find_model(model)))
    _check_told(model, config, options)
    judges = judges_named(options.features, options.weights, options.device)
    real = real_images(model, config, options, report)
    for judge in judges:
        judge(real.reference.images[:1])  # refuses what it cannot read
    if config is None:
        pictures, made, unusable = _opened(model, options, report)
    else:
        pictures, made, unusable = _made(model, config, options, real, report)
    stored = "as they are"
    if options.protocol == "published":
        pictures, stored = [as_jpeg(each) for each in pictures], f"JPEG of quality {JPEG_QUALITY}"
    selection = select(pictures, options.crop, options.n, model)
    seams = None if options.seam_px is None else seam_ratio(islice(pictures, options.n), options.seam_px)
    evaluation = evaluate(
        selection,
        real.reference,
        judges,
        training=real.training,
        cache=cache,
        protocol=Protocol(options.protocol, real.split, stored=stored),
        seams=seams,
        made=made,
        report=report,
    )
    if options.pairs is not None and real.training is not None:
        _write_pairs(options.pairs, selection, real.training, evaluation)
    skipped = {"generated": unusable, **real.skipped}
    left_out = {place: len(files) for place, files in skipped.items() if files}
    return replace(evaluation, left_out=left_out), skipped


def _is_folder_of_images(name: str) -> bool:
    path = Path(name)
    return path.is_dir() and not (path / MODEL_FILE).is_file() and name not in bundled_models()


def _check_told(model: str, config: Config | None, options: Options) -> None:
    """Refuse maps, a label and `obey` that say nothing to a model."""
    if config is None:
        for name in ("layouts", "label", "obey"):
            if getattr(options, name) != getattr(Options, name):
                raise ValueError(f"--{name}: must be left out for a folder of images; {model} is no model")
        return
    if options.layouts is not None:
        legend_of(config)
    maker = config.layout.maker if options.layouts is None else None
    makers = () if maker is None else (read_config(find_model(maker)),)
    check_label(options.label, 1, config, *makers)
    check_obey(options.obey, bool(makers) or options.layouts is not None or options.label is not None)


def _checked_cache(folder: Path | None) -> Path:
    cache = user_cache() / "features" if folder is None else folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        check_place(cache / "features")
    except OSError as error:
        raise ValueError(f"--cache {cache}: cannot keep features ({error}); give another folder") from None
    return cache


def _opened(folder: str, options: Options, report: Report) -> Generated:
    """Return the generated images of a folder; refuse images that are real ones, and options for models."""
    for name in ("height", "width", "sampler", "steps", "samples"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name}: must be left out for a folder of images; {folder} is no model")
    own = Path(folder).resolve()
    for flag, path in options.real_folders():
        if own.is_relative_to(path.resolve()) or path.resolve().is_relative_to(own):
            raise ValueError(
                f"{folder}: shares images with {flag} {path}, which would be compared with themselves; give "
                "two folders apart"
            )
    images = open_images([folder], report=report)
    return images, {"folder": folder, "images": images.fingerprint}, images.skipped


def _made(model: str, config: Config, options: Options, real: RealImages, report: Report) -> Generated:
    height, width = options.height or config.data.crop, options.width or config.data.crop
    count, size, crop = options.n, (height, width), options.crop
    if crop is not None:
        per_image = (height // crop) * (width // crop)
        if per_image == 0:
            raise ValueError(
                f"--crop {crop}: must be at most {min(size)}, the smaller side of the generated images; give "
                "a larger --height and --width"
            )
        count, size = max(PICTURES_FOR_AN_ERROR, math.ceil(options.n / per_image)), (crop, crop)
    check_size(size, real.reference)
    if min(size) < MIN_SIDE_PX:
        raise ValueError(f"images of {size[0]}x{size[1]} px: must be {MIN_SIDE_PX} px or more a side")
    if options.seam_px is not None:
        check_seams(options.seam_px, (height, width))
    device, maps = device_named(options.device), None
    facts = {"model": model, "seed": str(options.seed)}
    if options.layouts is not None:
        maps = Maps(real.pictures, height, width)
        facts["layouts"] = f"{len(maps.places)} pieces of {options.layouts}"
    how = (options.seed, options.sampler, options.steps, device, options.label, options.obey, maps)
    samples = Samples(model, height, width, *how)
    facts |= samples.facts
    return list(samples.pictures(count, options.samples, report)), facts, ()


def _write_pairs(path: Path, generated: Selection, training: Selection, evaluation: Evaluation) -> None:
    assert evaluation.memorisation is not None, "training images are known"
    rows = []
    for made, seen, _ in evaluation.memorisation.pairs:
        both = [each.movedim(0, -1).numpy() for each in (generated.images[made], training.images[seen])]
        pair = np.concatenate(both, axis=1)
        times = max(1, -(-PAIR_PX // min(both[0].shape[:2])))
        rows.append(pair.repeat(times, 0).repeat(times, 1))
    write_png(path, contact_sheet(np.stack(rows), gap_px=8), {f"{OWN}pairs": "generated, then training"})


def real_images(model: str, config: Config | None, options: Options, report: Report = unseen) -> RealImages:
    """Open the real images, prepared as for the training of the model; refuse images that do not fit.

    The card of `model` names the held-out images. `config` is `None` for a folder of images.
    """
    images = _read(options.reference, config, options, report)
    skipped, split = {"--reference": images.skipped}, "all images of the folder"
    n, where = None if options.crop is None else options.n, str(options.reference)
    pictures, seen = images, None
    if options.protocol == "published":
        n, split = options.n, "the first images of training"
    elif options.held_out:
        seen, pictures = _apart(images, model, config)
        where, split = f"the held-out part of {where}", "held out"
    elif options.train is not None:
        seen = train = _read(options.train, config, options, report)
        skipped["--train"] = train.skipped
    reference = select(pictures, options.crop, n, where)
    training = None if seen is None else select(seen, options.crop)
    _check_real(reference, training, split)
    return RealImages(pictures, reference, training, split, skipped)


def _read(path: Path, config: Config | None, options: Options, report: Report) -> ImageSet:
    data, channels = (DataConfig(crop=1), 3) if config is None else (config.data, config.model.image_channels)
    layouts = None
    if config is not None and options.layouts is not None and path == options.reference:
        layouts = Layouts([options.layouts], config.layout)
    return open_images(
        [path],
        reduce=data.reduce if options.reduce is None else options.reduce,
        max_background=data.max_background if options.max_background is None else options.max_background,
        channels=channels,
        microns_per_px=data.microns_per_px if options.microns_per_px is None else options.microns_per_px,
        min_size=data.crop if options.held_out else 1,  # slides then have the tiles of the training
        layouts=layouts,
        report=report,
    )


def _apart(images: ImageSet, model: str, config: Config | None) -> tuple[ImageSet, ImageSet]:
    """Return the images that the training of a model saw, and those that it held out, as its card says."""
    names = set() if config is None else set(read_card(find_model(model)).get("held_out", ()))
    if config is not None and config.data.validation is None:
        crop = config.data.crop  # strips are held out of images with a rare label too, which is unknown here
        for parts in (split(images, None, config.data.split_seed, crop), without_strips(images, crop)):
            if names == set(parts[1].names):
                return parts
    held_out = [index for index, name in enumerate(images.names) if name in names]
    seen = [index for index, name in enumerate(images.names) if name not in names]
    if not held_out or not seen:
        raise ValueError(
            f"--held-out: the card of {model} names {len(names)} images, {len(held_out)} of the "
            f"{len(images)} in --reference; give the folder of its training, or leave out --held-out"
        )
    return images.chosen(seen), images.chosen(held_out)


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


def _check_real(reference: Selection, training: Selection | None, split: str) -> None:
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
