"""What was asked for and is yet to be done: saving, watching, strokes; and strokes that are taken back."""

import numpy as np
import pytest

from .web_page import WORLD, Page

SLOW_FILES = """{
    const own = fetch;
    window.fetch = (file) => new Promise((go) => setTimeout(go, 500)).then(() => own(file));
}"""
LATE_EDIT = """{
    const own = page.world.edit;
    page.world.edit = async (...all) => {
        await new Promise((go) => { window.go = go; });
        await own.apply(page.world, all);
    };
}"""
IDLE = "!document.getElementById('save').disabled && page.watched === null"


def stroke(page: Page, brush: str = "[data-class='1']") -> None:
    """Do a stroke in the middle of the window."""
    page.click(brush)
    page.drag((440, 300), (460, 300))


@pytest.mark.browser
def test_a_tile_is_saved_though_another_map_begins_before(page: Page) -> None:
    page.open()
    before = page.picture()
    name, pixels = page.saved("another")
    page.wait()
    assert name == "drawn-seed-3-64px.png" and np.array_equal(pixels, before)
    assert page.value(f"page.world.seed !== 3 && {IDLE}")


@pytest.mark.browser
def test_a_tile_is_saved_while_another_kind_of_model_is_loading(page: Page) -> None:
    page.open()
    page.value(SLOW_FILES)
    page.choose("model", "waves")
    assert page.says("save").strip() == "Tile"
    name, _ = page.saved()
    assert name == "drawn-seed-3-64px.png"
    page.browser.wait_for(f"page.world.model.name === 'waves' && {IDLE}")


@pytest.mark.browser
def test_what_was_to_be_watched_goes_with_its_map(page: Page) -> None:
    page.open()
    page.value("['watch', 'another'].forEach((name) => document.getElementById(name).click())")
    page.browser.wait_for("page.world && !page.isBusy")
    assert page.value("document.getElementById('watch').getAttribute('aria-pressed')") == "false"
    assert "for 256 × 256 px" in page.says("state")


@pytest.mark.browser
def test_a_stroke_stays_on_the_map_until_there_is_something_to_see(page: Page) -> None:
    page.open()
    page.value(LATE_EDIT)
    before = page.browser.screenshot()[290:310, 430:470]
    stroke(page)
    page.browser.wait_for("Boolean(window.go)")
    page.mouse("mouseMoved", 100, 100)  # and the circle with it
    page.value("new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))")
    assert np.abs(page.browser.screenshot()[290:310, 430:470] - before).mean() > 5.0
    page.value("go()")
    page.wait()
    assert page.value("page.view.strokes") == []


@pytest.mark.browser
def test_the_endless_map_is_saved_as_it_is_seen(page: Page) -> None:
    page.open("model=drawn&seed=3&world=64&zoom=12", 240, 120)
    page.choose("world", "0")
    page.click("[data-class='1']")
    page.drag((110, 60), (130, 60))
    page.wait()
    name, pixels = page.saved()
    seen = np.array(page.value("Array.from(page.world.tiles.pixels(page.view.seen))"))
    assert name == "drawn-seed-3-x0-y0.png" and page.says("save").strip() == "View"
    assert np.array_equal(pixels, seen.reshape(*pixels.shape[:2], 4)[..., :3])


@pytest.mark.browser
def test_a_change_of_tone_keeps_what_was_painted(page: Page) -> None:
    page.open(f"{WORLD}&tone=1")
    plain = page.picture()
    page.open()
    stroke(page)
    page.wait()
    page.choose("tone.children[0]", "1")
    page.wait()
    changed = np.roll((page.picture() != plain).any(axis=-1), (32, 32), axis=(0, 1))
    assert page.value("page.world.edits.length") == 1
    assert changed[28:36, 28:36].mean() > 0.9


@pytest.mark.browser
@pytest.mark.parametrize("brush", ["[data-tool=heal]", "[data-class='1']"])
def test_a_stroke_is_taken_back(brush: str, page: Page) -> None:
    page.open()
    before = page.picture()
    assert not page.value("document.getElementById('undo').checkVisibility()")
    stroke(page, brush)
    page.wait()
    assert (page.picture() != before).any()
    page.click("#undo")
    page.wait()
    assert np.array_equal(page.picture(), before)
    assert not page.value("document.getElementById('undo').checkVisibility()")


@pytest.mark.browser
def test_only_the_last_stroke_is_taken_back_by_key(page: Page) -> None:
    page.open()
    page.click("[data-tool=heal]")
    page.drag((450, 300))
    page.wait()
    one = page.picture()
    page.drag((450, 480))  # 30 px away
    page.wait()
    two = page.picture()
    page.browser.press("u", "KeyU", 85)
    page.wait()
    now, there = page.picture(), np.s_[:14, :14]  # of the first stroke, which is around (0, 0)
    assert page.value("page.world.edits.length") == 1
    assert np.array_equal(now[there], one[there]) and (now[28:34] != two[28:34]).mean() > 0.3
