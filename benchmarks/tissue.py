"""Real tissue with masks: what is trained on, what is held out, and the segmenter of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import tyro
from glands import cells_of, glands_in
from segmenter import Example, Lesson, Segmenter, examples_of, segmenter

from diffnca.config.layout import LayoutConfig
from diffnca.data import open_images
from diffnca.data.images import ImageSet
from diffnca.data.layouts import Layouts
from diffnca.data.sources import stem_of

HELD_OUT = """
glas_testA_1 glas_testA_11 glas_testA_14 glas_testA_15 glas_testA_16 glas_testA_2 glas_testA_24
glas_testA_25 glas_testA_37 glas_testA_4 glas_testA_8 glas_testB_1 glas_testB_14 glas_testB_20
glas_train_20 glas_train_32 glas_train_33 glas_train_4 glas_train_67 glas_train_77
""".split()
"""Names of the pictures of GlaS that neither segmenters nor models with layouts see."""


@dataclass(frozen=True)
class Tissue:
    """Real images with their masks, and what measures them."""

    out: tyro.conf.Positional[Path]
    """Folder of segmenters, images, features and sheets."""
    data: Path = Path("pathology_glas.zip")
    """Real images: a folder or a zip file."""
    layouts: Path = Path("pathology_glas_masks.zip")
    """Their label images."""
    classes: tuple[str, ...] = ("stroma=#d496cd", "gland=#8250a5", "white=#f2e8f4")
    """Ground, things, and `white`, which is measured; for drawings, and for folders of pairs."""
    held_out: tuple[str, ...] = tuple(HELD_OUT)
    """Names, without endings, of the pictures that the segmenter never sees."""
    reduce: int = 4
    """The segmenter sees images smaller by this factor."""
    microns_per_px: float = 0.62
    """Scale of the real images."""
    smallest_um2: float = 500.0
    """Area of the smallest gland that counts."""
    lesson: Lesson = field(default_factory=Lesson)
    """How the segmenter learns."""
    threads: int = 1
    """Threads to compute with."""

    @cached_property
    def real(self) -> tuple[ImageSet, ImageSet]:
        """The labelled images to train on, and those that are held out, at the size of the segmenter."""
        layouts = Layouts([self.layouts], self.ground_and_things)
        return self.parts(open_images([self.data], reduce=self.reduce, layouts=layouts))

    @cached_property
    def held_out_examples(self) -> list[Example]:
        """The held-out images as examples."""
        return examples_of(self.real[1])

    @cached_property
    def segmenter(self) -> Segmenter:
        """The segmenter that has seen all real images but the held-out ones."""
        return segmenter(self.out / "segmenter.safetensors", self.lesson, examples_of(self.real[0]))

    @property
    def ground_and_things(self) -> LayoutConfig:
        """The legend of the label images."""
        return LayoutConfig(self.classes[:2])

    def parts(self, images: ImageSet) -> tuple[ImageSet, ImageSet]:
        """Return the images to train on, and those that are held out."""
        names = list(map(stem_of, images.names))
        missing = set(self.held_out) - set(names)
        if missing:
            raise SystemExit(f"--held-out {min(missing)}: must be the name of a picture in {self.data}")
        seen = [index for index, name in enumerate(names) if name not in self.held_out]
        held_out = [index for index, name in enumerate(names) if name in self.held_out]
        return images.chosen(seen), images.chosen(held_out)

    def glands(self, masks: list[np.ndarray]) -> list[str]:
        """Return the statistics of masks at the size of the segmenter."""
        return self.glands_of_pieces([[mask] for mask in masks])

    def glands_of_pieces(self, pictures: list[list[np.ndarray]]) -> list[str]:
        """Return the statistics of pictures that are cut into pieces."""
        scale = self.microns_per_px * self.reduce
        return cells_of([[glands_in(mask, scale, self.smallest_um2) for mask in masks] for masks in pictures])
