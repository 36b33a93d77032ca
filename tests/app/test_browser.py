"""The page in Chromium: it opens with an image, stays on this machine, and paints."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..chromium import Browser
from .conftest import Page, png

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def seen(selector: str) -> str:
    """Return JavaScript: whether an element is on the page and visible."""
    return f"[...document.querySelectorAll({selector!r})].some((each) => each.offsetParent)"


def show(browser: Browser, page: Page, width: int = 1280, height: int = 800) -> None:
    """Open the page and wait for its first image."""
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.page("Emulation.setDeviceMetricsOverride", **window)
    browser.page("Page.navigate", url="about:blank")
    browser.seen.clear()
    browser.page("Page.navigate", url=f"http://127.0.0.1:{page.port}/")
    browser.wait_for("document.querySelector('.result img')?.complete === true")


def open_tab(browser: Browser, name: str) -> None:
    """Open a tab of the page."""
    tabs = "[...document.querySelectorAll('[role=tab]')]"
    browser.value(f"{tabs}.find((each) => each.innerText.trim() === {name!r}).click()")


def click(browser: Browser, name: str) -> None:
    """Click a visible button; gradio also has copies of the names of tabs, which come first."""
    shown = f"each.offsetParent && each.innerText.trim() === {name!r}"
    buttons = "[...document.querySelectorAll('button:not([role=tab])')]"
    browser.value(f"{buttons}.filter((each) => {shown}).at(-1).click()")


def type_in(browser: Browser, label: str, text: str) -> None:
    """Replace what stands in a visible field."""
    fields = f"[...document.querySelectorAll('input[aria-label=\"{label}\"]')]"
    browser.value(f"{fields}.find((each) => each.offsetParent).select()")
    browser.page("Input.insertText", text=text)
    browser.press("Tab", "Tab", 9)


def drag(browser: Browser, selector: str) -> None:
    """Draw a line across the middle of a visible element."""
    found = f"[...document.querySelectorAll({selector!r})].find((each) => each.offsetParent)"
    frame = browser.value(f"{found}.getBoundingClientRect().toJSON()")
    y = frame["top"] + frame["height"] / 2
    xs = [frame["left"] + frame["width"] * share for share in (0.4, 0.5, 0.6)]
    kinds = ("mousePressed", "mouseMoved", "mouseReleased")
    for kind, x in zip(kinds, xs, strict=True):
        about = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        browser.page("Input.dispatchMouseEvent", **about)


def test_the_page_opens_with_an_image_and_asks_only_this_machine(browser: Browser, page: Page) -> None:
    show(browser, page)
    asked = [event for event in browser.seen if event["method"] == "Network.requestWillBeSent"]
    addresses = {event["params"]["request"]["url"] for event in asked}
    own = (f"http://127.0.0.1:{page.port}/", "data:", "blob:", "about:")
    assert [address for address in addresses if not address.startswith(own)] == []
    assert [event for event in browser.seen if event["method"] == "Runtime.exceptionThrown"] == []


def test_a_phone_shows_all_of_the_width(browser: Browser, page: Page) -> None:
    show(browser, page, 390, 844)
    assert browser.value("document.documentElement.scrollWidth") == 390


def top(browser: Browser, selector: str) -> float:
    """Return where a visible element begins in the window."""
    found = f"[...document.querySelectorAll({selector!r})].find((each) => each.offsetParent)"
    y: float = browser.value(f"{found}.getBoundingClientRect().top")
    return y


@pytest.mark.parametrize(("tab", "button"), [("Draw", "Grow"), ("Fill", "Fill")])
def test_a_phone_shows_what_a_button_begins(tab: str, button: str, browser: Browser, page: Page) -> None:
    show(browser, page, 390, 844)
    open_tab(browser, tab)
    browser.wait_for(seen(".painting canvas"))
    assert top(browser, ".painting canvas") < top(browser, "button.primary")
    click(browser, button)
    assert 0 < top(browser, ".result") < 844 - 300


UNREADABLE = """(() => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const linear = (part) => (part <= 10 ? part / 3295 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) => 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  const opaque = (each) => (numbers(getComputedStyle(each).backgroundColor)[3] ?? 1) === 1;
  const behind = (each) => (!each ? [255, 255, 255] : opaque(each)
    ? numbers(getComputedStyle(each).backgroundColor) : behind(each.parentElement));
  const hasText = (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...document.querySelectorAll("body *")].filter((each) => each.checkVisibility() && hasText(each))
    .map((each) => [light(numbers(getComputedStyle(each).color)), light(behind(each)), each])
    .map(([own, other, each]) => [(Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05), each])
    .filter(([contrast]) => contrast < 4.5)
    .map(([contrast, each]) => `${contrast.toFixed(1)}: ${each.innerText}`);
})()"""
"""JavaScript: the visible text whose contrast with what is behind it is below 4.5."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(scheme: str, browser: Browser, page: Page) -> None:
    chosen = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.page("Emulation.setEmulatedMedia", features=chosen)
    show(browser, page)
    for name in ("Make", "Draw", "Fill", "Extend", "Enlarge", "Vary", "Huge", "Train"):
        open_tab(browser, name)
        browser.wait_for(
            f"document.querySelector('[role=tab][aria-selected=true]').innerText.trim() === {name!r}"
        )
        assert browser.value(UNREADABLE) == [], name


