"""Commands that make new images: samples, and films from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from diffnca.cli.console import Console


@dataclass(frozen=True, kw_only=True)
class Making:
    """What all making of images has in common.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name).
        seed: of the first image; image i has seed + i.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps from pure noise on; without it, the model's own choice.
        guidance: how far the model is led away from the errors of a weaker one, from 1 (not at all) to 10;
            without it, the model's own choice, or 2 with --guide.
        guide: the weaker model, of the same images; without it, the model without its last cell steps.
        device: where to compute; auto takes a GPU where there is one.
        engine: auto runs the network as is fast and exact on the device, eager as it was trained, fused by
            kernels for NVIDIA GPUs that have not been run on one yet.
        tile: side of the tiles of a large image in pixels; changes speed and memory, not the image.
        workers: processes that make the tiles of a large image, sharing the cores.
        scheduler: address of a Dask cluster whose workers make the tiles instead (tcp://...).
        windows: side of overlapping windows, for models that must see a whole image: blends their estimates.
        compression: of an .ome.tif file: jpeg of quality 90 (without it), or deflate, which loses nothing.
        dry_run: say how a large image would be made and what it would take, write nothing.
        film: write a film (.gif, .webp, .png or .mp4) of a small image in the making: left the noisy image,
            right the estimate of the clean one as it grows from cell step to cell step.
    """

    model: tyro.conf.Positional[str]
    seed: int = 0
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: str | None = None
    device: str = "auto"
    engine: Literal["auto", "eager", "fused"] = "auto"
    tile: int | None = None
    workers: int = 1
    scheduler: str | None = None
    windows: int | None = None
    compression: Literal["jpeg", "deflate"] | None = None
    dry_run: bool = False
    film: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Sample(Making):
    """Make images with a trained model.

    Attributes:
        out: the file: .png, or of any size .ome.zarr (also an address of fsspec) or .ome.tif. With --count
            above 1, a number is added to its name. A stopped large image goes on with the same command.
        height: of the image in pixels; without it, the size of the training crops.
        width: of the image in pixels; without it, the size of the training crops.
        count: how many images.
        batch: how many at once; changes speed and memory, not the images.
        seamless: axes along which the image continues at the opposite edge.
        region: make only this part, TOP,LEFT,HEIGHT,WIDTH in pixels, equal to the crop of the whole.
        direct: make a large image in one walk, also with a model that would else grow it out of one of the
            size of its training, because it sees the whole.
        even_px: side of the squares in pixels whose noise starts with one mean, so that a texture has one
            tone; 0 is another tone in each place; without it, the model's own choice.
        tone: which colours the image starts with, in standard deviations, one number for each channel
            (--tone 1 0 -1); without it, drawn by the seed.
    """

    verb: ClassVar = "sample"

    out: str = "sample.png"
    height: int | None = None
    width: int | None = None
    count: int = 1
    batch: int = 1
    seamless: Literal["none", "x", "y", "both"] = "none"
    region: tuple[int, int, int, int] | None = None
    direct: bool = False
    even_px: int | None = None
    tone: tuple[float, ...] | None = None

    def run(self, console: Console) -> int:
        """Make the images; return the exit code."""
        from diffnca.jobs.sample import sample

        return sample(self)


@dataclass(frozen=True, kw_only=True)
class Interpolate:
    """Make a film, or frames, of the images between those of two seeds.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name).
        seeds: those of the first and the last image, of whatever size made at once (sample --direct).
        out: the film (.gif, .webp, .png or .mp4), or a folder for frames, whose name has no ending.
        frames: images of the film, the first and the last included.
        height: of the images in pixels; without it, the size of the training crops.
        width: likewise.
        milliseconds: time of a frame.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps; without it, the model's own choice.
        seamless: axes along which the images continue at the opposite edge.
        batch: frames made at once; changes speed and memory, not the images.
        device: where to compute; auto takes a GPU where there is one.
    """

    verb: ClassVar = "interpolate"

    model: tyro.conf.Positional[str]
    seeds: tuple[int, int]
    out: Path
    frames: int = 24
    height: int | None = None
    width: int | None = None
    milliseconds: int = 80
    sampler: Literal["ddpm", "ddim", "dpmpp2m"] | None = None
    steps: int | None = None
    seamless: Literal["none", "x", "y", "both"] = "none"
    batch: int = 8
    device: str = "auto"

    def run(self, console: Console) -> int:
        """Make the film; return the exit code."""
        from diffnca.jobs.film import interpolate

        return interpolate(self)
