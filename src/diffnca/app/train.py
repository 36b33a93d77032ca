"""The tab that trains a model on a folder of pictures, and shows what it makes meanwhile."""

import shutil
from pathlib import Path
from typing import Any

import gradio as gr

from diffnca.app.fields import answering, figure
from diffnca.app.long import checked_name, looking, status, stop_button
from diffnca.app.owner import Owner
from diffnca.app.picture import kept
from diffnca.app.sessions import MOST_UPLOADS, Session, line
from diffnca.app.works import Cancelled, Work
from diffnca.config.recipes import diff_nca, unasked
from diffnca.errors import require
from diffnca.progress import Number, Report
from diffnca.training.options import RunOptions
from diffnca.training.start import AUTO, RANDOM
from diffnca.training.state import SAMPLE_FOLDER

KIND = "training"

UPLOADED = "uploaded pictures"
"""Stands for the pictures that the tab has uploaded."""

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
            with gr.Row(elem_classes="buttons"):
                begin = gr.Button("Train", variant="primary", min_width=120)
                stop_button(owner, KIND)
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)
            looking(owner, shown, lambda session: status(owner, session, KIND) + sheet_of(owner, session))

    def start(session: Session, report: Report, source: str, name: str, minutes: Number, first: str) -> str:
        out = owner.options.runs / checked_name(name)
        require(1 <= minutes <= MOST_MINUTES, "minutes", minutes, f"from 1 to {MOST_MINUTES}")
        require(first in (AUTO, RANDOM), "from", first, f"{AUTO} or {RANDOM}")
        begin_training(owner, data_of(owner, session, source, out), out, float(minutes), first)
        return line(f"{name} trains, also if you close this page")

    uploads.upload(answering(owner, take_uploads), uploads, told)
    begin.click(answering(owner, start), [source, name, minutes, first], told)
    own.select(lambda: gr.update(choices=sources(owner)), None, source, queue=False, show_progress="hidden")


def sources(owner: Owner) -> list[str]:
    """Return the names of all sources of pictures."""
    return [*owner.folders(), UPLOADED]


def data_of(owner: Owner, session: Session, source: str, out: Path) -> tuple[Path, ...]:
    """Return the pictures to train on; uploaded ones stay beside the run, as the tab may be closed."""
    folders = owner.folders()
    if source in folders:
        return (folders[source],)
    require(source == UPLOADED, "pictures", source, f"one of {', '.join(sources(owner))}")
    kept = out.with_name(f"{out.name}-pictures")
    if not session.uploads and not kept.is_dir():
        raise ValueError("there are no uploaded pictures: must be uploaded first, or choose a folder")
    kept.mkdir(parents=True, exist_ok=True)
    for path in session.uploads:
        shutil.copyfile(path, kept / path.name)
    return (kept,)


def take_uploads(session: Session, report: Report, files: list[Any]) -> str:
    """Take uploaded files over."""
    count = len(session.uploads) + len(files)
    require(count <= MOST_UPLOADS, "pictures", count, f"at most {MOST_UPLOADS}")
    session.uploads += [kept(session, file) for file in files]
    return line(f"{len(session.uploads)} pictures are here")


def begin_training(owner: Owner, data: tuple[Path, ...], out: Path, minutes: Number, first: str) -> None:
    """Begin a training in the folder `out`, or go on with it; it ends after so many minutes."""

    def train(report: Report, cancelled: Cancelled) -> str:
        from diffnca.training.session import training  # takes seconds

        out.parent.mkdir(parents=True, exist_ok=True)
        options = RunOptions(data=data, out=out, minutes=minutes)
        session = training(options, unasked(diff_nca()), first, report)
        result = session.run(report, cancelled)
        return f"finished: {result.progress}; the other tabs offer it as {out.name}"

    owner.works.begin(Work(KIND, out.name, out), train)


def sheet_of(owner: Owner, session: Session) -> str:
    """Return the newest sheet of samples as HTML."""
    work = owner.works.latest.get(KIND)
    sheets = [] if work is None else sorted((work.folder / SAMPLE_FOLDER).glob("*.png"))
    if not sheets:
        return ""
    seen = f"after {int(sheets[-1].stem):,} images: samples on the left, your pictures on the right"
    return figure(session, sheets[-1], seen, sheets[-1].name)
