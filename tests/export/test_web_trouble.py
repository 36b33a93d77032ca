"""What the page does where a file does not come, or a device does not work."""

from collections.abc import Iterator

import numpy as np
import pytest

from .web_page import WORLD, Page


@pytest.fixture
def cut_off(page: Page) -> Iterator[Page]:
    """Return a page whose models cannot be had any more."""
    page.open(f"{WORLD}&x=5")
    page.browser.page("Network.setBlockedURLs", urls=["*.safetensors.gz"])
    yield page
    page.browser.page("Network.setBlockedURLs", urls=[])


@pytest.mark.browser
@pytest.mark.parametrize("name", ["plain", "waves"])
def test_a_model_that_does_not_come_leaves_the_one_that_is_there(name: str, cut_off: Page) -> None:
    page, before = cut_off, cut_off.picture()
    page.choose("model", name)
    page.browser.wait_for("document.getElementById('note').textContent !== ''")
    assert page.says("note").startswith(f"{name}.safetensors.gz did not come: the server may be down")
    assert page.value("[document.getElementById('model').value, page.view.x]") == ["drawn", 5]
    assert page.value("location.hash") == "#model=drawn&seed=3&world=64&x=5&y=0&zoom=6"
    assert page.value("document.getElementById('tools').checkVisibility()")
    page.click("#another")
    page.wait()
    assert page.says("note") == "" and (page.picture() != before).any()


@pytest.mark.browser
def test_a_model_that_comes_at_the_second_try_is_shown(cut_off: Page) -> None:
    page = cut_off
    page.choose("model", "plain")
    page.browser.wait_for("document.getElementById('note').textContent !== ''")
    page.browser.page("Network.setBlockedURLs", urls=[])
    page.choose("model", "plain")
    page.browser.wait_for("page.world.model.name === 'plain'")
    assert page.says("note") == ""


@pytest.mark.browser
def test_a_page_that_opened_without_its_model_shows_another(cut_off: Page) -> None:
    page = cut_off
    page.open(ready=False)
    page.browser.wait_for("document.body.classList.contains('trouble')")
    page.browser.page("Network.setBlockedURLs", urls=[])
    page.choose("model", "plain")
    page.wait()
    assert not page.value("document.body.classList.contains('trouble')")
    assert page.value("document.getElementById('tools').checkVisibility()")


@pytest.mark.browser
def test_a_graphics_card_that_gives_no_device_leaves_the_work_to_the_processor(page: Page) -> None:
    refusing = "GPUAdapter.prototype.requestDevice = () => Promise.reject(new Error('no device'));"
    added = page.browser.page("Page.addScriptToEvaluateOnNewDocument", source=refusing)
    try:
        page.open(f"{WORLD}&engine=graphics")
    finally:
        page.browser.page("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
    assert page.value("page.engine.constructor.name") == "Processor"
    assert np.ptp(page.picture()) > 0
