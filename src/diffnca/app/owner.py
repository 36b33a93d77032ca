"""What all tabs of the page share: models, folders, open viewers, sessions, long work."""

import threading
import webbrowser
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from diffnca.app.sessions import Sessions
from diffnca.app.works import Works
from diffnca.config.model import Config
from diffnca.data.sources import IMAGE_SUFFIXES
from diffnca.errors import require
from diffnca.files import check_place
from diffnca.models.file import (
    MODEL_FILE,
    bundled_models,
    find_model,
    models_by_name,
    read_card,
    read_config,
)
from diffnca.view.pyramids import open_image
from diffnca.view.server import Server as Viewer

FIRST = "pathology-4step"
"""The model with which the page begins, unless the person has named another one: it takes few steps."""

MOST_VIEWERS = 4


@dataclass(frozen=True)
class Options:
    """What the person who starts the page decides.

    Attributes:
        models: model files, folders of runs and hub ids, besides the bundled models.
        data: a folder; the page offers the folders in it to train on.
        work: the folder where large images and trained models are kept.
        port: of the address; 0 takes a free port.
        is_opened: whether the browser opens.
    """

    models: tuple[str, ...] = ()
    data: Path | None = None
    work: Path = Path("diffnca-app")
    port: int = 7860
    is_opened: bool = True

    @property
    def images(self) -> Path:
        """The folder of large images."""
        return self.work / "images"

    @property
    def runs(self) -> Path:
        """The folder of trained models."""
        return self.work / "runs"

    @property
    def uploads(self) -> Path:
        """The folder of what was uploaded to train on: one for each run, where no run can be."""
        return self.work / "uploads"

    def other_models(self) -> dict[str, str]:
        """Return how `find_model` finds the bundled and the trained models, by their names on the page."""
        trained = sorted(path.parent for path in self.runs.glob(f"*/{MODEL_FILE}"))
        return {name: name for name in in_order()} | {folder.name: str(folder) for folder in trained}

    def check(self) -> None:
        """Refuse models that are none, two models of one name, and folders that are none."""
        for model in self.models:
            read_config(find_model(model))
        named, others = models_by_name(self.models), self.other_models()
        models_by_name([*self.models, *(others[name] for name in named if name in others)])
        if self.data is not None and not self.data.is_dir():
            raise ValueError(f"--data {self.data}: is no folder; give one that holds folders of images")
        if self.work.exists() and not self.work.is_dir():
            raise ValueError(f"--work {self.work}: is a file; name a folder")
        check_place(self.work)


class Viewers:
    """The open viewers of large images, each with its own address; the oldest makes room for a new one."""

    def __init__(self) -> None:
        """Begin without a viewer."""
        self._open: dict[Path, Viewer] = {}
        self._lock = threading.Lock()

    def address(self, image: Path) -> str:
        """Return the address of the viewer of an image; open it if it is not open."""
        with self._lock:
            if image not in self._open:
                if len(self._open) >= MOST_VIEWERS:
                    self._close(next(iter(self._open)))
                viewer = Viewer(open_image(image))
                threading.Thread(target=viewer.serve_forever, daemon=True).start()
                self._open[image] = viewer
            return self._open[image].address

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for image in list(self._open):
                self._close(image)

    def _close(self, image: Path) -> None:
        viewer = self._open.pop(image)
        viewer.shutdown()
        viewer.server_close()


@dataclass(frozen=True)
class Owner:
    """All that the tabs share."""

    options: Options
    sessions: Sessions
    works: Works
    viewers: Viewers = field(default_factory=Viewers)

    def __enter__(self) -> "Owner":
        return self

    def __exit__(self, *_: object) -> None:
        self.works.__exit__()
        self.viewers.close()
        self.sessions.__exit__()

    def open(self, address: str) -> None:
        """Open an address in the browser, unless the person wants none to be opened."""
        if self.options.is_opened:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    def models(self) -> dict[str, str]:
        """Return how `find_model` finds each model that the page offers, by its name on the page."""
        own = models_by_name(self.options.models)
        others = self.options.other_models()
        return own | {name: model for name, model in others.items() if name not in own}

    def model(self, name: str) -> str:
        """Return how `find_model` finds a model of the page; refuse other names: they could be any path."""
        models = self.models()
        require(name in models, "model", name, f"one of {', '.join(models)}")
        return models[name]

    def config(self, name: str) -> Config:
        """Return the configuration of a model of the page."""
        return read_config(find_model(self.model(name)))

    def card(self, name: str) -> dict[str, Any]:
        """Return the card of a model of the page."""
        return read_card(find_model(self.model(name)))

    def folders(self) -> dict[str, Path]:
        """Return the folders to train on, by their names on the page.

        These are the folders with pictures in `data`, and `data` itself, if no folder in it leads elsewhere.
        """
        if self.options.data is None:
            return {}
        root = self.options.data.resolve()
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        inside = [path for path in folders if path.resolve().is_relative_to(root)]
        offered = {path.name: path for path in inside if _holds_pictures(path)}
        is_offered = inside == folders and (offered or _holds_pictures(root))
        return {**offered, root.name: root} if is_offered else offered


@cache
def in_order() -> tuple[str, ...]:
    """Return the names of the bundled models: `FIRST`, then those of few steps first."""
    steps = {name: read_config(path).sampling.steps for name, path in bundled_models().items()}
    return tuple(sorted(steps, key=lambda name: (name != FIRST, steps[name], name)))


def _holds_pictures(folder: Path) -> bool:
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if path.is_file())
