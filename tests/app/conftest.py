"""The page, served in this process, and what a client asks it for."""

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffnca.app.owner import Options, Owner
from diffnca.app.server import bound, run, server_of
from diffnca.app.sessions import Sessions
from diffnca.app.works import Works


class Page:
    """The page of an owner, served in this process."""

    def __init__(self, owner: Owner) -> None:
        self.owner, self.held = owner, bound(0)
        self.port = self.held.getsockname()[1]
        app = server_of(owner)
        threading.Thread(target=run, args=(app, self.held), daemon=True).start()
        for _ in range(200):
            if self.is_up():
                break
            time.sleep(0.05)
        self.config = json.loads(self.get("/config")[1])

    def is_up(self) -> bool:
        try:
            return self.get("/")[0] == 200
        except OSError:
            return False

    def get(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        return answer.status, told

    def event(self, tab: str, button: str, data: list[Any], where: str) -> Any:
        """Click a button of a tab with these values; return what its outputs get."""
        self.join(tab, self.number_of(button, where), data)
        (message,) = self.completed(tab, 1)
        if not message["success"]:
            raise ValueError(message["output"]["error"])
        return message["output"]["data"]

    def join(self, tab: str, number: int, data: list[Any]) -> str:
        """Put an event of a tab into the queue; return its name there."""
        asked = {"data": data, "fn_index": number, "session_hash": tab, "trigger_id": None}
        body, kind = json.dumps(asked), {"Content-Type": "application/json"}
        status, told = self.get("/gradio_api/queue/join", "POST", body, **kind)
        assert status == 200, told
        name: str = json.loads(told)["event_id"]
        return name

    def completed(self, tab: str, count: int) -> list[dict[str, Any]]:
        """Return the messages of the next events of a tab that end, in their order."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", f"/gradio_api/queue/data?session_hash={tab}")
        answer, messages = connection.getresponse(), list[dict[str, Any]]()
        while len(messages) < count and (line := answer.readline()):
            if line.startswith(b"data:") and b'"process_completed"' in line:
                messages.append(json.loads(line[5:]))
        connection.close()
        assert len(messages) == count, "an event did not end"
        return messages

    def number_of(self, value: str, event: str) -> int:
        """Return the number of the event of a component with this label or text."""
        names = [
            each["id"]
            for each in self.config["components"]
            if value in (each["props"].get("value"), each["props"].get("label"))
        ]
        return next(
            each["id"]
            for each in self.config["dependencies"]
            for target, name in each["targets"]
            if target in names and name == event
        )

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Upload a file; return it as events take it."""
        quoted = name.replace('"', "%22")
        parts = [
            b"--limit",
            f'Content-Disposition: form-data; name="files"; filename="{quoted}"'.encode(),
            b"Content-Type: image/png",
            b"",
            content,
            b"--limit--",
            b"",
        ]
        kind = "multipart/form-data; boundary=limit"
        status, told = self.get("/gradio_api/upload", "POST", b"\r\n".join(parts), **{"Content-Type": kind})
        assert status == 200, told
        return {"path": json.loads(told)[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    pytest.importorskip("gradio", reason="the page needs gradio")
    pytest.importorskip("zarr")
    work = tmp_path_factory.mktemp("app") / "work"
    with Owner(Options(work=work, is_opened=False), Sessions(), Works()) as owner:
        yield Page(owner)


def png(height: int = 32, width: int = 32) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
