"""Annotations in the format of COCO: an object is a connected part of a class.

A segmentation is an uncompressed run-length encoding (RLE), not a polygon. It is exact to the pixel and keeps
holes, such as the lumen of a gland, which polygons of COCO cannot have. Readers as pycocotools take both.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from diffnca.files import check_target, replace_atomically

Numbers = UInt8[np.ndarray, "h w"]
Runs = Int[np.ndarray, "n 2"]


class Class(NamedTuple):
    """A class of a map: its number, name and colour."""

    number: int
    name: str
    colour: tuple[int, int, int]


class Annotated(NamedTuple):
    """An image with its map: the name of its file, the class of each pixel, and facts for its record."""

    file_name: str
    numbers: Numbers
    facts: Mapping[str, Any]


def write_coco(path: Path, images: Iterable[Annotated], classes: Sequence[Class], licence: str) -> None:
    """Write the annotations of images; the file appears complete or not at all.

    Objects of `classes` alone are annotated. The file is written image by image, as it may be large.
    """
    check_target(path, (".json",))
    head = {
        "info": {"description": "images and maps made by diffnca"},
        "licenses": [{"id": 1, "name": licence, "url": ""}],
        "categories": [
            {"id": each.number, "name": each.name, "supercategory": "", "color": list(each.colour)}
            for each in classes
        ],
    }
    records: list[dict[str, Any]] = []
    with replace_atomically(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "annotations": [')
        for number, annotation in enumerate(_annotations(images, classes, records), 1):
            file.write(f"{',' if number > 1 else ''}\n{json.dumps({'id': number, **annotation})}")
        file.write(f'\n], "images": {json.dumps(records, ensure_ascii=False)}}}\n')


def components(mask: Bool[np.ndarray, "h w"]) -> list[Runs]:
    """Return the parts of a mask that are connected, also at corners, in the order of their first pixels.

    A part is its runs: first pixel and the pixel after the last, counted down the columns, column by column.
    """
    height, width = mask.shape
    stride = height + 1  # a gap ends each column
    flat = np.zeros(width * stride + 1, np.int8)
    flat[1:].reshape(width, stride)[:, :height] = mask.T
    steps = np.diff(flat, append=0)
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    # a run touches the runs of the next column that stop where it starts or later, and start where it stops
    # or earlier
    first, last = np.searchsorted(stops, starts + stride), np.searchsorted(starts, stops + stride, "right")
    roots = _roots([range(*each) for each in zip(first.tolist(), last.tolist(), strict=True)])
    runs = np.stack([starts - starts // stride, stops - starts // stride], axis=1)
    order = np.argsort(roots, kind="stable")
    places = np.flatnonzero(np.diff(roots[order])) + 1
    return np.split(runs[order], places) if len(runs) else []


def run_lengths(runs: Runs, num_pixels: int) -> list[int]:
    """Return the lengths of the runs of pixels outside and inside of a part, in turn, outside first."""
    is_new = np.concatenate([[True], runs[1:, 0] != runs[:-1, 1]])  # a run may go on in the next column
    starts, stops = runs[is_new, 0], runs[np.roll(is_new, -1), 1]
    lengths = np.diff(np.stack([starts, stops], axis=1).ravel(), prepend=0, append=num_pixels)
    return [int(each) for each in (lengths if lengths[-1] else lengths[:-1])]


def _roots(neighbours: Sequence[range]) -> Int[np.ndarray, " n"]:
    """Return for each run the first run that it is connected with."""
    parents = list(range(len(neighbours)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    for run, others in enumerate(neighbours):
        for other in others:
            one, two = sorted((root(run), root(other)))
            parents[two] = one
    return np.array([root(run) for run in range(len(parents))], dtype=np.int64)


def _annotations(
    images: Iterable[Annotated], classes: Sequence[Class], records: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the annotations of all images, and put a record of each image into `records`."""
    for image_id, image in enumerate(images, 1):
        height, width = image.numbers.shape
        size = {"file_name": image.file_name, "height": height, "width": width}
        records.append({"id": image_id, **size, "license": 1, **image.facts})
        for each in classes:
            for runs in components(image.numbers == each.number):
                yield {"image_id": image_id, "category_id": each.number, **_object(runs, height, width)}


def _object(runs: Runs, height: int, width: int) -> dict[str, Any]:
    """Return what an annotation says of a connected part."""
    tops, bottoms = runs[:, 0] % height, (runs[:, 1] - 1) % height + 1
    left, right = runs[0, 0] // height, runs[-1, 0] // height + 1
    box = (left, tops.min(), right - left, bottoms.max() - tops.min())
    return {
        "bbox": [int(side) for side in box],
        "area": int((runs[:, 1] - runs[:, 0]).sum()),
        "segmentation": {"size": [height, width], "counts": run_lengths(runs, height * width)},
        "iscrowd": 0,
    }
