"""A brush of the page: what can be painted with it, and the picture that was painted."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class Paint:
    """A colour: its name, its exact value in the picture, and how the page shows it; both `#rrggbb`."""

    name: str
    colour: str
    shown: str


Dab = tuple[int, float, float, float]
"""A disc that is there at the beginning: colour, y, x and radius; 1 is a side of the canvas."""


class Brush:
    """A canvas on the page."""

    def __init__(self, name: str) -> None:
        """Add what the page keeps of the brush; its name is a word."""
        self.name = name
        self.told, self.painted = gr.Textbox(visible=False), gr.Textbox(visible=False)
        self.told.change(None, self.told, None, js=f"(told) => window.brushes.begin('{name}', told)")

    def place(self) -> None:
        """Add the canvas here."""
        gr.HTML(f'<div class="brush" data-brush="{self.name}"></div>')

    @property
    def reading(self) -> str:
        """JavaScript that puts the picture in the place of the first input of an event, `painted`."""
        return f"(_, ...others) => [window.brushes.read('{self.name}'), ...others]"


def canvas(
    size: tuple[int, int],
    paints: Sequence[Paint],
    free: str,
    background: str | None = None,
    example: Sequence[Dab] = (),
) -> str:
    """Return a canvas as `Brush.told` takes it: height and width, colours, what paints nothing."""
    told: dict[str, Any] = {"height": size[0], "width": size[1], "classes": [asdict(each) for each in paints]}
    return json.dumps(told | {"free": free, "background": background, "example": list(example)})
