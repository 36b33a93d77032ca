"""The page: what it shows, its controls, its address; it heals, paints, watches and saves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from diffnca.export.web import write_page
from diffnca.models.file import load
from diffnca.sampling.generate import generate

from ..chromium import Browser
from .web_page import RELAXED, SUM, WALL, WITHOUT_RELAXED, WORLD, Page, assert_alike, served


@pytest.mark.browser
def test_the_page_shows_a_map_and_asks_only_its_server(page: Page) -> None:
    page.open()
    assert page.browser.screenshot()[250:350, 400:500].std() > 5.0
    events = page.browser.seen
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith((page.address, "data:", "about:", "blob:"))] == []
    troubles = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.loadingFailed")
    assert [event for event in events if event["method"] in troubles] == []


BEHIND = "getComputedStyle(document.getElementById('map')).backgroundImage"


@pytest.mark.browser
def test_a_preview_stands_where_pixels_are_not_there_yet(page: Page) -> None:
    page.browser.page("Network.setBlockedURLs", urls=["*.safetensors.gz"])
    page.open("model=plain&seed=0&world=256", ready=False)
    page.browser.wait_for("document.body.classList.contains('trouble')")
    page.browser.page("Network.setBlockedURLs", urls=[])
    assert page.value(BEHIND).startswith('url("data:image/jpeg')
    assert "plain.safetensors.gz did not come" in page.says("state")
    page.open("model=plain&seed=0&world=256&zoom=6")
    page.browser.wait_for(f"{BEHIND} === 'none'")
    assert page.value("page.times.preview") < page.value("page.times.live")


@pytest.mark.browser
def test_the_preview_of_another_model_stands_until_its_pixels_are_there(page: Page) -> None:
    page.open("model=plain&seed=0&world=256&zoom=6")
    stands = page.value("""new Promise((done) => {
        const list = document.getElementById("model");
        list.value = "drawn";
        list.dispatchEvent(new Event("change"));
        (function look() {
            if (page.world.model.name === "drawn") done(page.view.preview !== null);
            else setTimeout(look);
        })();
    })""")
    assert stands
    page.browser.wait_for(f"{BEHIND} === 'none'")


@pytest.mark.browser
def test_the_page_says_that_it_loads_another_model(page: Page) -> None:
    page.open()
    told = page.value("""(async () => {
        const list = document.getElementById("model");
        list.value = "plain";
        list.dispatchEvent(new Event("change"));
        for (let turn = 0; turn < 20; turn++) await null; // all that waits, but for the file
        return document.getElementById("state").textContent;
    })()""")
    assert told == "Loading the model …"


@pytest.mark.browser
def test_other_seeds_have_no_preview(page: Page) -> None:
    page.open(f"{WORLD}&y=5")
    assert page.value("[page.times.preview ?? null, page.view.preview]") == [None, None]


@pytest.mark.browser
def test_the_page_tells_its_speed_and_when_its_first_pixels_came(page: Page) -> None:
    page.open()
    told = page.value("document.getElementById('numbers').textContent")
    assert "for 256 × 256 px" in told and "s after the page was opened" in told


@pytest.mark.browser
def test_a_finished_page_rests(page: Page) -> None:
    page.open()
    frames = page.value("""new Promise((done) => {
        let frames = 0;
        const own = requestAnimationFrame;
        window.requestAnimationFrame = (look) => { frames += 1; return own(look); };
        setTimeout(() => { page.view.moveBy(5, 0); }, 200);
        setTimeout(() => done(frames), 400);
    })""")
    assert frames == 1  # for the move


@pytest.mark.browser
def test_a_page_in_a_hidden_tab_is_finished_before_one_looks(page: Page) -> None:
    motion = [{"name": "prefers-reduced-motion", "value": "no-preference"}]  # it shows its middle first
    with page.browser.behind():
        page.browser.page("Emulation.setEmulatedMedia", features=motion)
        page.open()
        assert page.value("document.hidden && page.times.whole > page.times.live")


@pytest.mark.browser
def test_the_mouse_moves_the_map_and_the_address_says_where(page: Page) -> None:
    page.open()
    page.drag((400, 300), (430, 300), (460, 240))
    assert page.value("[page.view.x, page.view.y]") == [-10, 10]
    assert page.value("location.hash") == "#model=drawn&seed=3&world=64&x=-10&y=10&zoom=6"


@pytest.mark.browser
def test_moving_on_the_endless_map_makes_only_what_is_new(page: Page) -> None:
    page.open("model=plain&seed=3&world=64&x=100&y=-200&zoom=8", 512, 256)
    page.choose("world", "0")
    page.wait()
    whole = page.value("page.world.spent.pixels")
    page.value("page.view.moveBy(-256, 0)")
    page.browser.wait_for("page.isBusy")
    page.wait()
    assert 0.0 < page.value("page.world.spent.pixels") - whole < 0.7 * whole
    page.value("page.view.moveBy(256, 0)")
    page.browser.value("new Promise((done) => setTimeout(done, 200))")
    again = page.value("page.world.spent.pixels")
    page.wait()
    assert page.value("page.world.spent.pixels") == again


@pytest.mark.browser
def test_a_page_with_a_graphics_card_heals(page: Page) -> None:
    page.open(f"{WORLD}&engine=graphics")
    before = page.picture()
    page.click("[data-tool=heal]")
    page.drag((450, 300), (460, 300))
    page.wait()
    assert page.value("page.engine.constructor.name") == "Graphics"
    assert (page.picture() != before).any()


@pytest.mark.browser
def test_two_fingers_zoom_the_map(page: Page) -> None:
    page.open()
    for kind, spots in (("touchStart", (300, 600)), ("touchMove", (350, 550)), ("touchEnd", ())):
        points = [{"x": x, "y": 300, "id": number} for number, x in enumerate(spots)]
        page.browser.page("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    assert page.value("page.view.zoom") == pytest.approx(4.0)


@pytest.mark.browser
def test_keys_move_and_zoom_the_map(page: Page) -> None:
    page.open()
    page.browser.press("ArrowRight", "ArrowRight", 39)
    page.browser.press("+", "Equal", 187)
    assert page.value("[page.view.x, page.view.zoom]") == [pytest.approx(80 / 6), 7.5]


@pytest.mark.browser
def test_an_address_opens_the_map_that_it_names(page: Page) -> None:
    page.open("model=plain&seed=7&world=64&x=5&y=-3&zoom=4&tone=1")
    assert page.value("[page.model, page.seed, page.size, page.tone]") == ["plain", 7, 64, 1]
    assert page.value("[page.view.x, page.view.y, page.view.zoom]") == [5, -3, 4]


@pytest.mark.browser
def test_a_wound_heals_with_new_pixels_and_leaves_the_rest(page: Page) -> None:
    page.open()
    before = page.picture()
    page.click("[data-tool=heal]")
    page.value("document.querySelector('#size input').value = 6")
    page.drag((450, 300), (510, 300))  # the map from (0, 0) to (0, 10)
    page.wait()
    changed = np.roll((page.picture() != before).any(axis=-1), (32, 32), axis=(0, 1))
    assert changed[28:36, 28:46].mean() > 0.9
    changed[25:39, 25:49] = False
    assert not changed.any()


@pytest.mark.browser
def test_a_gland_is_painted_by_key(page: Page) -> None:
    page.open()
    before = page.picture()
    page.browser.press("2", "Digit2", 50)
    page.value("document.getElementById('map').focus()")
    page.browser.press("Enter", "Enter", 13)
    page.wait()
    assert page.value("page.world.edits[0].class") == 1
    assert (page.picture() != before).any()


@pytest.mark.browser
def test_a_place_is_healed_by_keys_on_a_page_that_nobody_has_touched(page: Page) -> None:
    page.open()
    page.browser.press("h", "KeyH", 72)
    page.browser.press("Enter", "Enter", 13)
    page.wait()
    assert page.value("page.world.edits.length") == 1


@pytest.mark.browser
def test_keys_leave_the_map_alone_while_one_reads_about_it(page: Page) -> None:
    page.open()
    page.click("#more")
    x, y = page.value("(({ x, y }) => [x, y])(document.getElementById('about').getBoundingClientRect())")
    page.drag((x + 9, y + 9))  # its margin, which is the dialog itself
    page.browser.press("n", "KeyN", 78)
    assert page.value("page.seed") == 3


@pytest.mark.browser
def test_arrow_keys_choose_among_the_brushes(page: Page) -> None:
    page.open()
    page.value("document.querySelector('[data-tool=move]').focus()")
    for _ in range(2):
        page.browser.press("ArrowRight", "ArrowRight", 39)
    assert page.value("[page.tool, page.class, page.view.x]") == ["paint", 0, 0]
    page.browser.press("ArrowLeft", "ArrowLeft", 37)
    assert page.value("[page.tool, document.activeElement.dataset.tool]") == ["heal", "heal"]


@pytest.mark.browser
def test_the_circle_of_a_brush_grows_by_key(page: Page) -> None:
    page.open()
    page.click("[data-tool=heal]")
    page.mouse("mouseMoved", 400, 300)
    page.browser.press("]", "BracketRight", 221)
    assert page.value("document.querySelector('#trace circle').getAttribute('r')") == str(6 * (14 + 4))


@pytest.mark.browser
def test_another_map_has_the_next_seed(page: Page) -> None:
    page.open()
    before = page.picture()
    page.click("#another")
    page.wait()
    assert page.value("location.hash").startswith("#model=drawn&seed=4&")
    assert (page.picture() != before).mean() > 0.5


@pytest.mark.browser
def test_watching_shows_each_step_and_leaves_the_map_as_it_was(page: Page) -> None:
    page.open()
    before = page.picture()
    page.value(
        "page.frames = 0; const own = page.world.show.bind(page.world); "
        "page.world.show = (r) => { page.frames += 1; return own(r); }"
    )
    page.click("#watch")
    page.browser.wait_for("page.watched === null && page.frames > 0")
    assert page.value("page.frames") == 3
    assert np.array_equal(page.picture(), before)


def drawn(models: Path) -> torch.Tensor:
    """Return what Python makes of the map of `WORLD`."""
    options = {"even_px": 128, "tone": (0.0, 0.0, 0.0), "boundary": ("circular", "circular")}
    return generate(
        load(models / "drawn.safetensors"), height=64, width=64, seed=3, engine="eager", **options
    )


@pytest.mark.browser
def test_a_saved_tile_has_the_pixels_of_python(page: Page, models: Path) -> None:
    page.open()
    name, pixels = page.saved()
    assert name == "drawn-seed-3-64px.png"
    assert_alike(pixels, drawn(models))


@pytest.mark.browser
def test_a_browser_without_relaxed_simd_shows_the_pixels_of_python(
    browser: Browser, models: Path, tmp_path: Path
) -> None:
    write_page([models / "drawn.safetensors"], tmp_path / "page")
    module = tmp_path / "page" / "simd.js"  # the page and each of its threads begin with it
    module.write_text(WITHOUT_RELAXED + module.read_text())
    with served(tmp_path / "page") as address:
        page = Page(browser, address)
        page.open(f"{WORLD}&engine=processor")
        allowed = f"[{SUM}, {RELAXED}].map((code) => WebAssembly.validate(code))"
        assert page.value(allowed) == [True, False]
        assert_alike(page.picture(), drawn(models))


@pytest.mark.browser
@pytest.mark.parametrize("width", [280, 320, 390])
@pytest.mark.parametrize("told", [WORLD, WALL])
def test_all_controls_fit_a_phone_side_by_side(told: str, width: int, page: Page) -> None:
    page.open(told, width=width, height=844, ready=told == WORLD)
    page.browser.wait_for("Boolean(window.page?.world)")
    page.click("[data-tool=heal]")
    inside = f"""[...document.querySelectorAll("button, select, input")]
        .filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect())
        .every((box) => box.left >= 0 && box.right <= {width} && box.bottom <= 844)"""
    assert page.value(inside)
    facts, tools = (
        f"document.getElementById('{name}').getBoundingClientRect()" for name in ("facts", "tools")
    )
    assert page.value(f"{facts}.bottom <= {tools}.top && {facts}.left >= 0 && {facts}.right <= {width}")


@pytest.mark.browser
def test_the_words_about_the_page_begin_at_their_heading_on_a_phone(page: Page) -> None:
    page.open(width=390, height=500)
    page.click("#more")
    seen = """["#about h2", "#about form button"].map((name) => {
        const box = document.querySelector(name).getBoundingClientRect();
        return document.elementFromPoint(box.x + 9, box.y + 9) === document.querySelector(name);
    })"""
    assert page.value(seen) == [True, True]


@pytest.mark.browser
def test_the_map_stays_while_the_window_changes_its_size(page: Page) -> None:
    page.open()
    page.value("page.view.resize()")
    assert page.value("page.view.context.getImageData(450, 300, 1, 1).data[3]") == 255


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "is_dark"), [("dark", True), ("light", False)])
def test_the_page_follows_the_colours_of_the_system(scheme: str, is_dark: bool, page: Page) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.page("Emulation.setEmulatedMedia", features=features)
    page.open()
    assert (page.browser.screenshot()[20:30, 25].mean() < 128) == is_dark


@pytest.mark.browser
def test_a_browser_that_can_run_nothing_is_told_so_in_one_line(page: Page) -> None:
    lacking = "delete Navigator.prototype.gpu; WebAssembly.validate = () => false;"
    added = page.browser.page("Page.addScriptToEvaluateOnNewDocument", source=lacking)
    page.open(ready=False)
    page.browser.wait_for("document.body.classList.contains('trouble')")
    page.browser.page("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])
    text = page.value("document.getElementById('state').innerText")
    assert text.startswith("This page needs WebGPU, or WebAssembly with SIMD") and "\n" not in text
