"""A folder of pairs of images and maps, to train with; nothing is printed.

The folder holds images, maps of class numbers, an index and a manifest. The manifest appears first, the index
last. A stopped command goes on: pairs whose two files are there are not made again.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffnca import __version__
from diffnca.errors import Interrupted
from diffnca.files import check_place, lock, remove_partials, replace_atomically
from diffnca.formats.coco import Annotated, Class, write_coco
from diffnca.formats.png import write_numbers, write_png
from diffnca.jobs.options import Place
from diffnca.jobs.pairs import Pairs
from diffnca.jobs.plan import check
from diffnca.jobs.request import text_of
from diffnca.jobs.run import Watch, draw
from diffnca.jobs.target import holds_all
from diffnca.progress import Report, part_of, unseen

IMAGES, LAYOUTS = "images", "layouts"
INDEX, MANIFEST, ANNOTATIONS = "index.csv", "manifest.json", "annotations.json"


@dataclass(frozen=True)
class Synthesized:
    """A finished dataset: how many of its pairs are new, and the files that list the pairs."""

    num_new: int
    lists: tuple[Path, ...]


def synthesize(
    pairs: Pairs,
    folder: Path,
    batch: int = 8,
    device: str = "auto",
    has_coco: bool = False,
    report: Report = unseen,
    cancelled: Callable[[], bool] = lambda: False,
) -> Synthesized:
    """Make the pairs that the folder lacks, and list all of them.

    `batch` pairs are made at once; this changes speed and memory, not the pairs. `has_coco` adds annotations
    in the format of COCO. After each step `cancelled` is asked whether to stop.

    Raises:
        ValueError: they cannot be made, or the folder holds something else; nothing is written.
        OSError: a file cannot be read or written; what is finished is kept.
        Interrupted: the work was stopped; what is finished is kept.
    """
    dataset, watch = Dataset(folder, pairs), Watch(report, cancelled)
    first = Place(out=str(dataset.image(0)), batch=batch, device=device)
    for request in pairs.requests.values():
        check(request, first)
    dataset.check()
    with lock(folder):
        dataset.begin()
        missing = dataset.missing(watch)
        done = pairs.count - len(missing)
        for indices in pairs.batches(missing, batch):
            try:
                dataset.make(indices, device, part_of(watch, "pairs", done, len(indices), pairs.count))
            except KeyboardInterrupt:
                raise Interrupted(f"stopped after {done} of {pairs.count} pairs", "goes on") from None
            done += len(indices)
        return Synthesized(len(missing), dataset.finish(has_coco, watch))


@dataclass(frozen=True)
class Dataset:
    """Pairs in a folder."""

    folder: Path
    pairs: Pairs

    def image(self, index: int) -> Path:
        """Return the file of an image."""
        return self.folder / IMAGES / _name(index)

    def layout(self, index: int) -> Path:
        """Return the file of a map."""
        return self.folder / LAYOUTS / _name(index)

    def check(self) -> None:
        """Refuse a folder that holds something else, or other pairs."""
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: is a file; name a folder")
        check_place(self.folder)
        for given in self.pairs.maps:
            if given.path.resolve().is_relative_to(self.folder.resolve()):
                raise ValueError(f"{self.folder}: holds the given maps; give another --out")
        manifest = self._read_manifest()
        if manifest is not None:
            self._check_same(manifest)
        for part in (IMAGES, LAYOUTS):
            self._check_names(self.folder / part)

    def begin(self) -> None:
        """Make the folders and the manifest; remove what a killed command left."""
        for folder in (self.folder, self.folder / IMAGES, self.folder / LAYOUTS):
            folder.mkdir(exist_ok=True)
            remove_partials(folder)
        with replace_atomically(self.folder / MANIFEST) as partial_file:
            partial_file.write_text(
                json.dumps(self._manifest(), indent=2, ensure_ascii=False) + "\n", "utf-8"
            )

    def missing(self, report: Report) -> list[int]:
        """Return the pairs that are not there: both files of a pair must be complete and of its request."""
        return [index for index in self._indices(report, "finished pairs") if not self._has(index)]

    def make(self, indices: Sequence[int], device: str, progress: Callable[..., object]) -> None:
        """Make pairs of one size."""
        requests = [self.pairs.request(index) for index in indices]
        place = Place(out=str(self.image(0)), save_layout=self.layout(0), device=device)
        images = draw(requests, place, None, progress)
        for index, request, made in zip(indices, requests, images, strict=True):
            assert made.numbers is not None
            text = text_of(request)
            write_png(self.image(index), made.pixels, text)
            write_numbers(self.layout(index), made.numbers, self.pairs.legend.colours, text)

    def finish(self, has_coco: bool, report: Report) -> tuple[Path, ...]:
        """Write the index, and annotations if they are asked for or there; return their files."""
        self._write_index(self.folder / INDEX)
        annotations = self.folder / ANNOTATIONS
        if not has_coco and not annotations.exists():
            return (self.folder / INDEX,)
        licence = self.pairs.licences()["model"]
        write_coco(annotations, self._annotated(report), _classes(self.pairs)[1:], licence)
        return self.folder / INDEX, annotations

    def _has(self, index: int) -> bool:
        request = self.pairs.request(index)
        return holds_all((self.image(index), self.layout(index)), request)

    def _read_manifest(self) -> dict[str, Any] | None:
        """Return the manifest; `None` for a folder without anything."""
        path = self.folder / MANIFEST
        if not path.exists():
            names = sorted(each.name for each in self.folder.glob("[!.]*"))
            if names:
                raise ValueError(f"{self.folder}: holds {names[0]} and no {MANIFEST}; name a new folder")
            return None
        with suppress(ValueError, KeyError, TypeError):
            manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if isinstance(manifest["request"], dict) and isinstance(manifest["count"], int):
                return manifest
        raise ValueError(f"{path}: is no manifest of diffnca, or damaged; name a new folder")

    def _check_same(self, manifest: dict[str, Any]) -> None:
        made, wanted = manifest["request"], self.pairs.facts()
        for key in dict.fromkeys((*wanted, *made)):
            has, wants = (str(side.get(key, "none")) for side in (made, wanted))
            if key != "model" and has != wants:
                other = f"holds pairs of {key} {has}, this command says {wants}"
                raise ValueError(f"{self.folder}: {other}; give another --out")
        if manifest["count"] > self.pairs.count:
            raise ValueError(
                f"{self.folder}: holds {manifest['count']} pairs, this command says {self.pairs.count}; "
                f"give --count {manifest['count']} or more, or another --out"
            )

    def _check_names(self, folder: Path) -> None:
        own = {_name(index) for index in range(self.pairs.count)}
        others = sorted({each.name for each in folder.glob("[!.]*")} - own)
        if others:
            raise ValueError(
                f"{folder}: holds {others[0]}, which is of no pair; remove it, or give another --out"
            )

    def _manifest(self) -> dict[str, Any]:
        pairs = self.pairs
        return {
            "software": f"diffnca {__version__}",
            "count": pairs.count,
            "seeds": [pairs.first.seed, pairs.first.seed + pairs.count - 1],
            "request": pairs.facts(),
            "classes": [
                {"number": number, "name": name, "colour": f"#{bytes(colour).hex()}"}
                for number, name, colour in _classes(pairs)
            ],
            "licence": pairs.licences(),
        }

    def _write_index(self, path: Path) -> None:
        with (
            replace_atomically(path) as partial_file,
            open(partial_file, "w", newline="", encoding="utf-8") as file,
        ):
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["image", "layout", "seed", *(["map"] if self.pairs.maps else [])])
            for index in range(self.pairs.count):
                given = self.pairs.map_of(index)
                files = (f"{IMAGES}/{_name(index)}", f"{LAYOUTS}/{_name(index)}")
                rows.writerow([*files, self.pairs.first.seed + index, *([given.name] if given else [])])

    def _annotated(self, report: Report) -> Iterator[Annotated]:
        for index in self._indices(report, "annotations"):
            with Image.open(self.layout(index)) as layout:
                numbers = np.asarray(layout)
            yield Annotated(_name(index), numbers, {"seed": self.pairs.first.seed + index})

    def _indices(self, report: Report, title: str) -> Iterator[int]:
        for index in range(self.pairs.count):
            report(title, index, self.pairs.count)
            yield index


def _name(index: int) -> str:
    return f"{index:06d}.png"


def _classes(pairs: Pairs) -> list[Class]:
    legend = pairs.legend
    return [Class(*each) for each in zip(range(len(legend.names)), legend.names, legend.colours, strict=True)]
