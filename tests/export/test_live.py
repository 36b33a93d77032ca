"""The page as a part of the documentation: when it starts, and what it leaves to the pages around it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from diffnca.export.web import write_page

from ..chromium import Browser
from .web_models import PLAIN, write_small
from .web_page import served

DOCS = Path(__file__).parents[2] / "docs"
AROUND = """<!doctype html><title>docs</title><body style="margin: 0">{above}
<p><img src="images/web/start.jpg" style="width: 100%; height: 300px"></p>
<p style="height: 3000px">more</p><script type="module" src="live.js"></script>"""
FRAME = "document.querySelector('iframe')"
PAGE = f"{FRAME}?.contentWindow.page"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve pages like the first one of the docs: with the page of a model, and without."""
    folder = tmp_path_factory.mktemp("docs")
    model = write_small(tmp_path_factory.mktemp("models"), PLAIN)
    for name in ("with", "without"):
        (folder / name / "images" / "web").mkdir(parents=True)
        (folder / name / "live.js").write_bytes((DOCS / "live.js").read_bytes())
        Image.new("RGB", (8, 4)).save(folder / name / "images" / "web" / "start.jpg")
        (folder / name / "index.html").write_text(AROUND.format(above=""))
        far = '<p style="height: 3000px">above</p>'
        (folder / name / "below.html").write_text(AROUND.format(above=far))
    write_page([model], folder / "with" / "page")
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(started: Browser) -> Browser:
    """Return a browser whose user has nothing against motion."""
    features = [{"name": "prefers-reduced-motion", "value": "no-preference"}]
    started.page("Emulation.setEmulatedMedia", features=features)
    return started


def asked_for_the_page(browser: Browser) -> bool:
    """Return whether the browser has loaded more of the page than the list of its models."""
    asked = [
        e["params"]["request"]["url"] for e in browser.seen if e["method"] == "Network.requestWillBeSent"
    ]
    return any("/page/" in url and not url.endswith("models.json") for url in asked)


def count(browser: Browser, selector: str) -> int:
    number: int = browser.value(f"document.querySelectorAll({selector!r}).length")
    return number


def test_the_first_page_of_the_docs_shows_the_picture_that_the_page_replaces() -> None:
    assert "](images/web/start.jpg)" in (DOCS / "index.md").read_text()
    assert (DOCS / "images" / "web" / "start.jpg").is_file()


def test_the_picture_comes_alive(browser: Browser, docs: str) -> None:
    browser.open(f"{docs}with/index.html", 800, 600)
    browser.wait_for(f"Boolean({PAGE}?.world) && {FRAME}.style.visibility === 'visible'")
    assert count(browser, "img") == 0
    assert browser.value("document.querySelector('a').href") == f"{docs}with/page/index.html"


def test_without_the_page_the_picture_stays(browser: Browser, docs: str) -> None:
    browser.open(f"{docs}without/index.html", 800, 600)
    browser.value("new Promise((done) => setTimeout(done, 500))")
    assert (count(browser, "img"), count(browser, "iframe, button")) == (1, 0)


def test_a_picture_that_is_not_seen_loads_nothing(browser: Browser, docs: str) -> None:
    browser.open(f"{docs}with/below.html", 800, 600)
    browser.value("new Promise((done) => setTimeout(done, 500))")
    assert not asked_for_the_page(browser)
    browser.value("document.querySelector('img').scrollIntoView()")
    browser.wait_for(f"Boolean({PAGE}?.world)")


def test_for_less_motion_the_page_waits_for_a_button(browser: Browser, docs: str) -> None:
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.page("Emulation.setEmulatedMedia", features=features)
    browser.open(f"{docs}with/index.html", 800, 600)
    browser.wait_for("document.querySelector('button') !== null")
    assert not asked_for_the_page(browser)
    browser.value("document.querySelector('button').click()")
    browser.wait_for(f"Boolean({PAGE}?.world)")


def test_the_wheel_moves_the_docs_until_the_page_is_touched(browser: Browser, docs: str) -> None:
    browser.open(f"{docs}with/index.html", 800, 600)
    browser.wait_for(f"Boolean({PAGE}?.world) && {FRAME}.style.visibility === 'visible'")
    zoom = browser.value(f"{PAGE}.view.zoom")
    browser.page("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=200, deltaX=0, deltaY=120)
    browser.wait_for("scrollY > 50")
    assert browser.value(f"{PAGE}.view.zoom") == zoom
    for kind in ("mousePressed", "mouseReleased"):
        browser.page("Input.dispatchMouseEvent", type=kind, x=400, y=100, button="left", clickCount=1)
    browser.page("Input.dispatchMouseEvent", type="mouseWheel", x=400, y=100, deltaX=0, deltaY=120)
    browser.wait_for(f"{PAGE}.view.zoom < {zoom}")
