"""Commands that measure: one model, all models of a table, the speed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from diffnca.cli.console import Console


@dataclass(frozen=True)
class Evaluate:
    """Measure a model, or a folder of generated images, against real images.

    Attributes:
        model: a bundled model, a model file, a run's folder, a hub id, or a folder of images.
        reference: real images: a folder or a zip file.
        n: generated images (with --crop, crops) to compare.
        held_out: compare with those images of --reference alone that the model's training held out, by its
            card; the others are its training images.
        train: the training images, for the report on memorisation; it takes 100 unseen images or more.
        protocol: clean compares with all of --reference, or as many crops; published compares images stored
            as JPEG with the first --n images of --reference, which are to be those of training.
        features: the network that looks at the images; inception is that of the published numbers.
        weights: local file of the weights of inception; without it, they are downloaded once.
        crop: compare square crops of this side instead of whole images.
        reduce: make real images smaller by this whole factor; without it, as for the model's training.
        max_background: leave out real images with a larger share of near-white pixels; likewise.
        microns_per_px: scale at which slides are read; likewise.
        height: of the generated images in pixels; without it, the size of the training crops.
        width: likewise.
        seed: of the first image; image i has seed + i.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps; without it, the model's own choice.
        device: where to compute; auto takes a GPU where there is one.
        seam_px: measure the steps across lines so many pixels apart, where seams could be, in whole images.
        samples: folder in which the generated images are kept; a stopped evaluation goes on from there.
        pairs: write a picture of the generated images nearest to training images, next to them.
        out: write all numbers to this file, as JSON.
        cache: folder in which the features of images, generated ones too, are kept.
        json: print JSON, for machines.
    """

    verb: ClassVar = "evaluate"

    model: tyro.conf.Positional[str]
    reference: Path
    n: int = 2048
    held_out: bool = False
    train: Path | None = None
    protocol: Literal["clean", "published"] = "clean"
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0"
    weights: Path | None = None
    crop: int | None = None
    reduce: int | None = None
    max_background: float | None = None
    microns_per_px: float | None = None
    height: int | None = None
    width: int | None = None
    seed: int = 0
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    steps: int | None = None
    device: str = "auto"
    seam_px: int | None = None
    samples: Path | None = None
    pairs: Path | None = None
    out: Path | None = None
    cache: Path | None = None
    json: bool = False

    def run(self, console: Console) -> int:
        """Measure; return the exit code."""
        from diffnca.evaluation.protocol import run

        return run(self)


@dataclass(frozen=True)
class Reproduce:
    """Train all models of a table on your images, on equal terms, and measure them; the same command goes on.

    A larger budget later trains the same models on.

    Attributes:
        table: faces64 and pathology compare networks, ablation takes single choices back, stages changes the
            Fourier stage and the cell steps, textures the cells of diff_nca.
        data: folders (searched recursively), zip files, images or whole slides.
        out: folder of the table: results.json, table.md, a picture of each row.
        minutes: training time of each row.
        images: training images of each row, instead of --minutes.
        rows: train only these; others that are finished stay in the table.
        reduce: make images smaller by this whole factor; faces64 becomes 32x32 with 2.
        microns_per_px: scale at which slides are read, for pathology and textures.
        n: generated images of each row to measure.
        sampler: of all denoisers.
        steps: diffusion steps of all denoisers.
        seeds: trainings of each row, with different seeds.
        features: the network that looks at the images.
        weights: local file of the weights of inception.
        device: where to sample; auto takes a GPU where there is one. Training takes all GPUs there are.
    """

    verb: ClassVar = "reproduce"

    table: tyro.conf.Positional[Literal["faces64", "pathology", "ablation", "stages", "textures"]]
    out: Path
    data: tuple[Path, ...] = ()
    minutes: float | None = None
    images: int | None = None
    rows: tuple[str, ...] = ()
    reduce: int = 1
    microns_per_px: float | None = None
    n: int = 2048
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] = "dpmpp2m"
    steps: int = 20
    seeds: int = 1
    features: Literal["efficientnet_lite0", "inception"] = "efficientnet_lite0"
    weights: Path | None = None
    device: str = "auto"

    def run(self, console: Console) -> int:
        """Train and measure the rows; return the exit code."""
        from diffnca.comparison.run import run

        return run(self)


@dataclass(frozen=True)
class Bench:
    """Time a model here: a call and a training step, next to the matrix products they cannot do without.

    Attributes:
        name: a recipe, a bundled model, a model file, a run's folder, or a hub id.
        height: of the images in pixels.
        width: of the images in pixels.
        batch: images in a call of the denoiser, and crops in a training step; without it, 8 and the recipe's
            own number.
        rounds: how often each is timed; the medians are shown.
        training: time a training step too, on the recipe's own crops.
        compiled: time the compiled network too, as training runs it; compiling takes a minute.
        against: other models, timed in the same turns: unet_4m, unet_17m, or any model of cells.
        device: where to compute; auto takes a GPU where there is one.
        json: print JSON, for machines.
    """

    verb: ClassVar = "bench"

    name: tyro.conf.Positional[str] = "diff_nca"
    height: int = 64
    width: int = 64
    batch: int | None = None
    rounds: int = 5
    training: bool = False
    compiled: bool = False
    against: tuple[str, ...] = ()
    device: str = "auto"
    json: bool = False

    def run(self, console: Console) -> int:
        """Time the model; return the exit code."""
        from diffnca.benchmark.run import bench

        return bench(self)
