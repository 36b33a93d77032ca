"""The guard of the page: only this machine's own page is answered, and it loads nothing from elsewhere."""

import asyncio
from typing import Any

import pytest

from diffnca.app.guard import ELSEWHERE, LARGEST_REQUEST_BYTES, UPLOAD_PATH, Guard, Message, Receive, Send
from diffnca.view import server

OWN = {"host": "127.0.0.1:7860"}


def answer_of(
    path: str = "/",
    headers: dict[str, str] = OWN,
    method: str = "GET",
    body: bytes = b"",
    page: bytes = b"page",
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer, where the app behind answers `page` to all."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": page})

    parts = [body[i : i + 1024] for i in range(0, len(body), 1024)] or [b""]
    received = [{"type": "http.request", "body": part, "more_body": True} for part in parts[:-1]]
    received.append({"type": "http.request", "body": parts[-1]})
    sent: list[Any] = []

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw}
    asyncio.run(Guard(app)(scope, receive, send))
    start, *bodies = sent
    told = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], told, b"".join(each["body"] for each in bodies)


def test_the_page_is_answered() -> None:
    assert answer_of()[::2] == (200, b"page")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "192.168.0.2:7860", ""])
def test_another_name_that_leads_here_is_refused(host: str) -> None:
    assert answer_of(headers={"host": host})[0] == 403


def test_the_viewer_decides_which_names_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HOSTS", frozenset({"other"}))
    assert answer_of(headers={"host": "other:7860"})[0] == 200
    assert answer_of(headers=OWN)[::2] == (403, b"host '127.0.0.1:7860': must be other\n")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_request_of_another_page_is_refused(origin: str) -> None:
    assert answer_of("/gradio_api/queue/join", OWN | {"origin": origin}, "POST")[0] == 403


def test_a_request_of_the_page_itself_is_answered() -> None:
    headers = OWN | {"origin": "http://127.0.0.1:7860"}
    assert answer_of("/gradio_api/queue/join", headers, "POST")[0] == 200


@pytest.mark.parametrize(
    "path",
    "/gradio_api/file=/etc/passwd /file=/etc/passwd /gradio_api/proxy=https://evil.example/ /monitoring "
    "/gradio_api/vibe-edit /gradio_api/mcp/sse /docs /openapi.json /login".split(),
)
def test_what_the_page_does_not_need_is_closed(path: str) -> None:
    assert answer_of(path)[0] == 404


def test_a_request_that_says_it_is_too_large_is_refused() -> None:
    headers = OWN | {"content-length": str(LARGEST_REQUEST_BYTES + 1)}
    assert answer_of("/gradio_api/run/predict", headers, "POST")[0] == 413


def test_a_request_that_is_too_large_is_refused_when_it_hides_its_size(monkeypatch: Any) -> None:
    monkeypatch.setattr("diffnca.app.guard.LARGEST_REQUEST_BYTES", 2048)
    assert answer_of("/gradio_api/run/predict", OWN, "POST", bytes(2048))[0] == 200
    assert answer_of("/gradio_api/run/predict", OWN, "POST", bytes(2049))[0] == 413


def test_an_upload_may_be_larger() -> None:
    headers = OWN | {"content-length": str(LARGEST_REQUEST_BYTES + 1)}
    assert answer_of(UPLOAD_PATH, headers, "POST")[0] == 200


def test_each_answer_forbids_to_load_anything_from_elsewhere() -> None:
    policy = answer_of("/assets/a.js")[1]["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


@pytest.mark.parametrize(
    "element",
    [
        '<link rel="preconnect" href="https://fonts.googleapis.com" />',
        '<meta property="og:url" content="https://gradio.app/" />',
        '<script src="https://cdnjs.cloudflare.com/a.js" async></script>',
    ],
)
def test_elements_that_name_other_machines_go(element: str) -> None:
    assert answer_of(page=f"<p>{element}</p>".encode())[2] == b"<p></p>"


def test_other_elements_stay() -> None:
    kept = (
        b'<meta charset="utf-8"><script src="/assets/a.js"></script><script>x="http://127.0.0.1:1/"</script>'
    )
    assert answer_of(page=kept)[2] == kept and ELSEWHERE.search(kept) is None
