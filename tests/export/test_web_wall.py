"""The wall of images, each with its own seed: models that make an image as a whole."""

from pathlib import Path

import numpy as np
import pytest

from diffnca.models.file import load
from diffnca.sampling.generate import generate

from .web_page import WALL, Page, assert_alike


def image(page: Page, seed: int) -> np.ndarray:
    """Return the pixels of an image on the wall."""
    told = f"Array.from(page.world.images.get({seed}).tiles.pixels(page.world.whole))"
    return np.array(page.value(told)).reshape(32, 32, 4)[..., :3]


@pytest.mark.browser
def test_images_stand_on_a_wall_each_with_its_own_seed(page: Page, models: Path) -> None:
    page.open(WALL, 300, 300)
    seeds = page.value("[...page.world.images.keys()]")
    assert sorted(seeds) == list(range(3, 3 + 9))
    expected = generate(load(models / "waves.safetensors"), height=32, width=32, seed=7, engine="eager")
    assert_alike(image(page, 7), expected)


@pytest.mark.browser
def test_places_of_a_wall_are_counted_ring_after_ring(page: Page) -> None:
    page.open(WALL, 300, 300)
    numbers = page.value("""import("./wall.js").then(({ numberOf }) =>
        [-2, -1, 0, 1, 2].map((row) => [-2, -1, 0, 1, 2].map((column) => numberOf(row, column))))""")
    assert sorted(np.ravel(numbers)) == list(range(25))
    assert sorted(np.ravel(np.array(numbers)[1:4, 1:4])) == list(range(9)) and numbers[2][2] == 0


@pytest.mark.browser
def test_another_image_is_the_one_of_the_next_seed(page: Page) -> None:
    page.open(WALL, 300, 300)
    before = image(page, 4)
    page.click("#another")
    page.wait()
    assert page.value("[location.hash, document.getElementById('where').textContent]") == [
        "#model=waves&seed=4&world=256&x=0&y=0&zoom=3",
        "seed 4",
    ]
    assert page.value("page.world.seedAt(0, 0)") == 4 and np.array_equal(image(page, 4), before)


@pytest.mark.browser
def test_watching_an_image_leaves_it_as_it_was(page: Page) -> None:
    page.open(WALL, 300, 300)
    before = image(page, 3)
    page.click("#watch")
    page.browser.wait_for("page.watched === null")
    assert np.array_equal(image(page, 3), before)


@pytest.mark.browser
def test_a_wall_offers_no_brushes(page: Page) -> None:
    page.open(WALL, 300, 300)
    page.browser.press("h", "KeyH", 72)
    assert page.value("page.tool") == "move"
    assert not page.value("document.querySelector('[data-tool=heal]').checkVisibility()")


@pytest.mark.browser
def test_a_saved_image_is_the_one_in_the_middle(page: Page) -> None:
    page.open(f"{WALL}&x=40", 300, 300)
    name, pixels = page.saved()
    seed = page.value("page.world.seedAt(0, 40)")
    assert name == f"waves-seed-{seed}-32px.png" and seed != 3
    assert np.array_equal(pixels, image(page, seed))


@pytest.mark.browser
def test_images_that_are_seen_are_kept_however_many_they_are(page: Page) -> None:
    page.open(WALL, 300, 300)
    unknown, kept = page.value("""(() => {
        const { world } = page, { tiles } = world.images.get(3), side = 25 * world.pitch;
        const places = [...world.places({ top: -side / 2, left: -side / 2, height: side, width: side })];
        places.slice(1).forEach(({ seed }) => world.images.set(seed, { tiles, isFinished: true }));
        world.next({ top: -side / 2, left: -side / 2, height: side, width: side });
        const unknown = places.filter(({ seed }) => !world.images.has(seed)).length;
        world.next(page.view.seen);
        return [unknown, world.images.size];
    })()""")
    assert (unknown, kept) == (0, 500)
