"""The page: a browser gives the pixels of Python, on any part of a map; it heals, paints, shows and saves."""

import functools
import gzip
import io
import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from diffnca.canvas.noise import Noise, Stream
from diffnca.canvas.pixels import to_uint8
from diffnca.canvas.region import Canvas, Region
from diffnca.cli.main import main
from diffnca.config.layout import LayoutConfig
from diffnca.config.model import Config, SamplingConfig
from diffnca.config.networks import CellConfig, CoarseConfig, FourierConfig, NCAConfig
from diffnca.diffusion.denoiser import Denoiser, estimate_alone
from diffnca.diffusion.walk import Walk
from diffnca.export import web
from diffnca.export.packed import eight_bits
from diffnca.export.preview import preview
from diffnca.export.web import write_page
from diffnca.models.build import build_denoiser
from diffnca.models.file import load, read_config, read_tensors, write_model
from diffnca.sampling.generate import generate
from diffnca.sampling.task import walk_of

from ..chromium import Browser

GRAPHICS = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
BUNDLED = ("pathology-4step", "colon-4step", "aerial-4step", "faces-4step")
LARGEST_PAGE_BYTES = 1_500_000
ALLOWED, SHARE = 2, 0.999

CELL = CellConfig(hidden=16, num_cell_steps=2, dilations=(1, 2), embedding_width=8, embedding_channels=8)
NETWORK = NCAConfig(
    patch=2, channels=30, cell=CELL, coarse=CoarseConfig(4, 64, 4, replace(CELL, num_cell_steps=1))
)
STUDENT = SamplingConfig("ddim", 3, (299, 224, 99))
PLAIN = Config("plain", NETWORK, sampling=STUDENT)
DRAWN = replace(
    PLAIN,
    name="drawn",
    model=replace(NETWORK, given_channels=3),
    layout=LayoutConfig(("stroma", "gland", "white")),
)
RARE = replace(
    PLAIN, name="rare", model=replace(NETWORK, coarse=None, cell=replace(CELL, update_probability=0.5))
)
RARE_CELL = replace(CELL, update_probability=0.5)
WAVES = replace(
    PLAIN,
    name="waves",
    model=NCAConfig(
        "fourier_diff_nca",
        patch=4,
        channels=100,
        cell=RARE_CELL,
        fourier=FourierConfig(
            window=4, trained_px=32, cell=replace(RARE_CELL, positions="pixels", padding="zeros")
        ),
    ),
)
SMALL = (DRAWN, PLAIN, RARE, WAVES)
OWN = tuple(config.name for config in SMALL)
EIGHT = replace(WAVES, name="eight")


def write_small(folder: Path, config: Config) -> Path:
    """Write a model with random weights that are no larger than those of trained ones."""
    torch.manual_seed(0)
    denoiser, path = build_denoiser(config), folder / f"{config.name}.safetensors"
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    write_model(path, denoiser.network.state_dict(), config, {}, torch.float16)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for config in (*SMALL, EIGHT):
        write_small(folder, config)
    return folder


def test_the_page_of_the_bundled_models_is_small(tmp_path: Path) -> None:
    options = ["--format", "web", "--weights", "int8", "--out", f"{tmp_path}/site"]
    assert main(["export", *BUNDLED, *options]) == 0
    assert sum(path.stat().st_size for path in (tmp_path / "site").iterdir()) < LARGEST_PAGE_BYTES


def test_a_page_holds_the_weights_of_its_models(models: Path, tmp_path: Path) -> None:
    write_page([models / "plain.safetensors"], tmp_path)
    own, _ = read_tensors(models / "plain.safetensors")
    written = safetensors.torch.load(gzip.decompress((tmp_path / "plain.safetensors.gz").read_bytes()))
    assert written.keys() == own.keys() and all(torch.equal(written[name], own[name]) for name in own)


def test_the_page_loads_nothing_from_elsewhere(models: Path, tmp_path: Path) -> None:
    write_page([models / "plain.safetensors"], tmp_path)
    texts = [path.read_text() for path in tmp_path.iterdir() if path.suffix != ".gz"]
    assert [text for text in texts if "http://" in text or "https://" in text] == []


