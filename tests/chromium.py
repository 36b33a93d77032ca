"""A headless Chromium for tests of pages, driven through its DevTools pipe."""

import base64
import fcntl
import io
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
SWITCHES = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars
--disable-background-networking --disable-component-update --disable-sync --disable-extensions
--force-color-profile=srgb --force-prefers-reduced-motion --remote-debugging-pipe"""
SECONDS = 90.0


class Browser:
    """A headless Chromium; its pipe carries messages of JSON, each ended by a zero byte."""

    def __init__(self, profile: Path, *more: str) -> None:
        """Start it with an empty profile, and with more switches; skip the test where there is none."""
        if BROWSER is None:
            pytest.skip("no Chromium or Chrome on the PATH")
        self.seen: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)
        self.rest = b""
        (theirs, self.out), (self.back, answers) = os.pipe(), os.pipe()
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs, answers)]
        switches = [*SWITCHES.split(), *more, f"--user-data-dir={profile}"]
        pipes = f'exec "$@" 3<&{given[0]} 4>&{given[1]}'
        self.process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", BROWSER, *switches],
            pass_fds=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (theirs, answers, *given):
            os.close(end)
        self.tab()

    def close(self) -> None:
        """End it."""
        try:
            self.ask("Browser.close")
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self.out)
            os.close(self.back)

    def tab(self, background: bool = False) -> str:
        """Open a tab, which takes what follows; return its target. In the background it is hidden."""
        target: str = self.ask("Target.createTarget", url="about:blank", background=background)["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.page(f"{domain}.enable")
        return target

    @contextmanager
    def behind(self) -> Iterator[None]:
        """Send what follows to a hidden tab."""
        front, target = self.session, self.tab(background=True)
        try:
            yield
        finally:
            self.ask("Target.closeTarget", targetId=target)
            self.session = front

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile is kept in `seen`."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        os.write(self.out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self.seen.append(answer)
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.back], [], [], SECONDS)[0], "the browser does not answer"
            received = os.read(self.back, 1 << 20)
            assert received, "the browser has ended"
            self.rest += received
        line, self.rest = self.rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def page(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page."""
        return self.ask(method, self.session, **parameters)

    def value(self, expression: str) -> Any:
        """Return what an expression means in the page."""
        answer = self.page("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + SECONDS
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.05)

    def open(self, address: str, width: int, height: int, mobile: bool = False) -> None:
        """Open a page in a window of this size, from nothing."""
        self.seen.clear()
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.page("Emulation.setDeviceMetricsOverride", **window)
        self.page("Page.navigate", url="about:blank")
        self.page("Page.navigate", url=address)
        self.wait_for("document.readyState == 'complete'")

    def press(self, key: str, code: str, number: int) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            about = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            text = key if kind == "keyDown" and len(key) == 1 else ""
            self.page("Input.dispatchKeyEvent", type=kind, text=text, **about)

    def screenshot(self) -> np.ndarray:
        """Return what is seen, `h w 3`."""
        data = base64.b64decode(self.page("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
