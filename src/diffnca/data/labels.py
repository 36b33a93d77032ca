"""Labels of complete images: by the folders where they lie, or by a table of names and labels."""

import csv
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float32

from diffnca.config.layout import MOST_LABELS
from diffnca.data.sources import File, Listing, Source, listed

FOLDERS = "folders"
"""Stands for labels that are the names of folders."""

FEWEST_LABELS = 2

COLUMNS = ("name", "label")
"""Columns of a table, in this order if it does not name them."""

SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Labels:
    """The labels of images.

    Attributes:
        names: all labels in their order; a label has the number of its place.
        by_picture: the label of a picture, by its file and its name.
        missing: why an image is left out that has no label.
    """

    names: tuple[str, ...]
    by_picture: Mapping[tuple[Path, str], str]
    missing: str

    @classmethod
    def of(cls, told: str, paths: Sequence[Path], known: tuple[str, ...] = ()) -> "Labels":
        """Return the labels of the images in `paths`, by their folders (`FOLDERS`) or by the table `told`.

        With several paths, a folder is the path itself; with one path, it is a folder directly below.

        Raises:
            ValueError: the table is none, or names other images; or the labels are too few, too many, or not
                among those that a model has `known` before.
        """
        listing = listed(paths)
        if told == FOLDERS:
            found, missing = _by_folders(listing.files, paths)
        else:
            found, missing = _by_table(Path(told), listing), f"has no label in {told}; give it a row there"
        names = tuple(sorted(set(found.values())))
        _check_names(names, known, told)
        return cls(known or names, found, missing)

    def has(self, image: Source) -> bool:
        """Return whether an image has a label."""
        return (image.path, image.picture) in self.by_picture

    def shares(self, images: Sequence[Source]) -> Float32[np.ndarray, "n l"]:
        """Return 1 for the label of each image, and 0 for all others."""
        own = [self.names.index(self.by_picture[image.path, image.picture]) for image in images]
        shares: Float32[np.ndarray, "n l"] = np.eye(len(self.names), dtype=np.float32)[own]
        return shares


def _check_names(names: tuple[str, ...], known: tuple[str, ...], told: str) -> None:
    other = [name for name in names if name not in known]
    if known and other:
        allowed = f"must be among {', '.join(known)}, as the model was trained"
        raise ValueError(f"--labels {told}: gives the label {other[0]}: {allowed}")
    if known or FEWEST_LABELS <= len(names) <= MOST_LABELS:
        return
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    count = f"{len(names)} label{'' if len(names) == 1 else 's'}{f' ({some})' if names else ''}"
    fix = "; give several paths to --data, or one folder of folders" if told == FOLDERS else ""
    raise ValueError(f"--labels {told}: gives {count}: must give {FEWEST_LABELS} to {MOST_LABELS}{fix}")


def _by_folders(files: Sequence[File], paths: Sequence[Path]) -> tuple[dict[tuple[Path, str], str], str]:
    """Return the labels of files, and why a file has none."""
    if len(paths) > 1:
        return {(file.path, file.name): _label_of(file, paths) for file in files}, ""
    found = {(file.path, file.name): PurePosixPath(file.name).parts for file in files}
    missing = f"lies in no folder within {paths[0]}, so it has no label; move it into the folder of its label"
    return {key: parts[0] for key, parts in found.items() if len(parts) > 1}, missing


def _label_of(file: File, paths: Sequence[Path]) -> str:
    """Return the name of the path that a file came from: of a folder, a zip file or an image itself."""
    own = [file.path, *file.path.parents]
    nearest = min((path for path in paths if path in own), key=own.index)
    place = Path(os.path.abspath(nearest))  # a link keeps its name
    return place.name if place.is_dir() else place.stem


def _by_table(path: Path, listing: Listing) -> dict[tuple[Path, str], str]:
    """Return the labels in a table; refuse a table that names other images, or one image twice."""
    known = {_plain(file.name) for file in listing.files} | {_plain(each.name) for each in listing.left_out}
    known |= set(map(_without_ending, known))
    labels: dict[str, str] = {}
    for line, name, label in _rows(path):
        if name not in known:
            raise ValueError(f"{path}: line {line}: there is no image {name}; names are as in the folder")
        if labels.setdefault(name, label) != label:
            raise ValueError(f"{path}: line {line}: {name} has the labels {labels[name]} and {label}")
    names = {(file.path, file.name): _plain(file.name) for file in listing.files}
    found = {key: labels.get(name) or labels.get(_without_ending(name)) for key, name in names.items()}
    return {key: label for key, label in found.items() if label}


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the name and the label of each row of a table."""
    columns: tuple[int, ...] | None = None
    for line, row in enumerate(_cells(path), start=1):
        if not any(row):
            continue
        if columns is None:
            heads = [cell.lower() for cell in row]
            columns = tuple(heads.index(name) if name in heads else -1 for name in COLUMNS)
            if max(columns) >= 0:
                lacking = [name for name, column in zip(COLUMNS, columns, strict=True) if column < 0]
                if lacking:
                    raise ValueError(f"{path}: has no column {lacking[0]}: must have {' and '.join(COLUMNS)}")
                continue
            columns = (0, 1)
        if len(row) <= max(columns):
            raise ValueError(f"{path}: line {line}: lacks a column: must have {' and '.join(COLUMNS)}")
        name, label = (row[column] for column in columns)
        yield line, _plain(name), label


def _cells(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        allowed = f"must be `{FOLDERS}`, or a CSV file with the columns {' and '.join(COLUMNS)}"
        raise ValueError(f"--labels {path}: {reason}: {allowed}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is no text in UTF-8; save it as a CSV file in UTF-8") from None
    first = next(iter(lines), "")
    separator = next((mark for mark in SEPARATORS if mark in first), ",")
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    except csv.Error as error:
        raise ValueError(f"{path}: is no table ({error}); save it as a CSV file") from None


def _plain(name: str) -> str:
    """Return the name of an image in one form of Unicode, with slashes between folders."""
    return str(PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/"))))


def _without_ending(name: str) -> str:
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name
