"""The server of the page: on 127.0.0.1 alone, without telemetry, never shared with others."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffnca.app.guard import MADE, Guard
from diffnca.app.owner import Options, Owner
from diffnca.app.sessions import Sessions
from diffnca.app.works import Works
from diffnca.jobs.options import Choices, Place

ADDRESS = "127.0.0.1"

SECONDS_TO_CLOSE = 2
"""Time for answers to end, after their connections."""

SECONDS_TO_WARM = 10
"""Longest wait for the first small image at the end."""


def bound(port: int) -> socket.socket:
    """Return a socket on a port of this machine alone; refuse a port that is taken."""
    if not 0 <= port < 2**16:
        raise ValueError(f"port {port}: must be from 1 to 65535, or 0 for a free one")
    held = socket.socket()
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((ADDRESS, port))
        held.listen(128)
    except OSError as error:
        held.close()
        raise ValueError(f"port {port}: {error.strerror}; take another, or 0 for a free one") from None
    return held


def quiet(uploads: Path) -> None:
    """Take no choice of gradio from the environment, but for its folder; forbid it to tell others anything.

    Gradio reads these choices when it is imported, and could otherwise share the page or open other folders.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)


def server_of(owner: Owner) -> Any:
    """Return the ASGI app that answers the browser."""
    quiet(owner.sessions.uploads)
    try:
        import fastapi
        import gradio  # noqa: F401  a missing package is named in one line
    except ImportError as error:
        raise ImportError(f"the page needs the package {error.name}: pip install 'diffnca[app]'") from None
    from diffnca.app.page import mounted

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def made(name: str) -> Any:
        path = owner.sessions.file_at(name)
        if path is None:
            return fastapi.responses.PlainTextResponse("no such file\n", 404)
        return fastapi.responses.FileResponse(path, headers={"cache-control": "no-store"})

    app.add_api_route(f"{MADE}{{name}}", made)
    return Guard(mounted(app, owner))


def serve(options: Options, say: Callable[[str], object] = print) -> None:
    """Show the page until Ctrl-C; then stop all work, and remove temporary files.

    `say` takes a sentence with the address.
    """
    options.check()
    with bound(options.port) as held, Owner(options, Sessions(), Works()) as owner:
        app = server_of(owner)
        address = f"http://{ADDRESS}:{held.getsockname()[1]}/"
        say(f"{address} makes images on this machine; stop with Ctrl-C")
        owner.open(address)
        warming = threading.Thread(target=warm, args=(owner,), daemon=True)
        warming.start()
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # or it would end before files are removed
        with suppress(KeyboardInterrupt):
            run(app, held)
        warming.join(SECONDS_TO_WARM)  # a process that ends within native code is aborted


def warm(owner: Owner) -> None:
    """Make a small image with the first model, so that its code is loaded while the browser opens."""
    from diffnca.jobs.request import asked
    from diffnca.jobs.run import run as run_job
    from diffnca.jobs.tasks import New

    name = next(iter(owner.models().values()))
    with suppress(OSError, ValueError):  # the page was closed at once; the model makes no such image
        place = Place(out=str(owner.sessions.folder / "first.png"))
        list(run_job(asked(name, New(), Choices(), (32, 32)), place))


def run(app: Any, held: socket.socket) -> None:
    """Answer on a socket until a signal to stop."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for connection in self.server_state.connections:
                connection.transport.close()  # an open tab would wait for news until its answer is cancelled
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=SECONDS_TO_CLOSE, ws="none"
    )
    Server(config).run(sockets=[held])
