"""The tab that trains a model on a folder of pictures, and shows what it makes meanwhile."""

from pathlib import Path
from typing import Any

import gradio as gr

from diffnca.app.fields import answering, figure, in_order
from diffnca.app.long import checked_name, looking, status, stop_button
from diffnca.app.owner import Owner
from diffnca.app.sessions import Session, line
from diffnca.app.uploads import (
    NONE,
    UPLOADED,
    UPLOADED_MAPS,
    maps_of,
    pictures_of,
    take_maps,
    take_pictures,
)
from diffnca.app.works import Cancelled, Work
from diffnca.config.model import Config, with_fields
from diffnca.config.recipes import diff_nca, unasked
from diffnca.data.labels import FOLDERS
from diffnca.errors import require
from diffnca.models.file import MODEL_FILE, find_model
from diffnca.progress import Number, Report
from diffnca.training.options import AUTO, RANDOM, RunOptions
from diffnca.training.state import SAMPLE_FOLDER

KIND = "training"

MOST_MINUTES = 240


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Train") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            offered = sources(owner)
            source = gr.Dropdown(offered, value=offered[0], label="Pictures", filterable=False)
            uploads = gr.UploadButton("Upload pictures", file_count="multiple", file_types=["image"])
            told = gr.HTML()
            name = gr.Textbox("mine", label="Name", max_length=40)
            minutes = gr.Slider(1, MOST_MINUTES, 5, step=1, label="Minutes")
            first = gr.Radio(
                [AUTO, RANDOM], value=AUTO, label="From", info="auto: the bundled model that fits best"
            )
            label, maps, map_uploads, classes, labels = _leading_fields(owner)
            with gr.Row(elem_classes="buttons"):
                begin = gr.Button("Train", variant="primary", min_width=120)
                stop_button(owner, KIND)
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)
            looking(owner, [shown], lambda session: [status(owner, session, KIND) + sheet_of(owner, session)])

    def start(session: Session, report: Report, *values: Any) -> str:
        options, config, first = asked(owner, session, *values)
        begin_training(owner, options, config, first)
        assert options.out is not None
        return line(f"{options.out.name} trains, also if you close this page")

    uploads.upload(answering(owner, take_pictures), [uploads, label], told, **in_order("training"))
    map_uploads.upload(answering(owner, take_maps), map_uploads, told, **in_order("training"))
    fields = [source, name, minutes, first, maps, classes, labels]
    begin.click(answering(owner, start), fields, told, **in_order("training"))
    fresh = [source, maps]
    own.select(lambda: _fresh(owner), None, fresh, queue=False, show_progress="hidden")


def _leading_fields(owner: Owner) -> tuple[Any, ...]:
    """Add what leads the model: label of uploads, maps, their upload, classes, whether to learn labels."""
    with gr.Accordion("Maps and labels", open=False):
        maps = gr.Dropdown(map_sources(owner), value=NONE, label="Maps", filterable=False)
        map_uploads = gr.UploadButton("Upload maps", file_count="multiple", file_types=["image"])
        classes = gr.Textbox(
            "", label="Classes", info="of the maps: shadow=#1c281c crown=#88b068; empty: their numbers"
        )
        labels = gr.Checkbox(False, label="Learn labels", info="the folders in the folder, or those typed")
        label = gr.Textbox("", label="Label of the next uploads", max_length=40)
    return label, maps, map_uploads, classes, labels


def sources(owner: Owner) -> list[str]:
    """Return the names of all sources of pictures."""
    return [*owner.folders(), UPLOADED]


def map_sources(owner: Owner) -> list[str]:
    """Return the names of all sources of maps."""
    return [NONE, *owner.folders(), UPLOADED_MAPS]


def _fresh(owner: Owner) -> list[Any]:
    return [gr.update(choices=sources(owner)), gr.update(choices=map_sources(owner))]


def asked(
    owner: Owner,
    session: Session,
    source: str,
    name: str,
    minutes: Number,
    first: str,
    maps: str = NONE,
    classes: str = "",
    has_labels: bool = False,
) -> tuple[RunOptions, Config, str]:
    """Return the training that the fields ask for, and the model with which it begins."""
    owner.works.check_idle()  # a training that runs reads the uploads it began with
    out = owner.options.runs / checked_name(name)
    _check_free(owner, out)
    require(1 <= minutes <= MOST_MINUTES, "minutes", minutes, f"from 1 to {MOST_MINUTES}")
    require(first in (AUTO, RANDOM), "from", first, f"{AUTO} or {RANDOM}")
    require(
        maps != UPLOADED_MAPS or source == UPLOADED,
        "maps",
        maps,
        f"a folder, or left out, with pictures={source}",
    )
    legend = tuple(classes.replace(",", " ").split())
    require(not legend or maps != NONE, "classes", classes, "left out without maps")
    config = with_fields(unasked(diff_nca()), {"layout.classes": legend} if legend else {})
    options = RunOptions(
        data=(pictures_of(owner, session, source, out, has_labels),),
        layouts=maps_of(owner, session, maps, out, has_labels),
        labels=FOLDERS if has_labels else None,
        out=out,
        minutes=float(minutes),
    )
    return options, config, first


def _check_free(owner: Owner, out: Path) -> None:
    """Refuse to train under the name of another model: the page could offer one of them only."""
    offered = owner.models().get(out.name)
    is_free = offered is None or find_model(offered).resolve() == (out / MODEL_FILE).resolve()
    require(is_free, "name", out.name, "a name that no other model of the page has")


def begin_training(owner: Owner, options: RunOptions, config: Config, first: str) -> None:
    """Begin a training, or go on with it."""
    out = options.out
    assert out is not None

    def train(report: Report, cancelled: Cancelled) -> str:
        from diffnca.training.session import training  # takes seconds

        out.parent.mkdir(parents=True, exist_ok=True)
        result = training(options, config, first, report).run(report, cancelled)
        return f"finished: {result.progress}; the other tabs offer it as {out.name}"

    owner.works.begin(Work(KIND, out.name, out, "`Train` goes on under this name"), train)


def sheet_of(owner: Owner, session: Session) -> str:
    """Return the newest sheet of samples as HTML."""
    work = owner.works.latest.get(KIND)
    sheets = [] if work is None else sorted((work.folder / SAMPLE_FOLDER).glob("*.png"))
    if not sheets:
        return ""
    seen = f"after {int(sheets[-1].stem):,} images: samples on the left, your pictures on the right"
    return figure(session, sheets[-1], seen, sheets[-1].name)
