"""What the tabs of long work have in common: its status, its end, the names of what it makes."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from diffnca.app.owner import Owner
from diffnca.app.sessions import Session, line
from diffnca.errors import require

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,39}")

SECONDS = 2.0
"""Time between two looks at long work."""


def checked_name(name: str) -> str:
    """Return the name of a file or folder that a person has typed; refuse what could be another path."""
    allowed = "1 to 40 letters, digits, spaces, - and _, a letter or a digit first"
    require(NAME.fullmatch(name) is not None and name == name.strip(), "name", name[:60], allowed)
    return name


def stop_button(owner: Owner, kind: str) -> None:
    """Add a button that stops long work."""
    stop = gr.Button("Stop", min_width=80, scale=0)
    stop.click(lambda: owner.works.stop(kind), queue=False, show_progress="hidden")


def looking(owner: Owner, outputs: Sequence[Any], look: Callable[[Session], list[Any]]) -> None:
    """Show long work again and again, in some outputs; what has not changed is not sent."""

    def seen(before: list[Any], request: gr.Request) -> list[Any]:
        session = owner.sessions.known(request.session_hash or "")
        now = before if session is None else look(session)
        changed = [gr.skip() if new == old else new for new, old in zip(now, before, strict=True)]
        return [*changed, gr.skip() if now == before else now]

    before = gr.State([None] * len(outputs))
    gr.Timer(SECONDS).tick(seen, before, [*outputs, before], show_progress="hidden", queue=False)


def status(owner: Owner, session: Session, kind: str) -> str:
    """Return how far long work is, as HTML; nothing if there was none."""
    work = owner.works.latest.get(kind)
    if work is None:
        return ""
    text = line(f"{work.name}: {session.shown(work.text)}", work.is_error)
    bar = f'<progress max="1" value="{work.share:.3f}">{work.share:.0%}</progress>'
    return f'<div class="status">{bar if work.is_running else ""}{text}</div>'
