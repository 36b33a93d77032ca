"""The page in a browser, its engine without the page, and what both are compared with."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffnca.canvas.pixels import to_uint8

from ..chromium import Browser

GRAPHICS = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
ALLOWED, SHARE = 2, 0.999

WORLD = "model=drawn&seed=3&world=64&zoom=6"
WALL = "model=waves&seed=3&zoom=3"
PICTURE = "Array.from(page.world.tiles.pixels({ top: 0, left: 0, height: 64, width: 64 }))"


class Quiet(SimpleHTTPRequestHandler):
    """A plain file server that says nothing."""

    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


ENGINE = """(async () => {
  const [{ openEngine }, { Network }, { readModel }, { World }] = await Promise.all(
    ["engine", "network", "weights", "world"].map((name) => import(`./${name}.js`)));
  const engine = await openEngine("%s"), networks = {};
  const worldOf = async (name, { seed, ...choices }) => {
    const read = async () => readModel(await (await fetch(`${name}.safetensors.gz`)).arrayBuffer());
    networks[name] ??= await Network.load(engine, await read());
    return new World(networks[name], { ...choices, seed: BigInt(seed) });
  };
  window.make = async (name, choices, place, pieceSide, edits) => {
    const world = await worldOf(name, choices);
    await world.finished(place, pieceSide);
    for (const edit of edits) await world.edit(edit);
    return Array.from(world.tiles.pixels(place));
  };
  window.begin = async (name, choices, place) => {
    const world = await worldOf(name, choices), { size } = world, seen = [];
    const look = () => seen.push(...world.tiles.pixels({ top: 0, left: 0, height: size, width: size }));
    await world.make(world.next(place, 256), look);
    look();
    return seen;
  };
})()"""


def simd_module(operation: tuple[int, ...], takes: int) -> str:
    """Return a small WebAssembly module, in JavaScript: a function that does one operation on vectors."""
    code = [0, *[0x41, 0, 0xFD, 0x11] * takes, 0xFD, *operation, 0x1A, 0x0B]
    start = [0, 0x61, 0x73, 0x6D, 1, 0, 0, 0, 1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0]
    return f"Uint8Array.from({[*start, 10, len(code) + 2, 1, len(code), *code]})"


SUM, RELAXED = simd_module((0xE4, 1), takes=2), simd_module((0x85, 2), takes=3)  # a + b; a b + c

WITHOUT_RELAXED = """{ // Relaxed operations are those from 0x100 on.
  const own = WebAssembly.Module;
  const isRelaxed = (code) => code.some((byte, k) => byte === 0xfd && code[k + 1] > 127 && code[k + 2] === 2);
  WebAssembly.Module = function (code) {
    if (isRelaxed(code)) throw new WebAssembly.CompileError("no relaxed SIMD");
    return new own(code);
  };
  WebAssembly.validate = (code) => {
    try { return Boolean(new WebAssembly.Module(code)); } catch { return false; }
  };
}
"""
"""Goes before a script, and takes relaxed SIMD away, as no switch of Chromium 150 does."""


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


class Page:
    """The page in a browser, at an address."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address, self.value = browser, address, browser.value

    def open(self, told: str = WORLD, width: int = 900, height: int = 600, ready: bool = True) -> None:
        """Open it in a window, and wait until the map is there."""
        self.browser.open(f"{self.address}index.html#{told}", width, height, mobile=width < 500)
        if ready:
            self.wait()

    def saved(self, *then: str) -> tuple[str, np.ndarray]:
        """Save what the page offers, and click other buttons at once; return its name and its pixels."""
        to_window = "{ window.saved = [this.download, this.href]; }"
        self.value(f"HTMLAnchorElement.prototype.click = function () {to_window}")
        self.value("; ".join(f"document.getElementById('{each}').click()" for each in ("save", *then)))
        self.browser.wait_for("window.saved")
        name, link = self.value("saved")
        bytes_of = ".then((it) => it.arrayBuffer()).then((it) => [...new Uint8Array(it)])"
        data = bytes(self.value(f"fetch('{link}'){bytes_of}"))
        return name, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def wait(self) -> None:
        """Wait until all work is done."""
        self.browser.wait_for("window.page?.world && !page.isBusy && !page.plans.length")

    def says(self, element: str) -> str:
        text: str = self.value(f"document.getElementById('{element}').textContent")
        return text

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

    def choose(self, control: str, value: str) -> None:
        """Choose a value in a list or a field, as a user does."""
        event = f"{control}.dispatchEvent(new Event('change', {{ bubbles: true }}))"
        self.value(f"{control}.value = {json.dumps(value)}; {event}")

    def click(self, selector: str) -> None:
        self.value(f"document.querySelector({json.dumps(selector)}).click()")
