"""The command that makes a dataset: pairs of images and maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from diffnca.cli import console
from diffnca.cli.images import Nested, counted
from diffnca.jobs.options import Choices


@dataclass(frozen=True, kw_only=True)
class Synthesize:
    """Make pairs of images and maps of their classes, to train with.

    A stopped command goes on if you give it again; a larger --count adds pairs.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name); it must follow maps,
            or make a map with each image.
        out: the folder of the dataset: images, layouts (PNG of class numbers), index.csv, manifest.json.
        choices: how to sample.
        height: height of the images in pixels; without it, that of the maps, or of the training crops.
        width: width of the images in pixels; without it, that of the maps, or of the training crops.
        layout: a folder of label images (PNG or TIFF) or of polygons (GeoJSON), which the images follow in
            turn, in the order of their names.
        maker: the model that makes the maps, or what they leave free; without it, the model's own choice.
        label: what the images show: one of the labels in `diffnca info MODEL`; without it, any of them.
        like: a picture whose colours and texture the images have, as for sample.
        obey: how closely to follow maps and label, from 0 (not at all) to 10; above 1 the model is led away
            from what it would make without, in twice the time.
        coco: also write annotations.json in the format of COCO, with an object for each connected part of
            each class but the first.
        batch: how many pairs at once; changes speed and memory, not the pairs.
        device: where to compute; auto takes a GPU where there is one.
    """

    verb: ClassVar = "synthesize"

    model: tyro.conf.Positional[str]
    out: Path
    choices: Annotated[Choices, Nested] = field(default_factory=lambda: Choices(count=100))
    height: int | None = None
    width: int | None = None
    layout: Path | None = None
    maker: str | None = None
    label: str | None = None
    like: Path | None = None
    obey: float = 1.0
    coco: bool = False
    batch: int = 8
    device: str = "auto"

    def run(self) -> int:
        """Make the pairs; return the exit code."""
        from diffnca.jobs.dataset import synthesize
        from diffnca.jobs.pairs import pairs_of

        size = (self.height, self.width)
        pairs = pairs_of(
            self.model, self.choices, size, self.layout, self.maker, self.label, self.like, self.obey
        )
        with console.progress() as progress:
            made = synthesize(pairs, self.out, self.batch, self.device, self.coco, progress)
        console.say(f"{self.out}: {counted(pairs.count, 'pair')}, {made.num_new:,} of them new")
        for path in made.lists:
            console.say(str(path))
        return 0
