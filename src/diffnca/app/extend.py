"""The tab that grows a picture at its sides."""

from typing import Any

import gradio as gr

from diffnca.app.fields import whole
from diffnca.app.owner import Owner
from diffnca.app.picture import edit_tab
from diffnca.data.given import Given
from diffnca.jobs.tasks import Extend, Repaint
from diffnca.progress import Number
from diffnca.sampling.inpaint import JUMP, ROUNDS

SIDES = {"top": 0, "bottom": 0, "left": 64, "right": 64}
"""Sides, and by how many pixels each grows unless the person says otherwise."""


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    edit_tab(owner, "Extend", _fields, _task)


def _fields() -> list[Any]:
    fields = []
    for pair in (("top", "bottom"), ("left", "right")):
        with gr.Row():
            fields += [
                gr.Number(SIDES[side], label=side.capitalize(), precision=0, min_width=100) for side in pair
            ]
    return fields


def _task(given: Given, *px: Number) -> Extend:
    top, bottom, left, right = (whole(value, side) for value, side in zip(px, SIDES, strict=True))
    return Extend(given, top, bottom, left, right, Repaint(JUMP, ROUNDS))
