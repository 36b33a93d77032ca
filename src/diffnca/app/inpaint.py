"""The tab that fills what a person has painted over."""

from typing import Any

import gradio as gr

from diffnca.app.brush import Brush, Paint, canvas
from diffnca.app.fields import COMPUTING, answering, buttons, images, model_field, seed_fields, whole
from diffnca.app.owner import Owner
from diffnca.app.picture import edits, given_of, picture_buttons
from diffnca.app.sessions import Session, line
from diffnca.data.given import Given
from diffnca.jobs.options import Choices
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import Inpaint, Repaint, holes_of
from diffnca.progress import Report
from diffnca.sampling.inpaint import JUMP, ROUNDS

HOLE = Paint("fill", "#ffffff", "#ff3864")


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Fill") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, edits)
            seed, count = seed_fields()
            rounds = gr.Slider(1, 10, ROUNDS, step=1, label="Rounds", info="more fit better, and take longer")
            begin = buttons(owner, "Fill")
        with gr.Column(scale=3, min_width=320, elem_classes="first"):
            brush = Brush("fill")
            picture_buttons(owner, own, _canvas, [brush.told])
            brush.place()
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)

    def fill(session: Session, report: Report, painted: str, name: str, *values: Any) -> str:
        model, given = given_of(owner, session, name)
        holes = holes_of(given, session.drawn(painted, "painting"), None)
        seed, count, rounds = (whole(value, key) for value, key in zip(values, KEYS, strict=True))
        task = Inpaint(given, holes, Repaint(JUMP, rounds))
        return images(session, report, asked(model, task, Choices(seed=seed, count=count)))

    fields = [brush.painted, model, seed, count, rounds]
    begin.click(answering(owner, fill), fields, shown, js=brush.reading, concurrency_id=COMPUTING)


KEYS = ("seed", "count", "rounds")


def _canvas(session: Session, given: Given) -> tuple[str, str]:
    background = session.address(given.path)
    height, width = given.pixels.shape[:2]
    told = line(f"{session.name_of(given.path)}: paint over what is to be made anew")
    return told, canvas((height, width), [HOLE], "keep", background)