def test_a_preview_shows_the_tile_of_the_page_with_a_quarter_of_the_sides(models: Path) -> None:
    kind, stored = preview(models / "plain.safetensors").split(",")
    picture = np.asarray(Image.open(io.BytesIO(b64decode(stored)))).astype(int)
    options = {"even_px": 128, "tone": (0.0, 0.0, 0.0), "boundary": ("circular", "circular")}
    tile = generate(load(models / "plain.safetensors"), height=256, width=256, seed=0, **options)
    expected = to_uint8(torch.nn.functional.avg_pool2d(tile, 4))[0].astype(int)
    assert kind == "data:image/jpeg;base64" and picture.shape == (64, 64, 3)
    blocks = [each.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3, 4)).ravel() for each in (picture, expected)]
    assert np.corrcoef(*blocks)[0, 1] > 0.9  # JPEG keeps the means of its blocks, also of noise


def test_a_preview_of_a_model_of_single_images_shows_its_first_seed(models: Path) -> None:
    _, stored = preview(models / "waves.safetensors").split(",")
    assert Image.open(io.BytesIO(b64decode(stored))).size == (8, 8)


def test_cells_that_do_not_fit_the_blocks_of_the_page_are_refused(tmp_path: Path) -> None:
    model = NCAConfig(patch=5, channels=160, cell=CELL)
    path = write_small(tmp_path, replace(PLAIN, model=model))
    with pytest.raises(ValueError, match="side of its cells=5: must be a divisor of 32 px"):
        write_page([path], tmp_path / "site")


def test_a_page_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 models: must be one or more"):
        write_page([], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_a_page_from_an_installation_that_cannot_be_written_can_be_written(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("")
    for path in (tmp_path / "site" / "index.html", tmp_path / "site"):
        path.chmod(path.stat().st_mode & 0o555)
    monkeypatch.setattr(web, "files", lambda _: tmp_path)
    write_page([models / "plain.safetensors"], tmp_path / "page")
    written = (tmp_path / "page", tmp_path / "page" / "index.html")
    assert all(path.stat().st_mode & 0o200 for path in written)


def test_a_page_is_written_over_an_earlier_page_but_not_over_other_files(
    models: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        write_page([models / "plain.safetensors"], tmp_path / "site")
    with pytest.raises(ValueError, match=r"out=.*: must be a new folder"):
        write_page([models / "plain.safetensors"], models)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "pathology",
            r"takes 20 steps of dpmpp2m, .*make a student of it \(diffnca distill\)",
        ),
        ("colon-map", "colon-map: takes"),
        ("faces", "takes 50 steps"),
    ],
)
def test_models_that_the_page_cannot_run_are_refused_in_one_line(
    name: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        write_page([name], tmp_path)
    assert "\n" not in str(error.value) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "value"),
    [("positions", "pixels"), ("padding", "zeros"), ("modulation", "none"), ("hidden", 18)],
)
def test_cells_that_the_page_does_not_know_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    cell = replace(CELL, **{field: value})
    path = write_small(tmp_path, replace(PLAIN, model=replace(NETWORK, cell=cell)))
    with pytest.raises(ValueError, match=f"{field}={value}: must be .* for the page"):
        write_page([path], tmp_path / "site")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trained_px": 40}, "trained_px=40: must be a multiple of 32 and of model.patch=4"),
        ({"trained_px": 1024}, "at most 512"),
        ({"trained_px": 256, "window": 64}, r"bytes of modulations=\d+: must be at most 67108864"),
        ({"cell": replace(CELL, positions="relative")}, "positions=relative: must be none or pixels"),
    ],
)
def test_waves_that_the_page_does_not_know_are_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert isinstance(WAVES.model, NCAConfig) and WAVES.model.fourier is not None
    model = replace(WAVES.model, fourier=replace(WAVES.model.fourier, **change))
    path = write_small(tmp_path, replace(WAVES, model=model))
    with pytest.raises(ValueError, match=reason):
        write_page([path], tmp_path / "site")


