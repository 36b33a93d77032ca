"""What the page does where a device does not work."""

import numpy as np
import pytest

from .web_page import WORLD, Page


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
