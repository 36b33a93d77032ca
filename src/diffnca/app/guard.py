"""What the page may ask this machine for, and what the browser may ask of others: nothing.

It stands before all that gradio answers. A request must name this machine as its host and must not come from
another page. Large requests are refused. Each answer forbids the browser to load anything from elsewhere.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from diffnca.app.sessions import LARGEST_UPLOAD_BYTES, MOST_UPLOADS
from diffnca.view.server import refusal_of_host

LARGEST_REQUEST_BYTES = 16 << 20
"""Of a request that uploads no file: a drawing of the brush, numbers and names."""

LARGEST_UPLOADS_BYTES = 8 * LARGEST_UPLOAD_BYTES
"""Of all files that are uploaded at once; they are at most `MOST_UPLOADS`."""

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "form-action 'self'; base-uri 'self'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
ELSEWHERE = re.compile(
    rb"<(?:link|meta|script)\b[^>]*\bhttps?://(?!127\.0\.0\.1|localhost)[^>]*>(?:\s*</script>)?"
)
"""Elements of gradio's page that name other machines: addresses for search engines, fonts."""

MADE, UPLOAD_PATH = "/made/", "/gradio_api/upload"
OPEN = (MADE, "/assets/", "/static/", "/svelte/", "/gradio_api/queue/", "/gradio_api/heartbeat/", UPLOAD_PATH)
_CALLS = ("run/predict", "reset", "cancel", "startup-events", "app_id", "info")
OPEN_PATHS = frozenset(
    {"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"}
    | {f"/gradio_api/{name}" for name in _CALLS}
)
"""All that the page needs. So gradio reads no file for the browser, and fetches nothing from elsewhere."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


class TooLargeError(Exception):
    """A request has more bytes than it may have."""


class Guard:
    """An ASGI app around another one."""

    def __init__(self, app: Asgi) -> None:
        """Stand before `app`."""
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # the page uses no other protocol
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = refusal_of(scope["method"], scope["path"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        most = most_bytes(scope["path"])
        page = Page(send) if scope["path"] == "/" else None
        try:
            await self.app(scope, Limited(receive, most), page or Answer(send))
        except TooLargeError:
            await _refuse(send, 413, too_large(most))


def refusal_of(method: str, path: str, headers: Message) -> tuple[int, str] | None:
    """Return status and reason of a request that is refused; `None` for others."""
    host = headers.get("host", "")
    wrong_host = refusal_of_host(host)
    if wrong_host is not None:
        return 403, wrong_host
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return 403, "the request comes from another page"
    if origin is None and headers.get("sec-fetch-site") == "cross-site" and method != "GET":
        return 403, "the request comes from another page"
    if path not in OPEN_PATHS and not path.startswith(OPEN):
        return 404, "no such page"
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most_bytes(path):
        return 413, too_large(most_bytes(path))
    return None


def most_bytes(path: str) -> int:
    """Return how large a request may be."""
    return LARGEST_UPLOADS_BYTES if path == UPLOAD_PATH else LARGEST_REQUEST_BYTES


def too_large(most: int) -> str:
    """Return what a person reads about a request that is too large."""
    return f"too large: must be at most {most >> 20} MB, and {MOST_UPLOADS} files"


class Limited:
    """Receives a request; raises `TooLargeError` beyond a number of bytes."""

    def __init__(self, receive: Receive, most: int) -> None:
        self.receive, self.left = receive, most

    async def __call__(self) -> Message:
        """Return the next part."""
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise TooLargeError
        return message


class Answer:
    """Sends an answer with the headers that close the page to others."""

    def __init__(self, send: Send) -> None:
        self.send = send

    async def __call__(self, message: Message) -> None:
        """Send a part."""
        if message["type"] == "http.response.start":
            names = {name for name, _ in HEADERS}
            kept = [pair for pair in message["headers"] if pair[0].lower() not in names]
            message = {**message, "headers": [*kept, *HEADERS]}
        await self.send(message)


class Page(Answer):
    """Sends the page without elements that name other machines."""

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """Collect the page, and send it when it is complete."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if not message.get("more_body", False):
            body = ELSEWHERE.sub(b"", self.body)
            kept = [pair for pair in self.start["headers"] if pair[0].lower() != b"content-length"]
            length = (b"content-length", str(len(body)).encode())
            await super().__call__({**self.start, "headers": [*kept, length]})
            await super().__call__({"type": "http.response.body", "body": body})


async def _refuse(send: Send, status: int, reason: str) -> None:
    answer = Answer(send)
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await answer({"type": "http.response.start", "status": status, "headers": [kind]})
    await answer({"type": "http.response.body", "body": f"{reason}\n".encode()})
