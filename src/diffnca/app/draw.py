"""The tab in which a person draws what stands where, and the image grows there."""

from typing import Any

import gradio as gr

from diffnca.app.brush import Brush, Paint, canvas
from diffnca.app.fields import (
    COMPUTING,
    answering,
    buttons,
    chosen,
    images,
    model_field,
    steps_field,
    whole,
)
from diffnca.app.owner import Owner
from diffnca.app.picture import kept
from diffnca.app.sessions import Session, line
from diffnca.config.model import Config
from diffnca.jobs.options import Choices
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import New
from diffnca.progress import Number, Report
from diffnca.sampling.layouts import read_layout
from diffnca.sampling.styles import read_style

DRAWING_PX = 256
"""Side of a drawing, which has any size."""

SIDES = (256, 384, 512, 768, 1024)

EXAMPLE = ((1, 0.3, 0.3, 0.2), (2, 0.3, 0.3, 0.08), (1, 0.62, 0.66, 0.25), (2, 0.62, 0.66, 0.1))
"""Two rings."""


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Draw") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, lambda config: bool(config.layout.classes))
            with gr.Row():
                side = gr.Dropdown(list(SIDES), value=SIDES[0], label="Side", filterable=False, min_width=100)
                seed = gr.Number(0, label="Seed", precision=0, min_width=100)
            obey = gr.Slider(0, 10, 1, step=0.1, label="Obey")
            with gr.Group(visible=False) as styles:
                like = gr.UploadButton("A picture whose style it has", file_types=["image"])
                liked = gr.HTML()
            begin = buttons(owner, "Grow")
            with gr.Accordion("More", open=False):
                steps = steps_field()
        with gr.Column(scale=3, min_width=320, elem_classes="first"):
            brush = Brush("draw")
            brush.place()
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=DRAWING_PX)

    def grow(session: Session, report: Report, painted: str, *values: Any) -> str:
        return images(session, report, _request(owner, session, painted, *values))

    fields = [brush.painted, model, side, seed, obey, steps]
    event = answering(owner, grow)
    begin.click(event, fields, shown, js=brush.reading, concurrency_id=COMPUTING)
    like.upload(answering(owner, _liked), like, liked)
    gr.on([own.select, model.change], lambda name: _canvas(owner.config(name)), model, [brush.told, styles])


def _canvas(config: Config) -> tuple[str, Any]:
    """Return the canvas of a model, and whether it follows styles."""
    legend = zip(config.layout.names, config.layout.colours, strict=True)
    paints = [Paint(name, *["#{:02x}{:02x}{:02x}".format(*colour)] * 2) for name, colour in legend]
    example = EXAMPLE if len(paints) > 2 else EXAMPLE[::2]
    told = canvas((DRAWING_PX, DRAWING_PX), paints, "free", example=example if len(paints) > 1 else ())
    return told, gr.update(visible=bool(config.layout.styles))


def _liked(session: Session, report: Report, file: Any) -> str:
    session.style = kept(session, file)
    return line(f"in the style of {session.shown(str(session.style))}")


def _request(
    owner: Owner,
    session: Session,
    painted: str,
    name: str,
    side: int,
    seed: Number | None,
    obey: Number,
    steps: Number | None,
) -> Any:
    config, size = owner.config(name), (int(side), int(side))
    layout = read_layout(session.drawn(painted, "drawing"), config, size)
    follows = bool(config.layout.styles) and session.style is not None
    like = read_style(session.style, config) if follows and session.style is not None else None
    choices = Choices(seed=whole(seed, "seed"), steps=chosen(steps))
    return asked(owner.model(name), New(layout=layout, like=like, obey=float(obey)), choices, size)
