"""Train on a few pictures for a few minutes, in several ways, and score what comes of it.

    python benchmarks/own_images.py runs --sets gravel=gravel.png frozen=sections/ --images 9000 30000

Each set is a photo or a folder. The parts that a training by default would hold out are cut off first, and
all ways train on the rest. `default` is `diffnca train` as it is, `scratch` begins with random weights, and
`former` is the command in --former, for example of an older version. A budget in images is the same work on
every machine: two quiet cores show about 50 crops of 64 px a second. Finished parts are not done again.

KID x1000 (EfficientNet-Lite0, 64 px crops at random places) is that of 6 samples of 256 px, with the error
over pictures, next to crops of the training images. A sheet of each run lies beside its model.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from diffnca.data import open_images
from diffnca.data.held_out import split
from diffnca.evaluation.closeness import CROP_PX, NUM_CROPS, SAMPLE_PX, closeness, random_crops
from diffnca.evaluation.metrics.distances import with_error
from diffnca.evaluation.metrics.textures import spectrum_error_db
from diffnca.evaluation.samples import Samples
from diffnca.evaluation.selections import crops
from diffnca.formats.png import write_png
from diffnca.models.file import find_model, read_card

WAYS = {"default": (), "scratch": ("--from", "none")}
ROOM_PX = 64


@dataclass(frozen=True)
class Options:
    """What to train on, how long, in which ways."""

    out: tyro.conf.Positional[Path]
    """Folder of the runs."""
    sets: tuple[str, ...]
    """NAME=PATH, or NAME=PATH@2 for pictures made two times smaller."""
    images: tuple[int, ...] = (9_000, 30_000)
    """Budgets in training crops."""
    ways: tuple[str, ...] = ("default", "scratch")
    """Which ways; `former` needs --former."""
    former: str = ""
    """Command of an older version, up to and with `train`."""


def main(options: Options) -> None:
    """Train and score what is not there yet; print a table in Markdown."""
    rows = [row for told in options.sets for row in rows_of(told, options)]
    print("| pictures | crops | way | KID x 1000 | seen crops | spectrum, dB off | first weights |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


def rows_of(told: str, options: Options) -> list[str]:
    """Return the rows of one set."""
    name, _, place = told.partition("=")
    path, _, factor = place.partition("@")
    folder = options.out / name
    data = parts_of(Path(path), folder)
    rows = []
    for images in options.images:
        for way in options.ways:
            run = folder / f"{way}-{images}"
            trained(run, data / "train", int(factor or 1), images, way, options.former)
            facts = scored(run, data, int(factor or 1))
            numbers = "{kid} | {seen} | {spectrum} | {start}".format(**facts)
            rows.append(f"| {name} | {images:,} | {way} | {numbers} |")
    return rows


def parts_of(path: Path, folder: Path) -> Path:
    """Return a folder with `train` and `held`: `path` itself, or its images, split as by default."""
    if (path / "train").is_dir() and (path / "held").is_dir():
        return path
    parts = split(open_images([path]), None, 0, ROOM_PX)
    for name, images in zip(("train", "held"), parts, strict=True):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(images):
            Image.fromarray(pixels.squeeze()).save(folder / name / f"{number:03d}.png")
    return folder


def trained(run: Path, data: Path, factor: int, images: int, way: str, former: str) -> None:
    """Train one model, unless it is there."""
    if (run / "score.json").is_file():
        return
    run.parent.mkdir(parents=True, exist_ok=True)
    told = ["--data", str(data), "--images", str(images), "--sample-minutes", "0", "--out", str(run)]
    if way == "former":
        command = [*shlex.split(former), *told, "--data.reduce", str(factor)]
    else:
        scale = ("--scale", f"{factor}px", "--data.validation", "0")
        command = [sys.executable, "-m", "diffnca", "train", *told, *scale, *WAYS[way]]
    subprocess.run(command, check=True)


def scored(run: Path, data: Path, factor: int) -> dict[str, str]:
    """Return the scores of a run, from its file if it is there; write a sheet."""
    path = run / "score.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    seen, held = (open_images([data / name], reduce=factor) for name in ("train", "held"))
    found = closeness(run, seen, held)
    assert found is not None, f"{data / 'held'}: too little is held out"
    samples = Samples(str(run), SAMPLE_PX, SAMPLE_PX)
    made = [rgb(each) for each in samples.pictures(4)]
    real = [rgb(image[:SAMPLE_PX, :SAMPLE_PX]) for image in seen][:4]
    write_png(run / "sheet.png", sheet([made, real]), {"diffnca:rows": "samples, training images"})
    reference = random_crops(held).images.expand(-1, 3, -1, -1)
    spectrum = spectrum_error_db(crops(made, NUM_CROPS, CROP_PX, seed=0).images, reference)
    facts = {
        "kid": with_error(found.samples.kid_x1000, found.samples.error, 0),
        "seen": with_error(found.seen.kid_x1000, found.seen.error, 0),
        "spectrum": f"{spectrum:.1f}",
        "start": str(read_card(find_model(run)).get("fine_tuned_from", "random")),
    }
    path.write_text(json.dumps(facts))
    return facts


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Return an image with three channels."""
    return pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)


def sheet(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Return rows of images, each on white ground."""
    width = max(len(row) for row in rows) * SAMPLE_PX
    made = np.full((len(rows) * SAMPLE_PX, width, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            height, wide, _ = image.shape
            made[y * SAMPLE_PX : y * SAMPLE_PX + height, x * SAMPLE_PX : x * SAMPLE_PX + wide] = image
    return made


if __name__ == "__main__":
    main(tyro.cli(Options))
