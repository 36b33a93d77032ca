"""The address of the page, where it says what cannot be, or what would take too long here."""

import pytest

from .web_page import Page


@pytest.mark.browser
@pytest.mark.parametrize("told", ["world=-256", "world=100", "world=abc", "world=1e9"])
def test_a_world_that_cannot_be_is_the_usual_one(told: str, page: Page) -> None:
    page.open(f"model=plain&zoom=6&{told}")
    assert page.value("[page.size, page.world.size]") == [256, 256]


@pytest.mark.browser
def test_numbers_that_cannot_be_are_left_out(page: Page) -> None:
    page.open("model=plain&world=64&seed=Infinity&y=abc&x=1e300&zoom=-Infinity&tone=NaN")
    assert page.value("location.hash") == "#model=plain&seed=0&world=64&x=0&y=0&zoom=3"


@pytest.mark.browser
def test_an_unknown_model_is_told(page: Page) -> None:
    page.open("model=none&world=64")
    assert page.says("note") == "This page has no model none; it shows drawn."
    page.choose("model", "plain")
    page.browser.wait_for("page.world.model.name === 'plain'")
    assert page.says("note") == ""


@pytest.mark.browser
def test_a_link_to_the_endless_map_opens_a_small_one_without_a_graphics_card(page: Page) -> None:
    page.open("model=plain&seed=3&world=endless&zoom=6")
    assert page.value("page.world.size") == 256
    assert "this is a tile of 256 px" in page.says("note")


SLOW = """{
    const own = performance.now;
    let late = 0;
    performance.now = () => own.call(performance) + (late += 600);
}"""
FAR = """import("./world.js").then(({ World }) => {
    Object.defineProperty(World.prototype, "reach", { get: () => 128 }); // as of a model that sees far
    window.told = [];
    const look = () => told.push(document.getElementById("state").textContent);
    new MutationObserver(look).observe(document.getElementById("state"), { childList: true });
})"""


@pytest.mark.browser
def test_pieces_are_not_smaller_than_what_they_see_and_grow_back(page: Page) -> None:
    page.open("model=plain&seed=3&world=64&zoom=8", 512, 256)
    page.value(FAR)
    page.value(SLOW)
    page.choose("world", "0")
    page.wait()
    assert page.value("page.pieceSide") == 128
    assert any("step 1 of 3, " in text and "%" in text for text in page.value("told"))
    page.value("delete performance.now")
    page.value("page.view.moveBy(-9000, 0)")
    page.wait()
    assert page.value("page.pieceSide") == 256
