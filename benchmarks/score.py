"""Score a texture model against real pictures, next to real pictures against real pictures.

Samples are generated one at a time and cut into crops. Each judge (`--features`) measures KID x1000 (with its
standard error, pictures being the independent draws), FID, precision, recall and coverage against as many
crops of validation pictures. Example, with the tenth of the pictures that training held out:

    python benchmarks/score.py pathology --data slides/ --holdout 0.1 --reduce 2 --max-background 0.2

The rows "real" score the other pictures of the folder against the same validation pictures. Without
--holdout a random half of the pictures is for validation.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from diffnca.data import ImageSet, open_images
from diffnca.data.held_out import split
from diffnca.evaluation.judges import check_impartial, judges_named
from diffnca.evaluation.metrics.distances import with_error
from diffnca.evaluation.metrics.features import user_cache
from diffnca.evaluation.options import Judge, check_judges
from diffnca.evaluation.samples import Samples
from diffnca.evaluation.scores import Judgement, evaluate
from diffnca.evaluation.selections import Picture, count_crops, crops
from diffnca.models.file import find_model, read_card


@dataclass(frozen=True)
class Options:
    """What to score, and how."""

    model: tyro.conf.Positional[str]
    """A model file, or the name of a bundled model."""
    data: Path
    """Real pictures: a folder or a zip file."""
    train: Path | None = None
    """Pictures of training, for the row "real", where --data holds those for validation alone."""
    holdout: float = 0.0
    """Share of the pictures that training held out; they are for validation."""
    split_seed: int = 0
    """Seed by which training held them out."""
    reduce: int = 1
    """Reduce the real pictures by this factor (Lanczos)."""
    max_background: float = 1.0
    """Leave out real pictures with a larger share of background."""
    background_level: int = 220
    """Brightness from which on, in all channels, a pixel is background."""
    features: tuple[Judge, ...] = ("efficientnet_lite0",)
    """The networks that judge, none of them one that the model was trained with."""
    made: Path | None = None
    """Folder of pictures made before, to score instead of new ones."""
    crop_seed: int | None = None
    """Take crops at random places, where they can overlap, by this seed; without it, disjoint ones."""
    n: int = 600
    """Crops on each side; fewer if the pictures do not hold as many."""
    crop: int = 64
    """Height and width of a crop in px."""
    num_samples: int = 8
    """Number of generated pictures."""
    height: int = 576
    """Height of a generated picture in px."""
    width: int = 576
    """Width of a generated picture in px."""
    sampler: str | None = None
    """Sampler; the model's own by default."""
    steps: int | None = None
    """Diffusion steps; the model's own number by default."""
    seed: int = 0
    """Seed of the first picture; the next ones count up."""
    threads: int = 1
    """Processor threads."""
    save: Path | None = None
    """Existing folder to write the generated pictures to."""
    json: bool = False
    """Print JSON lines."""


def main(options: Options) -> None:
    """Generate, measure and print."""
    require(options)
    torch.set_num_threads(options.threads)
    judges = judges_named(options.features, (), "cpu")
    others, validation = real_pictures(options)
    started = time.perf_counter()
    samples = open_pictures(options.made) if options.made is not None else list(generate_pictures(options))
    print(f"{len(samples)} samples in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    n, seed = options.n, options.crop_seed
    if seed is None:  # one n for both rows, because FID depends on it
        n = min(n, *(count_crops(pictures, options.crop) for pictures in (samples, others, validation)))
    reference = crops(validation, n, options.crop, seed)
    for name, pictures in (("model", samples), ("real", others)):
        chosen = crops(pictures, n, options.crop, seed)
        for judgement in evaluate(chosen, reference, judges, cache=user_cache() / "features").judgements:
            report(options, name, judgement)


def require(options: Options) -> None:
    """Raise the errors that would else come after the generation."""
    if options.num_samples < 2:
        raise ValueError(f"--num-samples is {options.num_samples}: a standard error needs 2 or more pictures")
    if options.save is not None and not options.save.is_dir():
        raise ValueError(f"--save {options.save}: no such folder; create it first")
    check_judges(options.features, ())
    check_impartial(options.features, options.model, read_card(find_model(options.model)))


def real_pictures(options: Options) -> tuple[Sequence[Picture], Sequence[Picture]]:
    """Return the real pictures that are not for validation, and those that are."""
    choice = {"max_background": options.max_background, "background_level": options.background_level}
    images = open_pictures(options.data, reduce=options.reduce, **choice)
    if options.train is not None:
        return open_pictures(options.train, reduce=options.reduce, **choice), images
    if options.holdout == 0:
        return halves(images)
    return split(images, options.holdout, options.split_seed, options.crop)


def halves(pictures: Sequence[Picture]) -> tuple[list[Picture], list[Picture]]:
    """Split pictures at random into two halves, to score real pictures against real ones."""
    order = np.random.default_rng(0).permutation(len(pictures)).tolist()
    middle = len(order) // 2
    return [pictures[k] for k in order[:middle]], [pictures[k] for k in order[middle:]]


def open_pictures(path: Path, **options: Any) -> ImageSet:
    """Return the pictures of a folder or zip file."""
    images = open_images([path], **options)
    print(f"{path}: {len(images)} pictures used, {len(images.skipped)} skipped", file=sys.stderr)
    return images


def generate_pictures(options: Options) -> Iterator[Picture]:
    """Generate one picture after another, so that only one is in memory as floats."""
    samples = Samples(
        options.model, options.height, options.width, options.seed, options.sampler, options.steps
    )
    for seed in range(options.seed, options.seed + options.num_samples):
        (pixels,) = replace(samples, seed=seed).pictures(1)
        if options.save is not None:
            Image.fromarray(pixels).save(options.save / f"sample_{seed}.png")
        yield pixels


def report(options: Options, name: str, judgement: Judgement) -> None:
    """Print one row with its protocol."""
    result = judgement.score
    if options.json:
        told = asdict(judgement) | asdict(result)
        told = {key: value for key, value in told.items() if key not in ("score", "faces")}
        print(dumps({"name": name, "model": options.model, "crop_px": options.crop, **told}), flush=True)
        return
    print(
        f"{name:6} KID x1000 {with_error(result.kid_x1000, result.error, 2):>14}   FID {result.fid:7.2f}   "
        f"precision {judgement.precision:.3f}   recall {judgement.recall:.3f}   "
        f"coverage {judgement.coverage:.3f}   "
        f"n {result.n} against {result.n_reference} crops of {options.crop} px   "
        f"{result.features} {result.checksum[:8]}",
        flush=True,
    )


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
