"""The files of the tabs that are open in the browser, and whether the work of a tab should stop.

Each tab has a folder of its own. Only this module names files there; the name of an upload is shown, and is
never part of a path. Messages name files and fields as the person knows them. When a tab is closed, its work
stops and its folder goes.
"""

import base64
import binascii
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from itertools import count
from pathlib import Path
from secrets import token_urlsafe

from diffnca.data.sources import IMAGE_SUFFIXES
from diffnca.errors import require

MOST_TABS = 64

LARGEST_UPLOAD_BYTES, MOST_UPLOADS = 64 << 20, 500
"""Limits of one upload of a tab."""

LONGEST_SHOWN = 80
"""Characters of a file's name that messages show."""

PNG_DATA = "data:image/png;base64,"

FIELDS = {
    "--data": "Pictures",
    "--from": "From",
    "--labels": "Learn labels",
    "--layout.classes": "Classes",
    "--layouts": "Maps",
    "--minutes": "Minutes",
    "--out": "Name",
}
"""Labels of the fields that stand for options of the command line."""

OPTION = re.compile(r"--[a-z][a-z.-]*[a-z]")


class Session:
    """One tab.

    Attributes:
        folder: its files; nothing else may be in there.
        given: the picture to edit; `None` before there is one.
        refused: why the last upload is no picture to edit; `None` where it is one.
        last: the image that was made last.
        uploads: pictures to train on.
        labels: what pictures to train on show, where the person has said it.
        maps: label images of these pictures.
        style: a picture whose style images shall have.
        addresses: the names in the addresses of files that the page shows.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.folder = folder
        self.given: Path | None = None
        self.refused: str | None = None
        self.last: Path | None = None
        self.style: Path | None = None
        self.uploads: list[Path] = []
        self.labels: dict[Path, str] = {}
        self.maps: list[Path] = []
        self.is_closed, self.num_works = False, 0
        self._stop = threading.Event()
        self._numbers = count()
        self._names: dict[Path, str] = {}
        self.addresses: dict[Path, str] = {}
        folder.mkdir()

    def path(self, ending: str) -> Path:
        """Return the path of a new file."""
        return self.folder / f"{next(self._numbers):06d}{ending}"

    def keep(self, upload: Path, name: str, kinds: Sequence[str] = IMAGE_SUFFIXES) -> Path:
        """Take an uploaded picture over, and remember the name it had; refuse one of another kind.

        The name decides the ending of the file, which is one of few, and nothing else.
        """
        kind = Path(name).suffix.lower()
        shown = shortened(name)
        require(kind in kinds, "picture", shown, f"a file of {', '.join(kinds)}")
        num_bytes = upload.stat().st_size
        allowed = f"of at most {LARGEST_UPLOAD_BYTES >> 20} MB, not {num_bytes / 2**20:,.0f}"
        require(num_bytes <= LARGEST_UPLOAD_BYTES, "picture", shown, allowed)
        kept = self.path(kind)
        shutil.move(upload, kept)
        self._names[kept] = shown
        return kept

    def drawn(self, data: str, name: str) -> Path:
        """Write the PNG of a canvas of the page, as the page encodes it; refuse other text."""
        try:
            require(data.startswith(PNG_DATA), name, data[:20], "what the brush has painted")
            content = base64.b64decode(data.removeprefix(PNG_DATA), validate=True)
        except binascii.Error:
            raise ValueError(f"{name}: is no picture; paint it again") from None
        path = self.path(".png")
        path.write_bytes(content)
        self._names[path] = name
        return path

    def named(self, path: Path, name: str) -> Path:
        """Let messages show a name instead of the path of a file here."""
        self._names[path] = name
        return path

    def name_of(self, path: Path) -> str:
        """Return the name that a file had, shortened; it is for messages, and for no path."""
        return self._names.get(path, path.name)

    def shown(self, message: str) -> str:
        """Return a message as the page says it: with the names that files had, and the labels of fields."""
        for path, name in self._names.items():
            message = message.replace(str(path), name)
        message = message.replace(f"{self.folder}/", "")
        return OPTION.sub(lambda option: FIELDS.get(option[0], option[0]), message)

    def stop(self) -> None:
        """Ask the work of the tab to stop after its current step."""
        self._stop.set()

    def is_stopped(self) -> bool:
        """Return whether the work should stop."""
        return self._stop.is_set()

    def address(self, path: Path) -> str:
        """Return an address of the page that answers with a file; nobody can guess it."""
        if path not in self.addresses:
            self.addresses[path] = f"{token_urlsafe(16)}{path.suffix}"
        return f"/made/{self.addresses[path]}"

    def _begin(self) -> None:
        if self.num_works == 0 and not self.is_closed:
            self._stop.clear()
        self.num_works += 1


class Sessions:
    """All tabs; as a context manager, their files go at the end."""

    def __init__(self) -> None:
        """Begin without a tab, in a new folder for temporary files."""
        self.folder = Path(tempfile.mkdtemp(prefix="diffnca-app-"))
        self.uploads = self.folder / "uploads"
        """Where gradio keeps uploads until a tab takes them over."""
        self.uploads.mkdir()
        self._tabs: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Sessions":
        return self

    def __exit__(self, *_: object) -> None:
        for tab in list(self._tabs):
            self.close(tab)
        shutil.rmtree(self.folder, ignore_errors=True)

    def of(self, tab: str) -> Session:
        """Return the session of a tab; a tab is any text, and no part of a path."""
        with self._lock:
            if tab not in self._tabs:
                if len(self._tabs) >= MOST_TABS:
                    raise ValueError(f"{MOST_TABS} tabs are open: must be fewer; close some of them")
                self._tabs[tab] = Session(self.folder / token_urlsafe(9))
            return self._tabs[tab]

    def known(self, tab: str) -> Session | None:
        """Return the session of a tab; `None` if it has none, or has been closed."""
        return self._tabs.get(tab)

    @contextmanager
    def at_work(self, tab: str) -> Iterator[Session]:
        """Return the session of a tab, and keep its files during the block."""
        session = self.of(tab)
        with self._lock:
            session._begin()
        try:
            yield session
        finally:
            with self._lock:
                session.num_works -= 1
            self._remove_if_closed(session)

    def close(self, tab: str) -> None:
        """Stop the work of a tab, and remove its files when the work has ended."""
        with self._lock:
            session = self._tabs.pop(tab, None)
            if session is None:
                return
            session.is_closed = True
            session.stop()
        self._remove_if_closed(session)

    def file_at(self, name: str) -> Path | None:
        """Return the file of an address of any tab, `None` if there is none."""
        with self._lock:
            tabs = list(self._tabs.values())
        found = [path for tab in tabs for path, own in list(tab.addresses.items()) if own == name]
        return found[0] if found and found[0].is_file() else None

    def _remove_if_closed(self, session: Session) -> None:
        with self._lock:
            if not session.is_closed or session.num_works > 0:
                return
        with suppress(OSError):
            shutil.rmtree(session.folder)


def shortened(name: str) -> str:
    """Return the last part of a file's name as one line that messages can show."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    line = "".join(character if character.isprintable() else " " for character in last)
    return line if len(line) <= LONGEST_SHOWN else f"{line[: LONGEST_SHOWN - 1]}…"


def line(text: str, is_error: bool = False) -> str:
    """Return text as a line of the page; no text can become an element of the page."""
    return f'<p class="line{" error" if is_error else ""}">{escape(text)}</p>'