def test_tissue_grows_in_a_drawing(browser: Browser, page: Page) -> None:
    show(browser, page)
    open_tab(browser, "Draw")
    browser.wait_for(seen(".painting canvas"))
    before = browser.value("window.brushes.read('draw')")
    drag(browser, ".painting canvas")
    assert browser.value("window.brushes.read('draw')") != before
    click(browser, "Grow")
    browser.wait_for(f"{seen('.result img')} || {seen('.line.error')}")
    assert not browser.value(seen(".line.error"))


def test_what_is_painted_over_is_filled(browser: Browser, page: Page) -> None:
    show(browser, page)
    open_tab(browser, "Fill")
    browser.wait_for(seen(".painting canvas"))
    drag(browser, ".painting canvas")
    click(browser, "Fill")
    browser.wait_for(f"{seen('.result img')} || {seen('.line.error')}")
    assert not browser.value(seen(".line.error"))


def test_a_large_image_is_chosen_when_it_is_begun_and_the_viewer_opens_it(
    browser: Browser, page: Page
) -> None:
    show(browser, page)
    open_tab(browser, "Huge")
    browser.wait_for(seen("input[aria-label=Height]"))
    for label in ("Height", "Width"):
        type_in(browser, label, "96")
    click(browser, "Make it huge")
    browser.wait_for(seen(".status"))
    browser.wait_for("document.querySelector('[aria-label=\"Images that are there\"]').value === 'large'")
    browser.wait_for("document.querySelector('.status').innerText.includes('finished')")
    click(browser, "Open in the viewer")
    browser.wait_for(
        "[...document.querySelectorAll('a.open')].filter((each) => each.offsetParent).length === 2"
    )


def test_a_script_in_a_file_name_is_text(browser: Browser, page: Page, tmp_path: Path) -> None:
    show(browser, page)
    open_tab(browser, "Vary")
    browser.wait_for(seen(".picture"))
    path = tmp_path / "<img src=x onerror=document.title='evil'>.png"
    path.write_bytes(b"no picture" + png()[:20])
    shown = "each.offsetParent && each.innerText.trim() === 'Upload a picture'"
    button = f"[...document.querySelectorAll('button')].find((each) => {shown})"
    upload = f"{button}.parentElement.querySelector('input[type=file]')"
    found = browser.page("Runtime.evaluate", expression=upload)["result"]["objectId"]
    browser.page("DOM.setFileInputFiles", files=[str(path)], objectId=found)
    browser.wait_for(seen(".line.error"))
    assert browser.value("document.title") == "diffnca"


def test_a_tab_that_is_closed_in_the_middle_leaves_no_file(browser: Browser, page: Page) -> None:
    show(browser, page)
    tabs = dict(page.owner.sessions._tabs)
    click(browser, "Make")
    browser.page("Page.navigate", url="about:blank")
    end = time.monotonic() + 60.0
    while any(session.folder.exists() for session in tabs.values()) and time.monotonic() < end:
        time.sleep(0.05)
    assert [session for session in tabs.values() if session.folder.exists()] == []
