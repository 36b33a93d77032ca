"""The picture that the tabs edit: uploaded, or the image that was made last."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from diffnca.app.fields import MOST_PX, answering, figure
from diffnca.app.owner import Owner
from diffnca.app.sessions import Session, line
from diffnca.config.model import Config
from diffnca.data.given import Given, read_image
from diffnca.progress import Report

NOTHING_YET = "upload a picture, or make an image first"


Show = Callable[[Session, Given], Any]
"""Takes a session and its picture; returns HTML that shows the picture, and the values of other outputs."""


def kept(session: Session, file: Any) -> Path:
    """Take an uploaded file over."""
    path = Path(str(file))
    return session.keep(path, path.name)


def picture_buttons(owner: Owner, tab: Any, do: Show, others: Sequence[Any] = ()) -> None:
    """Add what chooses the picture of a session, and what shows it; all tabs have one picture."""
    with gr.Row(elem_classes="buttons"):
        upload = gr.UploadButton("Upload a picture", file_types=["image"], min_width=140)
        take = gr.Button("Take the last image", min_width=140)
    shown = gr.HTML(line(NOTHING_YET), elem_classes="picture")

    def seen(session: Session) -> Any:
        if session.given is None and session.last is not None:
            session.given = session.named(session.last, "the last image")
        if session.given is None:
            return line(NOTHING_YET)
        given = read_image(session.given, 3)
        height, width = given.pixels.shape[:2]
        if height * width > MOST_PX:
            session.given, size = None, f"{height}x{width} px"
            raise ValueError(f"{given.path}: {size} must be at most {MOST_PX:,} pixels; make it smaller")
        return do(session, given)

    def take_upload(session: Session, report: Report, file: Any) -> Any:
        session.given = kept(session, file)
        try:
            return seen(session)
        except ValueError:
            session.given = None
            raise

    def take_last(session: Session, report: Report) -> Any:
        if session.last is None:
            raise ValueError(f"there is no last image: must be made first; {NOTHING_YET}")
        session.given = None
        return seen(session)

    outputs, number = [shown, *others], len(others)
    upload.upload(answering(owner, take_upload, number), upload, outputs)
    take.click(answering(owner, take_last, number), None, outputs)
    tab.select(answering(owner, lambda session, report: seen(session), number), None, outputs)


def preview(session: Session, given: Given) -> str:
    """Return the picture as HTML."""
    return figure(session, shown_copy(session, given), session.shown(given.path.name), "picture.png")


def shown_copy(session: Session, given: Given) -> Path:
    """Return a file with the picture that a browser shows; holes are transparent."""
    pixels, path = given.pixels, session.path(".png")
    if given.holes is not None:
        opaque = np.where(given.holes.numpy(), 0, 255).astype(np.uint8)
        pixels = np.concatenate([pixels, opaque[..., None]], axis=2)
    Image.fromarray(pixels).save(path)
    return path


def given_of(owner: Owner, session: Session, name: str) -> tuple[str, Given]:
    """Return the model and the picture, in the channels of the model."""
    if session.given is None:
        raise ValueError(f"there is no picture: must be given first; {NOTHING_YET}")
    return owner.model(name), read_image(session.given, owner.config(name).model.image_channels)


def edits(config: Config) -> bool:
    """Return whether a model edits pictures."""
    return not config.layout.made and config.model.family != "vnca"
