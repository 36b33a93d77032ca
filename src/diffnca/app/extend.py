"""The tab that grows a picture at its sides."""

from typing import Any

import gradio as gr

from diffnca.app.fields import COMPUTING, answering, buttons, images, model_field, seed_fields, whole
from diffnca.app.inpaint import JUMP, ROUNDS
from diffnca.app.owner import Owner
from diffnca.app.picture import edits, given_of, picture_buttons, preview
from diffnca.app.sessions import Session
from diffnca.jobs.options import Choices
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import Extend, Repaint
from diffnca.progress import Number, Report

SIDES = ("top", "bottom", "left", "right")


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Extend") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, edits)
            seed, count = seed_fields()
            with gr.Row():
                top, bottom = (_side(name, 0) for name in SIDES[:2])
            with gr.Row():
                left, right = (_side(name, 64) for name in SIDES[2:])
            begin = buttons(owner, "Extend")
        with gr.Column(scale=3, min_width=320):
            picture_buttons(owner, own, preview)
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)

    def extend(session: Session, report: Report, name: str, seed: Number, count: Number, *px: Number) -> str:
        model, given = given_of(owner, session, name)
        top, bottom, left, right = (whole(value, side) for value, side in zip(px, SIDES, strict=True))
        task = Extend(given, top, bottom, left, right, Repaint(JUMP, ROUNDS))
        choices = Choices(seed=whole(seed, "seed"), count=whole(count, "count"))
        return images(session, report, asked(model, task, choices))

    fields = [model, seed, count, top, bottom, left, right]
    begin.click(answering(owner, extend), fields, shown, concurrency_id=COMPUTING)


def _side(name: str, added_px: int) -> Any:
    return gr.Number(added_px, label=name.capitalize(), precision=0, min_width=100)
