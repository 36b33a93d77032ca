"""Make the pictures of docs/app.md anew, in headless Chromium.

    python -m benchmarks.app_pictures --out docs/images/app

They show the tissue that grows in the drawing with which the page begins, and the first tab on a phone.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from benchmarks.page_pictures import colours, keep
from tests.app.conftest import Page
from tests.app.test_browser import click, open_tab, seen, show
from tests.chromium import Browser

from diffnca.app.owner import Options as AppOptions
from diffnca.app.owner import Owner
from diffnca.app.sessions import Sessions
from diffnca.app.works import Works


@dataclass(frozen=True)
class Options:
    """Where to."""

    out: Path
    """Folder of the pictures."""


def main(options: Options) -> None:
    """Write both pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        asked = AppOptions(work=Path(folder) / "work", is_opened=False)
        with Owner(asked, Sessions(), Works()) as owner:
            browser = Browser(Path(folder) / "profile")
            try:
                draw(browser, Page(owner), options.out)
            finally:
                browser.close()


def draw(browser: Browser, page: Page, out: Path) -> None:
    """Take one picture after the other."""
    colours(browser, "light")
    show(browser, page, 1280, 680)
    open_tab(browser, "Draw")
    browser.wait_for(seen(".painting canvas"))
    click(browser, "Grow")
    browser.wait_for(seen(".result img"))
    keep(browser, out / "draw.jpg")
    show(browser, page, 390, 844)
    keep(browser, out / "phone.jpg")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
