"""Small models, a page that holds them, and a browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffnca.export.web import write_page

from ..chromium import Browser
from .web_models import EIGHT, OWN, SMALL, write_small
from .web_page import ENGINE, GRAPHICS, Page, served

BUNDLED = ("pathology-4step", "colon-4step", "aerial-4step", "faces-4step")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for config in (*SMALL, EIGHT):
        write_small(folder, config)
    return folder


@pytest.fixture(scope="session")
def address(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    write_page([*(models / f"{name}.safetensors" for name in OWN), *BUNDLED], folder)
    write_page([models / "eight.safetensors"], folder / "eight", "int8")
    (folder / "eight" / "eight.safetensors.gz").rename(folder / "eight.safetensors.gz")
    with served(folder) as address:
        yield address


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"), *GRAPHICS)
    yield started
    started.close()


@pytest.fixture(scope="module", params=["processor", "graphics"])
def engine(request: pytest.FixtureRequest, browser: Browser, address: str) -> Browser:
    """Return a browser with an engine of the page, without the page."""
    browser.page("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=4)  # cores, for the threads
    browser.open(f"{address}models.json", 400, 300)
    browser.value(ENGINE % request.param)
    return browser


@pytest.fixture
def page(browser: Browser, address: str) -> Page:
    return Page(browser, address)
