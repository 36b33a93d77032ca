"""Generated images to be scored: each has its seed and its file, so that a stopped run goes on."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_uint8
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.evaluation.selections import Picture
from diffnca.formats.png import read_png_text, write_png
from diffnca.models.build import Generator
from diffnca.models.file import find_model, load, load_denoiser
from diffnca.progress import Report, part_of, unseen
from diffnca.sampling.generate import generate
from diffnca.sampling.task import walk_of

BATCH_PX = 64 * 64 * 16
"""Pixels of a batch of small images; this number changes speed and memory, not the images."""

JPEG_QUALITY = 75
"""The default of Pillow; the published samples were stored with it."""


@dataclass(frozen=True)
class Samples:
    """Images of `seed`, `seed` + 1, ...; `None` takes the model's own sampler, steps, and sides in px."""

    model: str
    height: int | None = None
    width: int | None = None
    seed: int = 0
    sampler: str | None = None
    steps: int | None = None
    device: str = "cpu"

    @cached_property
    def generator(self) -> Generator:
        """The loaded model."""
        return load(self.model, self.device)

    @cached_property
    def maker(self) -> ImageDenoiser | None:
        """The model that makes the maps, as in sampling."""
        name = self.generator.config.layout.maker
        return None if name is None else load_denoiser(name)

    @cached_property
    def facts(self) -> dict[str, str]:
        """All that these images depend on, without their seeds."""
        crop = str(self.generator.config.data.crop)
        facts = {"weights": sha256(find_model(self.model).read_bytes()).hexdigest()}
        facts |= {"height": str(self.height or crop), "width": str(self.width or crop)}
        if self.maker is not None:
            name = str(self.generator.config.layout.maker)
            facts["maker"] = sha256(find_model(name).read_bytes()).hexdigest()
        if not isinstance(self.generator, Autoencoder):
            sampler, levels = walk_of(self.generator, self.sampler, self.steps)
            facts |= {"sampler": sampler.name, "steps": str(len(levels))}
        return facts

    def pictures(self, n: int, folder: Path | None = None, report: Report = unseen) -> Iterator[Picture]:
        """Yield `n` images in the order of their seeds; refuse a folder with images of other options.

        `folder` keeps PNG files and is read first. `report` receives images done, steps as fractions.
        """
        Noise((self.seed, self.seed + n - 1))  # refuses seeds out of range before the first image
        batch = max(1, BATCH_PX // (int(self.facts["height"]) * int(self.facts["width"])))
        if folder is not None:
            folder.mkdir(exist_ok=True)
        for first in range(0, n, batch):
            seeds = range(self.seed + first, self.seed + min(first + batch, n))
            yield from self._batch(seeds, folder, part_of(report, "generated images", first, len(seeds), n))
            report("generated images", first + len(seeds), n)

    def _batch(self, seeds: Sequence[int], folder: Path | None, step: Callable[..., object]) -> list[Picture]:
        kept = {} if folder is None else _kept(folder, seeds, self.facts)
        missing = [seed for seed in seeds if seed not in kept]
        if missing:
            images = generate(
                self.generator,
                height=int(self.facts["height"]),
                width=int(self.facts["width"]),
                seed=missing,
                sampler=self.sampler,
                steps=self.steps,
                device=torch.device(self.device),
                progress=step,
                maker=self.maker,
            )
            colours = self.generator.config.model.image_channels
            kept |= dict(zip(missing, to_uint8(images[:, :colours]), strict=True))
        if folder is not None:
            for seed in missing:
                facts = {**self.facts, "seed": str(seed)}
                text = {f"diffnca:{name}": value for name, value in facts.items()}
                write_png(_file(folder, seed), kept[seed], text)
        return [kept[seed] for seed in seeds]


def as_jpeg(picture: Picture) -> Picture:
    """Store an image as JPEG, and return the decoded image."""
    stored = io.BytesIO()
    pixels = picture[..., 0] if picture.shape[2] == 1 else picture
    Image.fromarray(pixels).save(stored, "JPEG", quality=JPEG_QUALITY)
    return np.atleast_3d(np.asarray(Image.open(stored)))


def _kept(folder: Path, seeds: Sequence[int], facts: dict[str, str]) -> dict[int, Picture]:
    found = {}
    for seed in seeds:
        path = _file(folder, seed)
        if not path.is_file():
            continue
        text = read_png_text(path)
        for name, value in facts.items():
            if text.get(f"diffnca:{name}") != value:
                raise ValueError(
                    f"{path}: was made with {name} {text.get(f'diffnca:{name}', 'unknown')[:16]}, not "
                    f"{value[:16]}; give an empty folder for --samples"
                )
        with Image.open(path) as image:
            found[seed] = np.atleast_3d(np.asarray(image))
    return found


def _file(folder: Path, seed: int) -> Path:
    return folder / f"{seed:06d}.png"
