"""A local server of tiles for the browser, and a page with OpenSeadragon, for images of any size.

The server is bound to 127.0.0.1 and answers only to this name; the page loads nothing from elsewhere. A tile
is read when the page asks for it, so memory does not grow with the image (but pictures are held in memory).
"""

import contextlib
import io
import json
import logging
import os
import re
import socketserver
import threading
import webbrowser
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from diffnca.data.decoding import Pixels
from diffnca.data.refusals import first_line
from diffnca.view.pyramids import Pyramid, open_image

HOSTS = frozenset({"127.0.0.1", "localhost"})
"""The names of this machine in the addresses of its pages."""

POLICY = "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'; form-action 'none'"
ASSETS = {
    "/": ("view.html", "text/html; charset=utf-8"),
    "/openseadragon.min.js": ("openseadragon.min.js", "text/javascript; charset=utf-8"),
}
TILE_PATH = re.compile(r"/tile/([0-9]{1,2})/([0-9]{1,9})/([0-9]{1,9})\.(png|jpg)")


def refusal_of_host(host: str) -> str | None:
    """Return why a request to a host, with or without a port, is refused; `None` for this machine.

    Another name may lead here too: DNS rebinding.
    """
    if re.sub(r":[0-9]+$", "", host) in HOSTS:
        return None
    return f"host {host!r}: must be {' or '.join(sorted(HOSTS))}"


def encoded(pixels: Pixels, extension: str) -> bytes:
    """Return pixels as a PNG (without loss) or JPEG file."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    if extension == "png":
        image.save(file, format="PNG", compress_level=1)
    else:
        (image.convert("RGB") if image.mode == "RGBA" else image).save(file, format="JPEG", quality=90)
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Serves an image on 127.0.0.1; each connection has a thread, each core reads a tile at a time."""

    request_queue_size = 1024  # a page may ask for hundreds of tiles at once

    def __init__(self, pyramid: Pyramid, port: int = 0) -> None:
        """Take the port, or a free port for 0; raises `ValueError` if that fails."""
        if not 0 <= port < 2**16:
            raise ValueError(f"port {port}: must be from 1 to 65535, or 0 for a free one")
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ValueError(f"port {port}: {error.strerror}; take another, or 0 for a free one") from None
        self.pyramid = pyramid
        self.cores = threading.BoundedSemaphore(os.cpu_count() or 1)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without asking the name service for the name of this machine."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a browser closes connections at any time."""


class Handler(BaseHTTPRequestHandler):
    """Answers requests of a browser."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60.0

    def do_GET(self) -> None:
        """Answer with the page, its facts, or a tile."""
        refusal = refusal_of_host(self.headers.get("Host", ""))
        if refusal is not None:
            return self._refuse(HTTPStatus.FORBIDDEN, refusal)
        path = urlsplit(self.path).path
        if path in ASSETS:
            file, kind = ASSETS[path]
            return self._answer(Path(__file__).with_name(file).read_bytes(), kind)
        if path == "/image.json":
            return self._answer(json.dumps(self.server.pyramid.facts()).encode(), "application/json")
        if path.startswith("/tile/"):
            return self._answer_tile(path)
        return self._refuse(HTTPStatus.NOT_FOUND, "no such page")

    def _answer_tile(self, path: str) -> None:
        parts = TILE_PATH.fullmatch(path)
        if parts is None:
            return self._refuse(HTTPStatus.BAD_REQUEST, "tiles are /tile/LEVEL/COLUMN/ROW.png or .jpg")
        level, column, row = (int(part) for part in parts.groups()[:3])
        try:
            with self.server.cores:
                pixels = self.server.pyramid.tile(level, column, row)
                body = None if pixels is None else encoded(pixels, parts[4])
        except Exception as error:  # codecs raise anything on damaged tiles
            message = f"unreadable tile: {first_line(error)}"
            logging.getLogger(__name__).warning("%s: %s", self.server.pyramid.name, message)
            return self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        if body is None:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such tile")
        return self._answer(body, "image/png" if parts[4] == "png" else "image/jpeg")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._answer(f"{message}\n".encode(), "text/plain; charset=utf-8", status)

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")  # another image may be served here next
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def serve(
    path: str | Path, port: int = 0, open_browser: bool = True, say: Callable[[str], object] = print
) -> None:
    """Show an image until Ctrl-C.

    `port` 0 takes a free port. `say` takes a sentence with the address.
    """
    with Server(open_image(path), port) as server, contextlib.suppress(KeyboardInterrupt):
        say(f"{server.address} shows {server.pyramid.name}; stop with Ctrl-C")
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        server.serve_forever()
