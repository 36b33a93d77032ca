"""The tab that enlarges a picture."""

from typing import Any

import gradio as gr

from diffnca.app.owner import Owner
from diffnca.app.picture import edit_tab
from diffnca.data.given import Given
from diffnca.jobs.tasks import Upscale
from diffnca.progress import Number


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    edit_tab(owner, "Enlarge", lambda: [gr.Slider(1.25, 8, 2, step=0.25, label="Factor")], _task)


def _task(given: Given, factor: Number) -> Upscale:
    return Upscale(given, float(factor), "consistent", None)
