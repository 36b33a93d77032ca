"""The tab that makes variations of a picture."""

from typing import Any

import gradio as gr

from diffnca.app.owner import Owner
from diffnca.app.picture import edit_tab
from diffnca.data.given import Given
from diffnca.jobs.tasks import Vary
from diffnca.progress import Number


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    edit_tab(owner, "Vary", _fields, _task)


def _fields() -> list[Any]:
    return [gr.Slider(0.05, 1, 0.5, step=0.05, label="Strength", info="1 keeps nothing")]


def _task(given: Given, strength: Number) -> Vary:
    return Vary(given, float(strength))
