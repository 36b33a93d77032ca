"""How soon the page shows something in headless Chromium, and the seconds of a core until then.

    python -m benchmarks.first_picture site/page pathology-4step faces-4step

This process serves the page. Each model gets a browser with an empty profile, and a window of 900 x 600 px.
`--cores` is what the browser says of its machine. `--engine graphics` takes WebGPU in software. Linux only.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from tests.chromium import Browser
from tests.export.web_page import GRAPHICS, served

WIDTH_PX, HEIGHT_PX = 900, 600
TIMES = ("preview", "live", "whole")
COLUMNS = ("model", "runs on", "preview", "first pixels", "whole window")


@dataclass(frozen=True)
class Options:
    """What to open, and how."""

    page: tyro.conf.Positional[Path]
    """Folder of the page."""
    models: tyro.conf.Positional[tuple[str, ...]]
    """Names of models of the page."""
    cores: int = os.cpu_count() or 1
    """Cores that the browser knows of."""
    engine: Literal["processor", "graphics"] = "processor"
    """What computes the cells."""
    until: Literal["preview", "live", "whole"] = "whole"
    """The last time to wait for: the preview, the first pixels, or the whole window."""


def main(options: Options) -> None:
    """Print a row of a table for each model."""
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    with served(options.page) as page:
        for model in options.models:
            address = f"{page}index.html#model={model}&engine={options.engine}"
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                cells = [f"`{model}`", *row(address, Path(profile), options)]
                print(f"| {' | '.join(cells)} |", flush=True)


def row(address: str, profile: Path, options: Options) -> list[str]:
    """Open a page; return what it runs on, and when its pictures came, with seconds of a core."""
    browser = Browser(profile, *(GRAPHICS if options.engine == "graphics" else ()))
    try:
        browser.page("Emulation.setHardwareConcurrencyOverride", hardwareConcurrency=options.cores)
        motion = {"name": "prefers-reduced-motion", "value": "no-preference"}
        browser.page("Emulation.setEmulatedMedia", features=[motion])
        browser.open("about:blank", WIDTH_PX, HEIGHT_PX)
        before = seconds_of_a_core()
        browser.page("Page.navigate", url=address)
        told = []
        for name in TIMES[: TIMES.index(options.until) + 1]:
            while not (come := browser.value(f"window.page?.times?.{name}")):
                time.sleep(0.1)
            told.append(f"{come / 1000:.1f} s ({seconds_of_a_core() - before:.1f})")
        return [browser.value("page.engine.name"), *told]
    finally:
        browser.close()


def seconds_of_a_core() -> float:
    """Return the time of all processes that this one has begun, and of those that they have."""
    children: dict[int, list[tuple[int, int]]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # it has ended
                continue
            children.setdefault(int(fields[1]), []).append(
                (int(entry.name), int(fields[11]) + int(fields[12]))
            )
    ticks, left = 0, [os.getpid()]
    while left:
        for number, spent in children.get(left.pop(), []):
            ticks += spent
            left.append(number)
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
