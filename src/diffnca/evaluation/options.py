"""The options of an evaluation; without torch, so that a command line starts quickly."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import listdir
from pathlib import Path
from typing import Literal

from diffnca.config.model import SamplerName
from diffnca.errors import number, require, require_within
from diffnca.files import check_place

Judge = Literal["efficientnet_lite0", "inception", "inception_nsfwjs", "face_descriptor", "face_landmarks"]
"""The networks that look at images."""

JUDGES_WITH_A_FILE = ("inception", "inception_nsfwjs", "face_descriptor")
"""The networks whose weights come in a file of their own."""

JUDGES_OF_FACES = ("face_descriptor", "face_landmarks")

MIN_IMAGES = 6
"""Fewest images of a set: coverage counts five neighbours."""

MAX_IMAGES = 100_000
"""Most images of a set: the metrics compare all pairs."""

MAX_SIDE_PX = 4096
"""Largest side of an image that is generated at once, in memory."""


@dataclass(frozen=True)
class Options:
    """What is compared with what.

    Attributes:
        reference: real images: a folder or a zip file.
        n: generated images (with --crop, crops) to compare, from 6 to 100,000.
        held_out: compare only with the images of --reference that the card of the model names as held out.
            The other images count as training images.
        train: the training images, for the report on memorisation; it needs 100 unseen images or more.
        protocol: clean compares with all of --reference, or as many crops; published stores images as JPEG
            and compares them with the first --n images of --reference, which must be the training images.
        features: the networks that look at the images, one or several; published numbers use inception. The
            first also answers for memorisation.
        weights: files of the weights of inception, inception_nsfwjs, face_descriptor, in the order of
            --features; without them, they are looked for in ~/.cache/diffnca (inception is downloaded once).
        crop: compare square crops of this side in pixels instead of whole images.
        reduce: make real images smaller by this whole factor; without it, as in the model's training.
        max_background: leave out real images with a larger share of near-white pixels; without it, as in the
            model's training.
        microns_per_px: scale at which slides are read; without it, as in the model's training.
        height: of the generated images in pixels; without it, the size of the training crops.
        width: of the generated images in pixels; without it, the size of the training crops.
        seed: of the first image; image i has seed + i.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps; without it, the model's own choice.
        layouts: label images of the real images (a folder or a zip file), for a model that follows maps. The
            generated images have the maps of the real ones in turn, with --crop pieces of these maps. The
            model of maps completes what a map leaves free.
        label: what the generated images show, for a model that knows labels; without it, any of them.
        obey: how closely to follow maps and label, as for sample.
        device: where to compute; auto takes a GPU where there is one.
        seam_px: distance in pixels of the lines where seams could be; whole images are measured there.
        samples: folder that keeps the generated images; a stopped evaluation goes on from there.
        pairs: write a picture of the generated images nearest to training images, next to these.
        cache: folder that keeps the features of all images.
    """

    reference: Path
    n: int = 2048
    held_out: bool = False
    train: Path | None = None
    protocol: Literal["clean", "published"] = "clean"
    features: tuple[Judge, ...] = ("efficientnet_lite0",)
    weights: tuple[Path, ...] = ()
    crop: int | None = number(None, within=(1, MAX_SIDE_PX))
    reduce: int | None = None
    max_background: float | None = None
    microns_per_px: float | None = None
    height: int | None = number(None, within=(1, MAX_SIDE_PX))
    width: int | None = number(None, within=(1, MAX_SIDE_PX))
    seed: int = 0
    sampler: SamplerName | None = None
    steps: int | None = None
    layouts: Path | None = None
    label: str | None = None
    obey: float = 1.0
    device: str = "auto"
    seam_px: int | None = None
    samples: Path | None = None
    pairs: Path | None = None
    cache: Path | None = None

    def real_folders(self) -> Iterator[tuple[str, Path]]:
        """Yield the flags and the folders of real images."""
        for flag, path in (("--reference", self.reference), ("--train", self.train)):
            if path is not None and path.is_dir():
                yield flag, path


def check(options: Options) -> None:
    """Refuse options that would fail only after hours, with a `ValueError` or an `OSError`."""
    require(MIN_IMAGES <= options.n <= MAX_IMAGES, "--n", options.n, f"from {MIN_IMAGES} to {MAX_IMAGES:,}")
    require_within(options, "--")
    if options.protocol == "published":
        for name in ("held_out", "train", "pairs"):
            if getattr(options, name):
                raise ValueError(
                    f"--{name.replace('_', '-')}: must stand without --protocol published, whose reference "
                    "is training images: none are left unseen; leave one out"
                )
    if options.held_out and options.train is not None:
        raise ValueError("--held-out: must stand without --train; leave one out")
    check_judges(options.features, options.weights)
    faces = [name for name in options.features if name in JUDGES_OF_FACES]
    if faces and options.crop is not None:
        raise ValueError(f"--crop {options.crop}: {faces[0]} looks at whole faces; leave out one of the two")
    _check_outputs(options)


def check_judges(names: Sequence[Judge], weights: Sequence[Path]) -> None:
    """Refuse networks named twice, and files that no network reads."""
    require(0 < len(set(names)) == len(names), "--features", " ".join(names) or "empty", "different networks")
    readers = [name for name in names if name in JUDGES_WITH_A_FILE]
    if len(weights) > len(readers):
        raise ValueError(
            f"--weights {weights[-1]}: {len(readers)} of --features {' '.join(names)} read a file "
            f"({', '.join(JUDGES_WITH_A_FILE)} do); leave it out"
        )


def _check_outputs(options: Options) -> None:
    """Refuse outputs that cannot be written, or that the next evaluation would take for real images."""
    if options.pairs is not None:
        from diffnca.formats.png import check_png

        check_png(options.pairs)
        if options.train is None and not options.held_out:
            raise ValueError("--pairs: needs the training images; give --train FOLDER or --held-out")
    if options.samples is not None:
        if options.samples.exists() and not options.samples.is_dir():
            raise ValueError(f"--samples {options.samples}: is a file; give a folder")
        names = listdir(options.samples) if options.samples.is_dir() else []
        others = [name for name in names if not re.fullmatch(r"\d{6,}\.png|\..*", name)]
        if others:
            raise ValueError(
                f"--samples {options.samples}: holds {min(others)}, no sample; name a new folder"
            )
        check_place(options.samples / "0.png" if options.samples.is_dir() else options.samples)
    for name, path in (("--samples", options.samples), ("--pairs", options.pairs)):
        for flag, real in options.real_folders():
            if path is not None and path.resolve().is_relative_to(real.resolve()):
                raise ValueError(
                    f"{name} {path}: lies in {flag} {real}, so that generated images would count as real "
                    "ones; give another folder"
                )
