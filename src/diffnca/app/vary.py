"""The tab that makes variations of a picture."""

from typing import Any

import gradio as gr

from diffnca.app.fields import COMPUTING, answering, buttons, images, model_field, seed_fields, whole
from diffnca.app.owner import Owner
from diffnca.app.picture import edits, given_of, picture_buttons, preview
from diffnca.app.sessions import Session
from diffnca.jobs.options import Choices
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import Vary
from diffnca.progress import Number, Report


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Vary") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, edits)
            seed, count = seed_fields()
            strength = gr.Slider(0.05, 1, 0.5, step=0.05, label="Strength", info="1 keeps nothing")
            begin = buttons(owner, "Vary")
        with gr.Column(scale=3, min_width=320):
            picture_buttons(owner, own, preview)
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)

    def vary(
        session: Session, report: Report, name: str, seed: Number, count: Number, strength: Number
    ) -> str:
        model, given = given_of(owner, session, name)
        choices = Choices(seed=whole(seed, "seed"), count=whole(count, "count"))
        return images(session, report, asked(model, Vary(given, float(strength)), choices))

    fields = [model, seed, count, strength]
    begin.click(answering(owner, vary), fields, shown, concurrency_id=COMPUTING)
