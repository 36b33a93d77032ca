"""Generated images to be scored: each has its seed and its file, so that a stopped run goes on."""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_uint8
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.evaluation.maps import Maps
from diffnca.evaluation.selections import Picture
from diffnca.files import OWN
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
    """Images of `seed`, `seed` + 1, ...; `None` takes the model's own sampler, steps, and sides in px.

    All images show `label`, and each one has its own of the `maps`; `obey` is as for `generate`.
    """

    model: str
    height: int | None = None
    width: int | None = None
    seed: int = 0
    sampler: str | None = None
    steps: int | None = None
    device: str = "cpu"
    label: str | None = None
    obey: float = 1.0
    maps: Maps | None = None

    @cached_property
    def generator(self) -> Generator:
        """The loaded model."""
        return load(self.model, self.device)

    @cached_property
    def maker(self) -> ImageDenoiser | None:
        """The model that makes maps, or what maps leave free, as in sampling; `None` if there is none."""
        name = self.generator.config.layout.maker
        return None if name is None else load_denoiser(name)

    def leaves_free(self, seed: int) -> bool:
        """Return whether the map of an image is unknown, or in some places."""
        return self.maps is None or bool((self.maps.numbers([seed]) < 0).any())

    @cached_property
    def facts(self) -> dict[str, str]:
        """All that these images depend on, without their seeds and maps, and who completes a map."""
        crop = str(self.generator.config.data.crop)
        facts = {"weights": sha256(find_model(self.model).read_bytes()).hexdigest()}
        facts |= {"height": str(self.height or crop), "width": str(self.width or crop)}
        facts |= self._maker_facts if self.maps is None else {}
        if not isinstance(self.generator, Autoencoder):
            sampler, levels = walk_of(self.generator, self.sampler, self.steps)
            facts |= {"sampler": sampler.name, "steps": str(len(levels))}
        told = {"label": self.label, "obey": None if self.obey == 1.0 else f"{self.obey:g}"}
        return facts | {name: value for name, value in told.items() if value is not None}

    @cached_property
    def _maker_facts(self) -> dict[str, str]:
        name = self.generator.config.layout.maker
        return {} if name is None else {"maker": sha256(find_model(name).read_bytes()).hexdigest()}

    def facts_of(self, seed: int) -> dict[str, str]:
        """Return all that an image depends on."""
        facts = {**self.facts, "seed": str(seed)}
        if self.maps is not None:
            facts |= self._maker_facts if self.leaves_free(seed) else {}
            facts["layout"] = sha256(self.maps.numbers([seed]).numpy().tobytes()).hexdigest()[:16]
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
        kept = {} if folder is None else self._kept(folder, seeds)
        missing = [seed for seed in seeds if seed not in kept]
        free = [seed for seed in missing if self.leaves_free(seed)]
        complete = [seed for seed in missing if seed not in free]
        for alike, maker in ((free, self.maker), (complete, None)):
            if alike:
                kept |= dict(zip(alike, self._drawn(alike, maker, step), strict=True))
        if folder is not None:
            for seed in missing:
                text = {f"{OWN}{name}": value for name, value in self.facts_of(seed).items()}
                write_png(_file(folder, seed), kept[seed], text)
        return [kept[seed] for seed in seeds]

    def _drawn(
        self, seeds: Sequence[int], maker: ImageDenoiser | None, step: Callable[..., object]
    ) -> UInt8[np.ndarray, "b h w c"]:
        images = generate(
            self.generator,
            height=int(self.facts["height"]),
            width=int(self.facts["width"]),
            seed=seeds,
            sampler=self.sampler,
            steps=self.steps,
            device=torch.device(self.device),
            progress=step,
            layout=None if self.maps is None else self.maps.numbers(seeds),
            maker=maker,
            label=self.label,
            obey=self.obey,
        )
        return to_uint8(images[:, : self.generator.config.model.image_channels])

    def _kept(self, folder: Path, seeds: Sequence[int]) -> dict[int, Picture]:
        found = {}
        for seed in seeds:
            path, wanted = _file(folder, seed), self.facts_of(seed)
            if not path.is_file():
                continue
            text = {key.removeprefix(OWN): value for key, value in read_png_text(path).items()}
            for name in dict.fromkeys((*wanted, *text)):
                there, needed = text.get(name, "unknown"), wanted.get(name, "unknown")
                if there != needed:
                    raise ValueError(
                        f"{path}: was made with {name} {there[:16]}, not {needed[:16]}; give an empty folder "
                        "for --samples"
                    )
            with Image.open(path) as image:
                found[seed] = np.atleast_3d(np.asarray(image))
        return found


def as_jpeg(picture: Picture) -> Picture:
    """Store an image as JPEG, and return the decoded image."""
    stored = io.BytesIO()
    pixels = picture[..., 0] if picture.shape[2] == 1 else picture
    Image.fromarray(pixels).save(stored, "JPEG", quality=JPEG_QUALITY)
    return np.atleast_3d(np.asarray(Image.open(stored)))


def _file(folder: Path, seed: int) -> Path:
    return folder / f"{seed:06d}.png"
