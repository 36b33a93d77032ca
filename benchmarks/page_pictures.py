"""Make the pictures of docs/web.md and docs/index.md anew, in headless Chromium.

    make page && python -m benchmarks.page_pictures site/page --out docs/images/web

They show a gland that is painted with two strokes, on a screen and on a phone, the wall of faces, and the map
that stands in the first page of the documentation until the page has begun.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from tests.chromium import Browser
from tests.export.web_page import Page, served

GLAND = "model=colon-4step&seed=4&zoom=5&tone=-0.5"
STROKES = (("1", 30, (590, 360), (700, 380)), ("2", 9, (595, 362), (690, 380)))
"""Class, radius of the brush, and the ends of a stroke in the window: a gland, and its lumen."""

QUALITY = 85


@dataclass(frozen=True)
class Options:
    """Of what, and where to."""

    page: tyro.conf.Positional[Path]
    """Folder of the page."""
    out: Path
    """Folder of the pictures."""


def main(options: Options) -> None:
    """Write all pictures."""
    with (
        served(options.page) as address,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        page = Page(Browser(Path(profile)), address)
        try:
            draw(page, options.out)
        finally:
            page.browser.close()


def draw(page: Page, out: Path) -> None:
    """Take one picture after another."""
    take(page, "model=pathology-4step", 804, 462, "light")
    page.value("document.querySelectorAll('.panel').forEach((each) => { each.style.display = 'none'; })")
    keep(page.browser, out / "start.jpg")
    take(page, "model=faces-4step", 780, 540, "light")
    keep(page.browser, out / "faces.jpg")
    take(page, GLAND, 1280, 800, "light")
    for number, radius, start, end in STROKES:
        page.click(f"[data-class='{number}']")
        page.value(f"document.querySelector('#size input').value = {radius}")
        page.drag(start, end)
        page.browser.wait_for("page.isBusy || page.plans.length")
        page.wait()
    page.mouse("mouseMoved", 960, 300)
    keep(page.browser, out / "page.jpg")
    colours(page.browser, "dark")
    page.browser.page(
        "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True
    )
    page.wait()
    keep(page.browser, out / "phone.jpg")


def take(page: Page, told: str, width: int, height: int, scheme: str) -> None:
    """Open the page at an address and wait until it is full."""
    colours(page.browser, scheme)
    page.open(told, width, height)


def colours(browser: Browser, scheme: str) -> None:
    """Let the system prefer light or dark colours."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.page("Emulation.setEmulatedMedia", features=[feature])


def keep(browser: Browser, path: Path) -> None:
    """Write what is seen."""
    browser.value("new Promise((done) => setTimeout(done, 500))")
    Image.fromarray(browser.screenshot().astype(np.uint8)).save(path, quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
