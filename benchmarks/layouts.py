"""Measure whether images follow their layout, whether they are useful as training pairs, and their structure.

    python benchmarks/layouts.py follow runs/layouts --models pathology runs/colon --obey 1 2
    python benchmarks/layouts.py subsets runs/layouts
    python benchmarks/layouts.py useful runs/layouts --pairs 8=runs/colon8 16=runs/colon16 32=pairs32/
    python benchmarks/layouts.py structure runs/layouts --pictures pathology=pathology slide=slides/

Each verb reads --data and --layouts: images, and label images of their names whose class 1 is to be found
(the glands of GlaS, with their lumina). A small segmenter (`segmenter.py`) sees the images at a quarter of
their size, and never those of --held-out. Finished parts in the folder are not done again.

`follow`: Dice of the things found in an image against its map, a mean over maps that neither the segmenter
nor a model saw; next to the real images of these maps, and to images made without a map. A model that knows
no layouts varies a drawing of the map.
`useful`: Dice on held-out real images, of segmenters that learned from few real images, with and without
synthetic pairs. `subsets` writes these few images and their layouts, to train generators on them alone.
`structure`: KID x 1000 of crops against held-out pictures, at several sizes, without pairs of crops of one
picture.

Glands are the connected parts of a mask; touching glands are one. Errors are over pictures, those of `useful`
over trainings. It needs `diffnca[baselines,eval,test]`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import tyro
from glands import mean_with_error
from maps import followed, kept_name, legend_of, numbers_of, outlined, scale_of, sheet, ways_of
from segmenter import Example, Lesson, dice, examples_of, segmenter
from tissue import Tissue

from diffnca import generate, load
from diffnca.canvas.pixels import to_uint8
from diffnca.config.layout import LayoutConfig
from diffnca.data import open_images
from diffnca.data.images import ImageSet
from diffnca.data.layouts import Layouts, coloured
from diffnca.data.sources import listed, stem_of
from diffnca.evaluation.metrics.distances import with_error
from diffnca.evaluation.metrics.features import efficientnet_lite0
from diffnca.evaluation.scores import score
from diffnca.evaluation.selections import Pictures, Selection, crops
from diffnca.formats.png import write_png
from diffnca.models.build import Generator
from diffnca.models.file import MODEL_FILE, find_model, read_card

GLANDS = "glands per mm² | area, µm² | roundness"


@dataclass(frozen=True)
class Follow(Tissue):
    """Is the layout followed? Dice of the things found again, on maps that nobody has seen."""

    models: tuple[str, ...] = ("pathology",)
    """Models, with and without layouts; all are asked for the same maps."""
    trained_on: Path | None = None
    """Images of the trainings whose cards name no held-out images: all others are unseen."""
    obey: tuple[float, ...] = (1.0,)
    """How closely models with layouts follow the maps; a row for each."""
    strengths: tuple[float, ...] = (0.75,)
    """How far models without layouts change the drawing; a row for each."""
    seed: int = 0
    """Seed of the first held-out picture; the next has the next seed."""
    maps: int | None = None
    """Number of maps; all unseen ones if left out."""
    fewest: int = 12
    """Fewer unseen maps are refused."""
    shown: int = 6
    """Number of maps on the sheet `follow.png`."""

    def run(self) -> None:
        """Print a table and draw a sheet."""
        wanted = self.unseen[: self.maps]
        real = [self.held_out_examples[index] for index in wanted]
        masks = [each.mask for each in real]
        print(f"| images | maps | Dice | {GLANDS} |\n|---|---|---|---|---|---|")
        print_row("masks of the real images", len(masks), "-", *self.glands(masks))
        columns = {"map": [coloured(mask.astype(np.uint8), self.ground_and_things) for mask in masks]}
        for title, images in self.rows(real, wanted):
            found = [self.segmenter.found(image) for image in images]
            values = [[dice(one, mask)] for one, mask in zip(found, masks, strict=True)]
            print_row(title, len(images), mean_with_error(values, 3), *self.glands(found))
            columns[title] = images
            columns[f"{title}, found"] = list(map(outlined, images, found))
        shown = {title: column[: self.shown] for title, column in columns.items()}
        write_png(self.out / "follow.png", sheet(shown), {})

    @property
    def unseen(self) -> list[int]:
        """Numbers of the held-out images that no model has seen."""
        names = [each.name for each in self.held_out_examples]
        unseen = [self.unseen_by(name, set(names)) for name in self.models]
        found = [index for index, name in enumerate(names) if all(name in each for each in unseen)]
        if len(found) < self.fewest:
            raise SystemExit(
                f"{len(found)} of the {len(names)} held-out pictures were held out by all trainings of "
                f"{', '.join(self.models)}: must be {self.fewest} or more; give others to --held-out, or "
                "--trained-on"
            )
        return found

    def unseen_by(self, model: str, names: set[str]) -> set[str]:
        """Return the names that the card of a model holds out, or that its training had not."""
        held_out = set(map(stem_of, read_card(find_model(model)).get("held_out", ())))
        if held_out or self.trained_on is None:
            return held_out
        return names - {stem_of(file.name) for file in listed([self.trained_on]).files}

    def rows(self, real: list[Example], wanted: list[int]) -> Iterator[tuple[str, list[np.ndarray]]]:
        """Yield the title and the images of each row."""
        yield "real", [each.image for each in real]
        for name in self.models:
            model = load(name)
            scale = scale_of(model, self.reduce)
            legend = legend_of(model, self.classes)
            for title, make in ways_of(model, legend, self.obey, self.strengths):
                folder = self.out / "follow" / kept_name(name, self.seed, title, legend.told)
                for index in wanted:
                    path = folder / f"{self.held_out_examples[index].name}.png"
                    if not path.is_file():
                        folder.mkdir(parents=True, exist_ok=True)
                        numbers = numbers_of(self.real[1].sources[index], legend, scale)
                        write_png(path, to_uint8(make(numbers, self.seed + index))[0], {"diffnca:way": title})
                made = open_images([folder], reduce=self.reduce // scale)
                images = dict(zip(map(stem_of, made.names), made, strict=True))
                yield f"{Path(name).stem}, {title}", [images[each.name] for each in real]


@dataclass(frozen=True)
class Few(Tissue):
    """What the parts with few real images need."""

    counts: tuple[int, ...] = (8, 16, 32)
    """Numbers of real images to train on."""

    def few(self, count: int) -> ImageSet:
        """Return some images to train on; those of a smaller number are among those of a larger one."""
        training = self.real[0]
        ranks = [sha256(stem_of(name).encode()).hexdigest() for name in training.names]
        return training.chosen(np.argsort(np.array(ranks))[:count].tolist())


@dataclass(frozen=True)
class Subsets(Few):
    """Write the few real images and their layouts, to train generators on them alone."""

    def run(self) -> None:
        """Write `subsets/8/images`, `subsets/8/layouts` and so on; print how to train."""
        for count in self.counts:
            folder = self.out / "subsets" / str(count)
            for source in self.few(count).sources:
                for kind, file in (("images", source.image), ("layouts", source.layout)):
                    (folder / kind).mkdir(parents=True, exist_ok=True)
                    (folder / kind / Path(file.name).name).write_bytes(file.content())
            print(f"diffnca train --data {folder}/images --layouts {folder}/layouts --data.validation 0")


@dataclass(frozen=True)
class Useful(Few):
    """Are synthetic pairs useful? Dice of segmenters that learned from few real images, with and without."""

    pairs: tuple[str, ...] = ()
    """8=PATH: a model that saw these 8 images alone, or a folder of its pairs: `images` and `layouts`."""
    synthetic: int = 64
    """Pairs that a model makes, of the maps of its own real images, mirrored and turned."""
    obey: float = 1.0
    """How closely a model follows these maps."""
    pairs_reduce: int = 2
    """Scale of the folders of pairs: how many px of the real images are one px of theirs."""
    seeds: int = 3
    """Trainings of each segmenter; the error is over these."""
    lesson: Lesson = field(default_factory=lambda: Lesson(crops=4_000))
    """How the segmenters learn."""

    def run(self) -> None:
        """Print a table."""
        paths = {int(count): path for count, _, path in (each.partition("=") for each in self.pairs)}
        print("| real images | Dice without pairs | Dice with pairs | pairs | gain |\n|---|---|---|---|---|")
        for count in self.counts:
            examples = examples_of(self.few(count))
            without = self.dices(str(count), examples, [])
            row = ["-", 0, "-"]
            if count in paths:
                made = self.pairs_in(*self.folder_of(count, paths[count]))
                name = f"{count}-{kept_name(paths[count], self.synthetic, self.obey)}"
                with_pairs = self.dices(name, examples, made)
                row = [mean_with_error(with_pairs, 3), len(made), gain(with_pairs, without)]
            print_row(len(examples), mean_with_error(without, 3), *row)

    def dices(self, name: str, real: list[Example], made: list[Example]) -> list[list[float]]:
        """Return the mean Dice on held-out real images for each seed."""
        found = []
        for seed in range(self.seeds):
            path = self.out / "useful" / f"{name}-{seed}.safetensors"
            trained = segmenter(path, self.lesson, real, made, seed)
            each = [dice(trained.found(one.image), one.mask) for one in self.held_out_examples]
            found.append([float(np.mean(each))])
        return found

    def pairs_in(self, folder: Path, scale: int) -> list[Example]:
        """Return the pairs of a folder; white is not measured again, and belongs to a gland around it."""
        classes = tuple(each.replace("white=", "inside=") for each in self.classes)
        layouts = Layouts([folder / "layouts"], LayoutConfig(classes))
        return examples_of(open_images([folder / "images"], reduce=self.reduce // scale, layouts=layouts))

    def folder_of(self, count: int, path: str) -> tuple[Path, int]:
        """Return a folder of pairs and its scale; a model first makes what is missing."""
        if (Path(path) / "layouts").is_dir():
            return Path(path), self.pairs_reduce
        model, few = load(path), self.few(count)
        scale = scale_of(model, self.reduce)
        folder = self.out / "useful" / f"pairs-{count}-{kept_name(path, self.obey)}"
        for number in range(self.synthetic):
            self.make_pair(model, few, number, folder, scale)
        return folder, scale

    def make_pair(self, model: Generator, few: ImageSet, number: int, folder: Path, scale: int) -> None:
        """Write a real map, mirrored and turned at random, and an image that a model makes of it."""
        image, layout = (folder / kind / f"{number:05d}.png" for kind in ("images", "layouts"))
        if image.is_file():
            return
        random, source = np.random.default_rng(number), few.sources[number % len(few)]
        is_mirrored, turns = random.integers(2), random.integers(4)
        legends = (legend_of(model, self.classes), self.ground_and_things)
        maps = (numbers_of(source, legend, scale) for legend in legends)
        numbers, mask = (np.rot90(each[:, ::-1] if is_mirrored else each, turns) for each in maps)
        made = to_uint8(followed(model, numbers, number, self.obey))[0]
        for path, pixels in ((layout, np.ascontiguousarray(mask)[..., None]), (image, made)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, pixels, {})


@dataclass(frozen=True)
class Structure(Tissue):
    """Is there structure? KID at several sizes, and statistics of glands, of large pictures."""

    pictures: tuple[str, ...] = ("pathology=pathology",)
    """NAME=PATH: a model, or a folder of pictures of any size."""
    pictures_reduce: int = 2
    """Scale of the folders of pictures: how many px of the real images are one px of theirs."""
    maker: str | None = None
    """Model that makes the maps for models that follow coarse colours; their own if left out."""
    side: int = 2048
    """Side of the pictures that a model makes, in px of the real images."""
    count: int = 8
    """Number of pictures that a model makes; more in its folder count too."""
    seed: int = 0
    """Seed of the first of these."""
    factors: tuple[int, ...] = (1, 2, 4, 8)
    """Sizes: real images and pictures are made smaller by these factors; a model has none above its own."""
    crop_px: int = 64
    """Side of the crops after that: at 1/8, 512 px of the real images."""
    crops: int = 200
    """Number of crops, at random places."""

    def run(self) -> None:
        """Print a table."""
        sizes = " | ".join(f"KID at 1/{factor}" for factor in self.factors)
        print(f"| pictures | number | {sizes} | {GLANDS} |\n|{'---|' * (len(self.factors) + 5)}")
        held_out, blank = self.held_out_examples, ["-"] * len(self.factors)
        seen = {factor: self.at(factor)[0] for factor in self.factors}
        print_row("real, their masks", len(held_out), *blank, *self.glands([e.mask for e in held_out]))
        found = self.glands([self.segmenter.found(each.image) for each in held_out])
        print_row("real", len(held_out), *self.kids(seen), *found)
        for name, _, path in (each.partition("=") for each in self.pictures):
            folder, scale = self.folder_of(path)
            fitting = [factor for factor in self.factors if factor % scale == 0]
            made = {factor: open_images([folder], reduce=factor // scale) for factor in fitting}
            small = open_images([folder], reduce=self.reduce // scale)
            found = [[self.segmenter.found(piece) for piece in self.pieces(each)] for each in small]
            print_row(name, len(small), *self.kids(made), *self.glands_of_pieces(found))

    def at(self, factor: int) -> tuple[ImageSet, ImageSet]:
        """Return the real images to train on, and those that are held out, smaller by a factor."""
        return self.parts(open_images([self.data], reduce=factor))

    def kids(self, made: dict[int, ImageSet]) -> list[str]:
        """Return KID x 1000 at each size, against held-out images."""
        found = []
        for factor in self.factors:
            both = [self.crops_of(each) for each in (made.get(factor, ()), self.at(factor)[1])]
            if None in both:
                found.append("-")
                continue
            measured = score(*both, efficientnet_lite0(), cache=self.out / "features")
            found.append(with_error(measured.kid_x1000, measured.error, 0))
        return found

    def crops_of(self, pictures: Pictures) -> Selection | None:
        """Return crops at random places; `None` if there are not enough."""
        rooms = [[max(side - self.crop_px + 1, 0) for side in each.shape[:2]] for each in pictures]
        places = sum(math.prod(room) for room in rooms)
        return crops(pictures, min(self.crops, places), self.crop_px, seed=0) if places > 1 else None

    def folder_of(self, path: str) -> tuple[Path, int]:
        """Return a folder of pictures and its scale; a model first makes what is missing."""
        if Path(path).is_dir() and not (Path(path) / MODEL_FILE).is_file():
            return Path(path), self.pictures_reduce
        model = load(path)
        scale, maker = scale_of(model, self.reduce), self.maker or model.config.layout.maker
        drawer = load(maker) if maker is not None and model.config.layout.coarse else None
        told = None if drawer is None else find_model(maker).read_bytes()
        folder = self.out / "structure" / kept_name(path, self.side, told)
        folder.mkdir(parents=True, exist_ok=True)
        size = {"height": self.side // scale, "width": self.side // scale}
        for seed in range(self.seed, self.seed + self.count):
            if not (folder / f"{seed}.png").is_file():
                made = to_uint8(generate(model, **size, seed=seed, maker=drawer))[0]
                write_png(folder / f"{seed}.png", made, {})
        return folder, scale

    def pieces(self, picture: np.ndarray) -> list[np.ndarray]:
        """Return pieces as large as the held-out images, so that as many glands are cut by their edges."""
        height, width = np.median(self.real[1].sizes, axis=0).astype(int)
        return [
            picture[top : top + height, left : left + width]
            for top in range(0, picture.shape[0] - height + 1, height)
            for left in range(0, picture.shape[1] - width + 1, width)
        ]


def gain(with_pairs: list[list[float]], without: list[list[float]]) -> str:
    """Return the difference of two means over trainings, with its error."""
    errors = [np.std(each, ddof=1) / math.sqrt(len(each)) for each in (with_pairs, without)]
    return with_error(float(np.mean(with_pairs) - np.mean(without)), float(np.hypot(*errors)), 3)


def print_row(*cells: object) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main(verb: Follow | Subsets | Useful | Structure) -> None:
    """Measure."""
    torch.set_num_threads(verb.threads)
    verb.run()


if __name__ == "__main__":
    main(tyro.cli(Follow | Subsets | Useful | Structure, description=__doc__))
