"""The command that serves a page in the browser."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tyro

from diffnca.cli import console


@dataclass(frozen=True)
class App:
    """Make, draw, edit and train in the browser, on this machine alone; nothing leaves it.

    Attributes:
        models: model files, folders of runs or hub ids that the page offers besides the bundled models.
        data: a folder; the page offers the folders in it to train on.
        work: folder where large images and trained models are kept.
        port: port of the local address; 0 takes a free port.
        no_open: print the address, but do not open the browser.
    """

    verb: ClassVar = "app"

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    data: Path | None = None
    work: Path = Path("diffnca-app")
    port: int = 7860
    no_open: bool = False

    def run(self) -> int:
        """Serve the page; return the exit code."""
        from diffnca.app.owner import Options
        from diffnca.app.server import serve

        serve(Options(self.models, self.data, self.work, self.port, not self.no_open), console.say)
        return 0
