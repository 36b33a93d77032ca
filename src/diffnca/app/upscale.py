"""The tab that enlarges a picture."""

from typing import Any

import gradio as gr

from diffnca.app.fields import COMPUTING, answering, buttons, images, model_field, seed_fields, whole
from diffnca.app.owner import Owner
from diffnca.app.picture import edits, given_of, picture_buttons, preview
from diffnca.app.sessions import Session
from diffnca.jobs.options import Choices
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import Upscale
from diffnca.progress import Number, Report


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Enlarge") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, edits)
            seed, count = seed_fields()
            factor = gr.Slider(1.25, 8, 2, step=0.25, label="Factor")
            begin = buttons(owner, "Enlarge")
        with gr.Column(scale=3, min_width=320):
            picture_buttons(owner, own, preview)
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)

    def upscale(
        session: Session, report: Report, name: str, seed: Number, count: Number, factor: Number
    ) -> str:
        model, given = given_of(owner, session, name)
        task = Upscale(given, float(factor), "consistent", None)
        choices = Choices(seed=whole(seed, "seed"), count=whole(count, "count"))
        return images(session, report, asked(model, task, choices))

    fields = [model, seed, count, factor]
    begin.click(answering(owner, upscale), fields, shown, concurrency_id=COMPUTING)
