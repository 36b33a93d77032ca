"""What files say of the image in them, and whether it is the image that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffnca import __version__
from diffnca.jobs.request import Request
from diffnca.jobs.tasks import Interpolate, New

PREFIX = "diffnca:"

LAST = ("even_px", "tone", "grown", "seed", "height", "width", "compression")
LAST_OF_LARGE = ("seed", "height", "width", "sampler", "steps", "grown", "even_px", "tone", "compression")
"""What files say at the end, and files of new images that are made in tiles."""

IMPLIED = {"engine": "auto", "compression": "jpeg"}
"""What an image was made with whose file does not say it."""


def text_of(request: Request, is_large: bool = False) -> dict[str, str]:
    """Return the text that the file of an image holds, in the order that files have always had."""
    if isinstance(request.task, Interpolate):  # one frame of a film
        one, other = request.task.seeds
        return {f"{PREFIX}model": request.model.name, f"{PREFIX}seeds": f"{one} {other}"}
    written = request.written()
    last = LAST_OF_LARGE if is_large and isinstance(request.task, New) else LAST
    keys = sorted(written, key=lambda key: last.index(key) if key in last else -1)
    return {"Software": f"diffnca {__version__}", **{f"{PREFIX}{key}": written[key] for key in keys}}


def difference(there: Mapping[str, Any], request: Request) -> str | None:
    """Return how an image differs from the one that is asked for; `None` if it is the same.

    Args:
        there: the text of its file.
        request: what is asked for.
    """
    made = {key.removeprefix(PREFIX): str(value) for key, value in there.items() if key.startswith(PREFIX)}
    wanted = request.identity()
    for key in dict.fromkeys((*wanted, *made)):
        has, asked = (side.get(key, IMPLIED.get(key, "none")) for side in (made, wanted))
        if key != "model" and has != asked:
            return f"of {key} {has}, this command says {asked}"
    return None
