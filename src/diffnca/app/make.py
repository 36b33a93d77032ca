"""The tab that makes new images."""

from typing import Any, get_args

import gradio as gr

from diffnca.app.fields import (
    COMPUTING,
    answering,
    buttons,
    chosen,
    images,
    model_field,
    seed_fields,
    steps_field,
    whole,
)
from diffnca.app.owner import Owner
from diffnca.app.sessions import Session
from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.jobs.options import Choices, Seamless
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import New
from diffnca.progress import Number, Report

SIDE_PX = 256
"""Side of the first image of a model of textures."""

ANY = "any"
"""Stands for no label."""


def tab(owner: Owner, page: Any) -> None:
    """Add the tab; the page makes its first image when it is opened."""
    with gr.Tab("Make") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, lambda config: True)
            seed, count = seed_fields()
            with gr.Row():
                height = gr.Number(SIDE_PX, label="Height", precision=0, min_width=100)
                width = gr.Number(SIDE_PX, label="Width", precision=0, min_width=100)
            label = gr.Dropdown([ANY], value=ANY, label="Label", visible=False, filterable=False)
            obey = gr.Slider(0, 10, 1, step=0.1, label="Obey", info="label and map", visible=False)
            begin = buttons(owner, "Make")
            with gr.Accordion("More", open=False):
                with gr.Row():
                    steps = steps_field()
                    guidance = gr.Number(0, label="Guidance", info="0: the model's own", min_width=100)
                seamless = gr.Radio(list(get_args(Seamless)), value="none", label="Seamless")
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=SIDE_PX)
    fields = [model, seed, count, height, width, label, obey, steps, guidance, seamless]

    def make(session: Session, report: Report, name: str, *values: Any) -> str:
        return images(session, report, _request(owner, name, *values))

    event = answering(owner, make)
    gr.on([begin.click, page.load], event, fields, shown, concurrency_id=COMPUTING, concurrency_limit=1)
    model.change(
        lambda name: _fitting(owner.config(name)), model, [height, width, label, obey], show_progress="hidden"
    )


def _request(
    owner: Owner,
    name: str,
    seed: Number | None,
    count: Number | None,
    height: Number | None,
    width: Number | None,
    label: str,
    obey: Number,
    steps: Number | None,
    guidance: Number | None,
    seamless: Seamless,
) -> Any:
    choices = Choices(
        seed=whole(seed, "seed"),
        count=whole(count, "count"),
        steps=chosen(steps),
        guidance=float(guidance) if guidance else None,
        seamless=seamless,
    )
    task = New(label=None if label == ANY else label, obey=float(obey))
    return asked(owner.model(name), task, choices, (whole(height, "height"), whole(width, "width")))


def _fitting(config: Config) -> list[Any]:
    """Return the fields as they fit a model: height, width, label, obey."""
    is_local = isinstance(config.model, NCAConfig) and config.model.fourier is None
    side, labels = SIDE_PX if is_local else config.data.crop, config.layout.labels
    is_led = bool(labels) or config.layout.maker is not None
    return [
        side,
        side,
        gr.update(choices=[ANY, *labels], value=ANY, visible=bool(labels)),
        gr.update(value=1, visible=is_led),
    ]
