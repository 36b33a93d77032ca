"""What a person uploads to train on: pictures, with their labels and maps.

The files are copied into folders for the run, as the tab may be closed. There they have new names: only a
label that is checked becomes the name of a folder. A map belongs to the one picture of its name, whatever the
endings are.
"""

import shutil
from filecmp import cmp
from pathlib import Path
from typing import Any

from diffnca.app.long import checked_name
from diffnca.app.owner import Owner
from diffnca.app.picture import kept
from diffnca.app.sessions import MOST_UPLOADS, Session, line, shortened
from diffnca.data.layouts import LAYOUT_SUFFIXES
from diffnca.data.sources import stem_of
from diffnca.errors import require
from diffnca.models.file import STATE_FILE
from diffnca.progress import Report

UPLOADED, UPLOADED_MAPS, NONE = "uploaded pictures", "uploaded maps", "none"
"""Stand for the pictures and the maps that the tab has uploaded, and for no maps."""


def take_pictures(session: Session, report: Report, files: list[Any], label: str) -> str:
    """Take uploaded pictures over, with the label that all of them have, if it is not empty."""
    label = label.strip()
    if label:
        checked_name(label)
    _check_count(len(session.uploads) + len(files), "pictures")
    taken = [kept(session, file) for file in files]
    session.uploads += taken
    session.labels |= dict.fromkeys(taken, label) if label else {}
    shown = f", {len(set(session.labels.values()))} labels" if session.labels else ""
    return line(f"{len(session.uploads)} pictures are here{shown}")


def take_maps(session: Session, report: Report, files: list[Any]) -> str:
    """Take uploaded maps over; a map replaces the one that had its name, whose file goes."""
    taken = {session.name_of(path): path for path in session.maps}
    _check_count(len(taken.keys() | {shortened(str(file)) for file in files}), "maps")
    for path in [kept(session, file, LAYOUT_SUFFIXES) for file in files]:
        name = session.name_of(path)
        if name in taken:
            taken[name].unlink(missing_ok=True)
        taken[name] = path
    session.maps = list(taken.values())
    return line(f"{len(session.maps)} maps are here")


def pictures_of(owner: Owner, session: Session, source: str, out: Path, has_labels: bool) -> Path:
    """Return the folder of the pictures that a choice of the page names, for a run in `out`."""
    folders = owner.folders()
    if source in folders:
        return folders[source]
    require(source == UPLOADED, "pictures", source, f"one of {', '.join([*folders, UPLOADED])}")
    bare = [path for path in session.uploads if path not in session.labels]
    if has_labels and bare:
        name = session.name_of(bare[0])
        raise ValueError(f"{name}: has no label: must have one, as all pictures; type it before the upload")
    places = {path: place_of(session, path, has_labels) for path in session.uploads}
    return _copied(places, owner.options.uploads, out, "pictures")


def maps_of(
    owner: Owner, session: Session, source: str, out: Path, has_labels: bool = False
) -> tuple[Path, ...]:
    """Return the folder of the maps that a choice of the page names, for a run in `out`; or no folder."""
    folders = owner.folders()
    if source == NONE:
        return ()
    if source in folders:
        return (folders[source],)
    require(source == UPLOADED_MAPS, "maps", source, f"one of {', '.join([NONE, *folders, UPLOADED_MAPS])}")
    places = {
        path: place_of(session, picture, has_labels).with_suffix(path.suffix)
        for picture, path in _maps_by_picture(session).items()
    }
    return (_copied(places, owner.options.uploads, out, "maps"),)


def _maps_by_picture(session: Session) -> dict[Path, Path]:
    """Return pictures with their maps; refuse a map whose picture is unknown, and two maps of a picture."""
    by_name: dict[str, list[Path]] = {}
    for path in session.uploads:
        by_name.setdefault(stem_of(session.name_of(path)), []).append(path)
    found: dict[Path, Path] = {}
    for path in session.maps:
        name = session.name_of(path)
        pictures = by_name.get(stem_of(name), [])
        require(bool(pictures), "map", name, "named as a picture that was uploaded")
        shown = " and ".join(map(session.name_of, pictures[:2]))
        allowed = f"named as one picture alone, not as {shown}; rename these, and upload all in a new tab"
        require(len(pictures) == 1, "map", name, allowed)
        earlier = found.setdefault(pictures[0], path)
        allowed = f"the only map of {shown}, beside {session.name_of(earlier)}; upload all in a new tab"
        require(earlier == path, "map", name, allowed)
    return found


def place_of(session: Session, path: Path, has_labels: bool) -> Path:
    """Return where a picture stays, within the folder of the pictures of a run."""
    return Path(session.labels[path], path.name) if has_labels else Path(path.name)


def _copied(places: dict[Path, Path], root: Path, out: Path, kind: str) -> Path:
    """Copy uploads to their places in a folder of the run; return it. A run keeps what it began with."""
    folder = root / out.name / kind
    if not places and not folder.is_dir():
        raise ValueError(f"there are no uploaded {kind}: must be uploaded first, or choose a folder")
    if places and (out / STATE_FILE).exists():
        if not _holds(folder, places):
            raise ValueError(
                f"{out.name}: began with other {kind}, not with these uploads; give another name"
            )
    elif places:
        shutil.rmtree(folder, ignore_errors=True)
        for path, place in places.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)
    return folder


def _holds(folder: Path, places: dict[Path, Path]) -> bool:
    """Return whether a folder holds these files at their places, and no others."""
    there = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return there == set(places.values()) and all(
        cmp(path, folder / place, shallow=False) for path, place in places.items()
    )


def _check_count(count: int, kind: str) -> None:
    require(count <= MOST_UPLOADS, kind, count, f"at most {MOST_UPLOADS}")