def test_more_steps_than_the_page_has_room_for_are_refused(tmp_path: Path) -> None:
    steps = replace(STUDENT, steps=30, visited=tuple(range(299, 269, -1)))
    path = write_small(tmp_path, replace(PLAIN, sampling=steps))
    with pytest.raises(ValueError, match=r"reach of 30 steps=\d+: must be at most 1792 px"):
        write_page([path], tmp_path / "site")


def test_options_of_other_formats_are_refused(models: Path, tmp_path: Path, capsys: Any) -> None:
    model, out = str(models / "plain.safetensors"), str(tmp_path / "site")
    assert main(["export", model, "--format", "web", "--out", out, "--loop"]) == 2
    assert "must be left out for --format web" in capsys.readouterr().err
    assert main(["export", model, "--format", "web", "--out", out, "--weights", "float32"]) == 2
    assert "weights float32: must be float16 or int8" in capsys.readouterr().err


class Quiet(SimpleHTTPRequestHandler):
    """A plain file server that says nothing."""

    def log_message(self, *arguments: Any) -> None: ...


@pytest.fixture(scope="module")
def address(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    write_page([*(models / f"{name}.safetensors" for name in OWN), *BUNDLED], folder)
    write_page([models / "eight.safetensors"], folder / "eight", "int8")
    (folder / "eight" / "eight.safetensors.gz").rename(folder / "eight.safetensors.gz")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"), *GRAPHICS)
    yield started
    started.close()


ENGINE = """(async () => {
  const [{ openEngine }, { Network }, { readModel }, { World }] = await Promise.all(
    ["engine", "network", "weights", "world"].map((name) => import(`./${name}.js`)));
  const engine = await openEngine("%s"), networks = {};
  window.make = async (name, choices, place, pieceSide, edits) => {
    const read = async () => readModel(await (await fetch(`${name}.safetensors.gz`)).arrayBuffer());
    networks[name] ??= await Network.load(engine, await read());
    const world = new World(networks[name], { ...choices, seed: BigInt(choices.seed) });
    await world.finished(place, pieceSide);
    for (const edit of edits) await world.edit(edit);
    return Array.from(world.tiles.pixels(place));
  };
})()"""


@pytest.fixture(scope="module", params=["processor", "graphics"])
def engine(request: pytest.FixtureRequest, browser: Browser, address: str) -> Browser:
    """Return a browser with an engine of the page, without the page."""
    browser.page("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=4)  # cores, for the threads
    browser.open(f"{address}models.json", 400, 300)
    browser.value(ENGINE % request.param)
    return browser


def made(
    engine: Browser,
    name: str,
    place: tuple[int, int, int, int] = (0, 0, 32, 32),
    piece: int = 256,
    edits: tuple[dict[str, Any], ...] = (),
    **choices: Any,
) -> np.ndarray:
    """Return the pixels `h w 3` that the browser makes; the place is top, left, height, width."""
    told = {"seed": str(choices.pop("seed", 5))} | choices
    names = ("top", "left", "height", "width")
    arguments = [name, told, dict(zip(names, place, strict=True)), piece, edits]
    numbers = engine.value(f"window.make(...{json.dumps(arguments)})")
    return np.array(numbers).reshape(*place[2:], 4)[..., :3]


def assert_alike(pixels: np.ndarray, expected: torch.Tensor) -> None:
    """Require that nearly all values are within two levels of 255."""
    apart = np.abs(pixels - to_uint8(expected)[0].astype(int))
    assert (apart <= ALLOWED).mean() >= SHARE, f"largest difference {apart.max()}"


@pytest.mark.browser
@pytest.mark.parametrize("name", ["plain", "drawn", "rare"])
@pytest.mark.parametrize(("edge", "boundary"), [("mirror", "reflect"), ("around", "circular")])
def test_a_seed_gives_the_pixels_of_python(
    name: str, edge: str, boundary: Any, engine: Browser, models: Path
) -> None:
    options = {"seed": 2**40 + 5, "boundary": (boundary, boundary), "engine": "eager"}
    expected = generate(load(models / f"{name}.safetensors"), height=32, width=32, **options)
    assert_alike(made(engine, name, size=32, edge=edge, seed=2**40 + 5), expected)


@pytest.mark.browser
def test_a_bundled_model_gives_the_pixels_of_python(engine: Browser) -> None:
    expected = generate(load("pathology-4step"), height=32, width=32, seed=5, engine="eager")
    assert_alike(made(engine, "pathology-4step", size=32, edge="mirror"), expected)


def rounded(path: Path) -> None:
    """Round the weights in the file of a model as a page of 8-bit weights does."""
    tensors, _ = read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.ndim > 1:
            whole, factor = eight_bits(tensor)
            tensors[name] = whole * factor
    write_model(path, tensors, read_config(path), {}, torch.float16)


def test_weights_of_8_bits_are_exact_in_16() -> None:
    torch.manual_seed(0)
    whole, factor = eight_bits(torch.randn(16, 32, 3, 3))
    assert torch.equal(whole.float() * factor.float(), (whole * factor).float())


def test_weights_of_8_bits_are_within_half_a_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 32, 1, 1)
    whole, factor = eight_bits(weight)
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert (factor <= largest / 127 * 1.125).all() and (whole.abs() <= 127).all()
    assert ((whole * factor.float() - weight).abs() <= factor / 2).all()


@pytest.mark.browser
def test_weights_of_8_bits_give_the_pixels_of_python_with_the_same_weights(
    engine: Browser, models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "eight.safetensors"
    path.write_bytes((models / path.name).read_bytes())
    rounded(path)
    expected = generate(load(path), height=32, width=32, seed=5, engine="eager")
    assert_alike(made(engine, "eight", size=32, edge="mirror"), expected)


@pytest.mark.browser
@pytest.mark.parametrize("engine", ["processor"], indirect=True)
def test_the_student_of_aerial_has_the_pixels_of_python(engine: Browser) -> None:
    expected = generate(load("aerial-4step"), height=32, width=32, seed=5, even_px=0, engine="eager")
    assert_alike(made(engine, "aerial-4step", size=32, edge="mirror"), expected)


@pytest.mark.browser
@pytest.mark.parametrize("engine", ["processor"], indirect=True)  # a card in software takes a minute
def test_a_face_has_the_pixels_of_python(engine: Browser) -> None:
    expected = generate(load("faces-4step"), height=64, width=64, seed=5, engine="eager")
    assert_alike(made(engine, "faces-4step", (0, 0, 64, 64), size=64, edge="mirror"), expected)


@pytest.mark.browser
def test_a_model_that_sees_waves_gives_the_pixels_of_python(engine: Browser, models: Path) -> None:
    options = {"seed": 2**40 + 5, "engine": "eager", "direct": True}
    expected = generate(load(models / "waves.safetensors"), height=32, width=32, **options)
    assert_alike(made(engine, "waves", size=32, edge="mirror", seed=2**40 + 5), expected)


WITHOUT_END = Canvas(2**31, 2**31, ("circular", "circular"))


@pytest.mark.browser
@pytest.mark.parametrize(("top", "left"), [(-16, -7), (2**20, -(2**30))])
def test_a_place_on_the_endless_map_has_the_pixels_of_python(
    top: int, left: int, engine: Browser, models: Path
) -> None:
    region = Region(top, left, 24, 24, WITHOUT_END)
    options = {"height": 2**31, "width": 2**31, "boundary": WITHOUT_END.boundary, "engine": "eager"}
    expected = generate(load(models / "plain.safetensors"), region=region, seed=5, **options)
    assert_alike(made(engine, "plain", (top, left, 24, 24)), expected)


@pytest.mark.browser
def test_tiles_of_any_size_are_equal_to_the_bit(engine: Browser) -> None:
    place = (-32, 0, 64, 96)
    assert np.array_equal(made(engine, "plain", place, piece=32), made(engine, "plain", place, piece=256))


@pytest.mark.browser
def test_a_tone_gives_the_pixels_of_python(engine: Browser, models: Path) -> None:
    options = {
        "even_px": 16,
        "tone": (1.5, 1.5, 1.5),
        "boundary": ("circular", "circular"),
        "engine": "eager",
    }
    expected = generate(load(models / "plain.safetensors"), height=32, width=32, seed=5, **options)
    assert_alike(made(engine, "plain", size=32, tile=16, tone=[1.5, 1.5, 1.5]), expected)


@dataclass(frozen=True)
class Around:
    """The states of an image, kept outside a mask."""

    states: tuple[torch.Tensor, ...]
    mask: torch.Tensor

    def reach(self, canvas: Canvas) -> int:
        return 0

    def impose(self, x: torch.Tensor, level: Any, step: int, region: Region, noise: Noise) -> torch.Tensor:
        return torch.where(self.mask, x, self.states[step])


def disc(radius: float) -> torch.Tensor:
    """Return where pixels lie on a disc in the middle of 32 x 32 pixels."""
    far = torch.arange(32) + 0.5 - 16.0
    return far[:, None] ** 2 + far**2 <= radius**2


@pytest.mark.browser
def test_a_healed_place_has_the_pixels_of_python(engine: Browser, models: Path) -> None:
    denoiser, whole = load(models / "plain.safetensors"), Canvas(32, 32, ("circular", "circular")).whole
    assert isinstance(denoiser, Denoiser)
    sampler, levels = walk_of(denoiser, None, None)
    noise, mask = Noise((5,)), disc(8.0)
    states = [noise.normal(Stream.INITIAL, 0, whole, 3)]
    walk, estimate = Walk(levels, sampler, noise), functools.partial(estimate_alone, denoiser)
    for step in range(len(levels)):
        states.append(walk.run(estimate, states[-1], whole, steps=range(step, step + 1))[0])
    start = torch.where(mask, noise.normal(Stream.TASK, 1, whole, 3), states[0])
    healed, _ = replace(walk, constraint=Around(tuple(states), mask)).run(estimate, start, whole)
    edit = {"points": [[16.0, 16.0]], "radius": 8}
    assert_alike(made(engine, "plain", size=32, edits=(edit,)), healed.clamp(-1.0, 1.0))


@pytest.mark.browser
def test_a_painted_place_grows_and_leaves_the_rest_as_it_is(engine: Browser) -> None:
    place = (0, 0, 96, 96)
    before = made(engine, "drawn", place, size=96)
    edit = {"points": [[48.0, 48.0]], "radius": 8, "class": 1}
    changed = (made(engine, "drawn", place, size=96, edits=(edit,)) != before).any(axis=-1)
    far = np.arange(96) + 0.5 - 48.0
    is_near = far[:, None] ** 2 + far**2 <= (8 + 24) ** 2
    assert changed[40:56, 40:56].mean() > 0.5 and not changed[~is_near].any()


@pytest.mark.browser
@pytest.mark.parametrize("obey", [1.0, 3.0])
def test_a_map_painted_all_over_has_the_pixels_of_a_layout(
    obey: float, engine: Browser, models: Path
) -> None:
    options = {"boundary": ("circular", "circular"), "engine": "eager", "obey": obey, "seed": 5}
    layout = torch.ones(32, 32, dtype=torch.long)
    expected = generate(load(models / "drawn.safetensors"), height=32, width=32, layout=layout, **options)
    edit = {"points": [[16.0, 16.0]], "radius": 32, "class": 1}
    assert_alike(made(engine, "drawn", size=32, edits=(edit,), obey=obey), expected)


@pytest.mark.browser
def test_weights_of_16_bits_reach_a_graphics_card_as_they_are(engine: Browser) -> None:
    values = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.float16)
    finite = values[values.isfinite()]
    same = engine.value(f"""import("./weights.js").then(({{ asHalves, halfToFloat }}) => {{
        const bits = Uint16Array.from({finite.view(torch.uint16).tolist()});
        return asHalves(Float32Array.from(bits, halfToFloat)).every((half, index) => half === bits[index]);
    }})""")
    assert same


WORLD = "model=drawn&seed=3&world=64&zoom=6"
PICTURE = "Array.from(page.world.tiles.pixels({ top: 0, left: 0, height: 64, width: 64 }))"


class Page:
    """The page in a browser, at an address."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address, self.value = browser, address, browser.value

    def open(self, told: str = WORLD, width: int = 900, height: int = 600, ready: bool = True) -> None:
        """Open it in a window, and wait until the map is there."""
        self.browser.open(f"{self.address}index.html#{told}", width, height, mobile=width < 500)
        if ready:
            self.wait()

    def saved(self) -> tuple[str, np.ndarray]:
        """Save what the page offers; return its name and its pixels."""
        to_window = "{ window.saved = [this.download, this.href]; }"
        self.value(f"HTMLAnchorElement.prototype.click = function () {to_window}")
        self.click("#save")
        self.browser.wait_for("window.saved")
        name, link = self.value("saved")
        bytes_of = ".then((it) => it.arrayBuffer()).then((it) => [...new Uint8Array(it)])"
        data = bytes(self.value(f"fetch('{link}'){bytes_of}"))
        return name, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def wait(self) -> None:
        """Wait until all work is done."""
        self.browser.wait_for("window.page?.world && !page.isBusy && !page.plans.length")

    def picture(self) -> np.ndarray:
        return np.array(self.value(PICTURE)).reshape(64, 64, 4)[..., :3]

    def mouse(self, kind: str, x: float, y: float) -> None:
        button = {"button": "none"} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.browser.page("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point, move it along, and let it go at the last."""
        self.mouse("mousePressed", *points[0])
        for point in points[1:]:
            self.mouse("mouseMoved", *point)
        self.mouse("mouseReleased", *points[-1])

    def click(self, selector: str) -> None:
        self.value(f"document.querySelector({json.dumps(selector)}).click()")


@pytest.fixture
def page(browser: Browser, address: str) -> Page:
    return Page(browser, address)


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
    page.open("model=plain&seed=0&world=256&zoom=6")
    page.browser.wait_for(f"{BEHIND} === 'none'")
    assert page.value("page.times.preview") < page.value("page.times.live")


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
def test_the_mouse_moves_the_map_and_the_address_says_where(page: Page) -> None:
    page.open()
    page.drag((400, 300), (430, 300), (460, 240))
    assert page.value("[page.view.x, page.view.y]") == [-10, 10]
    assert page.value("location.hash") == "#model=drawn&seed=3&world=64&x=-10&y=10&zoom=6"


@pytest.mark.browser
def test_moving_on_the_endless_map_makes_only_what_is_new(page: Page) -> None:
    page.open("model=plain&seed=3&world=endless&x=100&y=-200&zoom=8", 512, 256)
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
    page.browser.wait_for("page.isWatched === false && page.frames > 0")
    assert page.value("page.frames") == 3
    assert np.array_equal(page.picture(), before)


@pytest.mark.browser
def test_a_saved_tile_has_the_pixels_of_python(page: Page, models: Path) -> None:
    page.open()
    name, pixels = page.saved()
    options = {"even_px": 128, "tone": (0.0, 0.0, 0.0), "boundary": ("circular", "circular")}
    drawn = generate(
        load(models / "drawn.safetensors"), height=64, width=64, seed=3, engine="eager", **options
    )
    assert name == "drawn-seed-3-64px.png"
    assert_alike(pixels, drawn)


WALL = "model=waves&seed=3&zoom=3"


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
    page.browser.wait_for("page.isWatched === false")
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
@pytest.mark.parametrize("told", [WORLD, WALL])
def test_all_controls_fit_a_phone(told: str, page: Page) -> None:
    page.open(told, width=390, height=844, ready=told == WORLD)
    page.browser.wait_for("Boolean(window.page?.world)")
    page.click("[data-tool=heal]")
    inside = """[...document.querySelectorAll("button, select, input")]
        .filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect())
        .every((box) => box.left >= 0 && box.right <= 390 && box.bottom <= 844)"""
    assert page.value(inside)


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
