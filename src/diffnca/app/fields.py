"""What the tabs have in common: events and their errors, the choice of a model, results."""

import logging
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from diffnca.app.owner import Owner
from diffnca.app.sessions import Session, line
from diffnca.canvas.region import Canvas
from diffnca.config.model import Config
from diffnca.errors import Interrupted, explained, fault, require
from diffnca.jobs.options import Place
from diffnca.jobs.request import Request
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New
from diffnca.models.file import model_name
from diffnca.progress import Number, Report

_log = logging.getLogger(__name__)

MOST_PX, MOST_IMAGES = 1024 * 1024, 16
"""Largest image that is made at once here, and most images; together they have at most twice the pixels."""

SMALLEST_SHOWN_PX = 256
"""Width at which smaller images are shown."""

COMPUTING = "computing"
"""Events of this name wait for each other: images are made one after the other."""

PROGRESS = gr.Progress()

Do = Callable[..., Any]
"""What an event does: it takes the session, a report, and the values of fields; it returns what is shown."""


def in_order(output: str) -> dict[str, Any]:
    """Return how the quick events of an output are queued: in the order of the clicks; the last one stays."""
    return {"concurrency_id": output, "concurrency_limit": 1}


def answering(owner: Owner, do: Do, num_others: int = 0) -> Do:
    """Return an event of the page: its first output is HTML, which is the line of an error if there is one.

    If there is a line alone, its `num_others` other outputs stay as they are.
    """

    def event(request: gr.Request, progress: gr.Progress = PROGRESS, *values: Any) -> Any:
        def report(title: str, done: Number, total: Number) -> None:
            progress(done / total if total > 0 else 0.0, desc=title)

        try:
            with owner.sessions.at_work(request.session_hash or "") as session:
                shown = said(lambda: do(session, report, *values), session)
        except ValueError as error:  # there is no session
            shown = line(str(error), is_error=True)
        is_line = isinstance(shown, str) and num_others > 0
        return (shown, *[gr.skip()] * num_others) if is_line else shown

    return event


def said(do: Callable[[], Any], session: Session) -> Any:
    """Return what an action returns, or the line of its error."""
    try:
        return do()
    except Interrupted as stop:
        return line(stop.so_far)
    except Exception as error:
        text = explained(error)
        if text is None:
            _log.error("%s", fault(error), exc_info=error)
        return line(session.shown(text or fault(error)), is_error=True)


def buttons(owner: Owner, verb: str) -> Any:
    """Add a button to begin, and one to stop; return the first."""
    with gr.Row(elem_classes="buttons"):
        begin = gr.Button(verb, variant="primary", min_width=120)
        stop = gr.Button("Stop", min_width=80, scale=0)

    def stopped(request: gr.Request) -> None:
        owner.sessions.of(request.session_hash or "").stop()

    stop.click(stopped, queue=False, show_progress="hidden")
    return begin


def model_field(owner: Owner, tab: Any, is_offered: Callable[[Config], bool]) -> Any:
    """Add the choice of a model, with a line on it; models that come later are offered in a tab."""

    def offered() -> list[str]:
        return [name for name in owner.models() if is_offered(owner.config(name))]

    names = offered()
    field = gr.Dropdown(names, value=names[0], label="Model", filterable=False)
    about = gr.HTML(about_model(owner, names[0]))
    field.change(answering(owner, lambda session, report, name: about_model(owner, name)), field, about)
    tab.select(lambda: gr.update(choices=offered()), None, field, queue=False, show_progress="hidden")
    return field


def about_model(owner: Owner, name: str) -> str:
    """Return a line on what a model makes, and its licence."""
    card = owner.card(name)
    facts = [card.get("description", "no description"), f"licence: {card.get('licence', 'not stated')}"]
    return f'<p class="about">{escape("; ".join(facts).replace("`", ""))}</p>'


def seed_fields() -> tuple[Any, Any]:
    """Add the fields of seed and number of images."""
    with gr.Row():
        seed = gr.Number(0, label="Seed", precision=0, min_width=100)
        count = gr.Number(1, label="Images", precision=0, min_width=100)
    return seed, count


def steps_field() -> Any:
    """Add the field of diffusion steps."""
    return gr.Number(0, label="Steps", precision=0, info="0: the model's own", min_width=100)


def chosen(value: Number | None) -> int | None:
    """Return the whole number of a field; `None` for 0 and for an empty field: the model decides."""
    return int(value) if value else None


def whole(value: Number | None, name: str) -> int:
    """Return the whole number of a field; refuse an empty one."""
    require(value is not None, name, "empty", "a whole number")
    assert value is not None
    return int(value)


def images(session: Session, report: Report, request: Request) -> str:
    """Make the images of a request; return them as HTML."""
    check_size(request)
    place = Place(out=str(session.path(".png")))
    paths = [Path(made.path) for made in run(request, place, report, session.is_stopped)]
    session.last = paths[-1]
    return figures(session, paths, request)


def check_size(request: Request) -> None:
    """Refuse more pixels and images than are made at once here."""
    canvas, count = request.canvas, request.count
    size, pixels = in_px(canvas), canvas.whole.area
    if pixels > MOST_PX:
        is_new = isinstance(request.task, New)
        instead = "`Huge` makes larger images" if is_new else "`Halve` makes the picture smaller"
        raise ValueError(f"{size}: must be at most {MOST_PX:,} pixels here; {instead}")
    require(count <= MOST_IMAGES, "count", count, f"at most {MOST_IMAGES}")
    require(pixels * count <= 2 * MOST_PX, "count", count, f"at most {2 * MOST_PX // pixels} of {size}")


def in_px(image: Image.Image | Canvas) -> str:
    """Return the size of an image as the page says it: width first."""
    return f"{image.width} × {image.height} px"


def figures(session: Session, paths: Sequence[Path], request: Request) -> str:
    """Return images as HTML, each with its seed and a link that saves it."""
    shown = []
    for seed, path in enumerate(paths, request.seed):
        session.named(path, name := f"{model_name(request.model.name)}-{seed}.png")
        shown.append(figure(session, path, f"seed {seed}", name))
    return f'<div class="figures">{"".join(shown)}</div>'


def figure(session: Session, path: Path, caption: str, saved_as: str) -> str:
    """Return an image as HTML, with a caption and a link that saves it."""
    address = session.address(path)
    with Image.open(path) as image:
        width, height = image.size
        caption = f"{escape(caption)} · {in_px(image)}"
    shown = max(width, SMALLEST_SHOWN_PX)
    return (
        f'<figure style="width:{shown}px"><img src="{address}" alt="{escape(saved_as)}" '
        f'width="{width}" height="{height}"><figcaption><span>{caption}</span>'
        f'<a href="{address}" download="{escape(saved_as)}">Save</a></figcaption></figure>'
    )
