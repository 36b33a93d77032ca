"""The picture that the tabs edit, uploaded or made last, and what these tabs have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from diffnca.app.fields import (
    COMPUTING,
    MOST_PX,
    answering,
    buttons,
    figure,
    images,
    in_order,
    in_px,
    model_field,
    seed_fields,
    whole,
)
from diffnca.app.owner import Owner
from diffnca.app.sessions import Session, line
from diffnca.config.model import Config
from diffnca.data.given import Given, read_image
from diffnca.data.sources import IMAGE_SUFFIXES
from diffnca.jobs.options import Choices
from diffnca.jobs.request import asked
from diffnca.jobs.tasks import Edit
from diffnca.progress import Number, Report

NOTHING_YET = "upload a picture, or make an image first"

REDUCED = ", reduced from"
"""Stands between the name of a picture and the size that it had."""


Show = Callable[[Session, Given], Any]
"""Takes a session and its picture; returns HTML that shows the picture, and the values of other outputs."""


def edit_tab(owner: Owner, title: str, place: Callable[[], list[Any]], task_of: Callable[..., Edit]) -> None:
    """Add a tab that edits the picture.

    `place` adds the fields of the tab and returns them; `task_of` takes the picture and their values.
    """
    with gr.Tab(title) as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, edits)
            seed, count = seed_fields()
            others = place()
            begin = buttons(owner, title)
        with gr.Column(scale=3, min_width=320, elem_classes="first"):
            picture_buttons(owner, own, preview)
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(elem_classes="result", min_height=256)

    def edit(session: Session, report: Report, name: str, seed: Number, count: Number, *values: Any) -> str:
        model, given = given_of(owner, session, name)
        choices = Choices(seed=whole(seed, "seed"), count=whole(count, "count"))
        return images(session, report, asked(model, task_of(given, *values), choices))

    begin.click(answering(owner, edit), [model, seed, count, *others], shown, concurrency_id=COMPUTING)


def kept(session: Session, file: Any, kinds: Sequence[str] = IMAGE_SUFFIXES) -> Path:
    """Take an uploaded file over, one of some kinds."""
    path = Path(str(file))
    return session.keep(path, path.name, kinds)


def picture_buttons(owner: Owner, tab: Any, do: Show, others: Sequence[Any] = ()) -> None:
    """Add what chooses the picture of a session, and what shows it; all tabs have one picture."""
    with gr.Row(elem_classes="buttons"):
        upload = gr.UploadButton("Upload a picture", file_types=["image"], size="sm", min_width=120)
        take = gr.Button("Take the last image", size="sm", min_width=120)
        halve = gr.Button("Halve", size="sm", min_width=60, scale=0)
    shown = gr.HTML(line(NOTHING_YET), elem_classes="picture")

    def seen(session: Session) -> Any:
        if session.refused is not None:  # a tab may ask for its picture after the upload
            raise ValueError(session.refused)
        if session.given is None and session.last is not None:
            session.given = session.last
        if session.given is None:
            return line(NOTHING_YET)
        return do(session, read_image(session.given, 3))

    def take_upload(session: Session, report: Report, file: Any) -> Any:
        session.given = session.refused = None
        try:
            session.given = taken(session, file)
            return seen(session)
        except ValueError as error:
            session.given, session.refused = None, str(error)
            raise

    def take_last(session: Session, report: Report) -> Any:
        if session.last is None:
            raise ValueError(f"there is no last image: must be made first; {NOTHING_YET}")
        session.given = session.refused = None
        return seen(session)

    def halved(session: Session, report: Report) -> Any:
        if session.given is not None:
            with Image.open(session.given) as image:
                most_px = image.width * image.height // 4
                session.given = stored(session, image, session.name_of(session.given), most_px)
        return seen(session)

    outputs, number = [shown, *others], len(others)
    upload.upload(answering(owner, take_upload, number), upload, outputs, **in_order("picture"))
    take.click(answering(owner, take_last, number), None, outputs, **in_order("picture"))
    halve.click(answering(owner, halved, number), None, outputs, **in_order("picture"))
    select = answering(owner, lambda session, report: seen(session), number)
    tab.select(select, None, outputs, **in_order("picture"))


def taken(session: Session, file: Any) -> Path:
    """Take an uploaded picture over as it can be edited and shown here; holes are transparent."""
    upload = kept(session, file)
    given = read_image(upload, 3)
    pixels = given.pixels
    if given.holes is not None:
        opaque = np.where(given.holes.numpy(), 0, 255).astype(np.uint8)
        pixels = np.concatenate([pixels, opaque[..., None]], axis=2)
    upload.unlink()
    return stored(session, Image.fromarray(pixels), session.name_of(upload), MOST_PX)


def stored(session: Session, image: Image.Image, name: str, most_px: int) -> Path:
    """Return a new PNG of an image; one of too many pixels is reduced, and its name says so."""
    path, own_px = session.path(".png"), image.width * image.height
    if own_px > most_px:
        name = f"{name.partition(REDUCED)[0]}{REDUCED} {in_px(image)}"
        share = (most_px / own_px) ** 0.5
        size = max(1, int(image.width * share)), max(1, int(image.height * share))
        image = image.resize(size, Image.Resampling.BOX)  # a hole spreads no further than its pixels
    image.save(path)
    return session.named(path, name)


def preview(session: Session, given: Given) -> str:
    """Return the picture as HTML."""
    return figure(session, given.path, session.name_of(given.path), "picture.png")


def given_of(owner: Owner, session: Session, name: str) -> tuple[str, Given]:
    """Return the model and the picture, in the channels of the model."""
    if session.given is None:
        raise ValueError(f"there is no picture: must be given first; {NOTHING_YET}")
    return owner.model(name), read_image(session.given, owner.config(name).model.image_channels)


def edits(config: Config) -> bool:
    """Return whether a model edits pictures."""
    return not config.layout.made and config.model.family != "vnca"
