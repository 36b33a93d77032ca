"""The tab that makes an image of any size in tiles, and opens the viewer."""

import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from diffnca.app.fields import answering, chosen, model_field, steps_field, whole
from diffnca.app.long import checked_name, looking, status, stop_button
from diffnca.app.owner import Owner
from diffnca.app.sessions import Session, line
from diffnca.app.works import Cancelled, Work
from diffnca.config.model import Config
from diffnca.config.networks import NCAConfig
from diffnca.errors import one_line, require
from diffnca.files import replace_atomically
from diffnca.formats.ome_zarr import OmeZarrWriter
from diffnca.jobs.options import Choices, Place
from diffnca.jobs.plan import Plan, plan
from diffnca.jobs.request import Request, asked
from diffnca.jobs.run import run
from diffnca.jobs.tasks import New
from diffnca.progress import Number, Report, amount, duration

KIND, ENDING = "image", ".ome.zarr"

MOST_PX = 100_000 * 100_000


@dataclass(frozen=True)
class Wanted:
    """A large image as the page asks for it; a file beside the image holds it, so that a stopped one goes on.

    Attributes:
        name: of the image.
        model: a model of the page.
        steps: diffusion steps; `None` is the model's own choice.
    """

    name: str
    model: str
    height: int
    width: int
    seed: int
    steps: int | None = None

    def request(self, owner: Owner) -> Request:
        """Return the request; refuse one that is too large."""
        pixels = self.height * self.width
        require(pixels <= MOST_PX, "pixels", f"{pixels:,}", f"at most {MOST_PX:,}")
        choices = Choices(seed=self.seed, steps=self.steps)
        return asked(owner.model(self.model), New(), choices, (self.height, self.width))

    def place(self, owner: Owner) -> Place:
        """Return where the image is made."""
        return Place(out=str(owner.options.images / f"{checked_name(self.name)}{ENDING}"))


def tab(owner: Owner, page: Any) -> None:
    """Add the tab."""
    with gr.Tab("Huge") as own, gr.Row():
        with gr.Column(scale=2, min_width=280):
            model = model_field(owner, own, makes_tiles)
            name = gr.Textbox("large", label="Name", max_length=40)
            with gr.Row():
                height = gr.Number(2048, label="Height", precision=0, min_width=100)
                width = gr.Number(2048, label="Width", precision=0, min_width=100)
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, min_width=100)
                steps = steps_field()
            with gr.Row(elem_classes="buttons"):
                begin = gr.Button("Make it huge", variant="primary", min_width=120)
                stop_button(owner, KIND)
            told = gr.HTML()
        with gr.Column(scale=5, min_width=320):
            shown = gr.HTML(elem_classes="result")
            image = gr.Dropdown(images(owner), label="Images that are there", filterable=False)
            looking(owner, [shown, image], lambda session: look(owner, session))
            with gr.Row(elem_classes="buttons"):
                view = gr.Button("Open in the viewer", min_width=120)
                resume = gr.Button("Go on", min_width=120)
            opened = gr.HTML()

    def start(session: Session, report: Report, *values: Any) -> str:
        return begin_image(owner, wanted(*values), report)

    begin.click(answering(owner, start), [name, model, height, width, seed, steps], told)
    resume.click(answering(owner, lambda session, report, name: go_on(owner, name, report)), image, opened)
    view.click(answering(owner, lambda session, report, name: link(owner, name)), image, opened)


def makes_tiles(config: Config) -> bool:
    """Return whether a model makes images in tiles."""
    return isinstance(config.model, NCAConfig) and not config.layout.made


def wanted(name: str, model: str, *numbers: Number | None) -> Wanted:
    """Return what the fields ask for."""
    height, width, seed, steps = numbers
    sides = whole(height, "height"), whole(width, "width")
    return Wanted(name, model, *sides, whole(seed, "seed"), chosen(steps))


def begin_image(owner: Owner, asked_for: Wanted, report: Report) -> str:
    """Begin a large image, or go on with it; return its plan as HTML."""
    place, request = asked_for.place(owner), asked_for.request(owner)
    owner.options.images.mkdir(parents=True, exist_ok=True)
    planned = plan(request, place)

    def make(report: Report, cancelled: Cancelled) -> str:
        for _ in run(request, place, report, cancelled, planned):
            pass
        address = owner.viewers.address(Path(place.out))
        owner.open(address)
        return "finished"

    owner.works.begin(Work(KIND, asked_for.name, Path(place.out), "`Go on` goes on from there"), make)
    with replace_atomically(note_of(owner, asked_for.name)) as partial:
        partial.write_text(json.dumps(asdict(asked_for)), encoding="utf-8")
    return line(about(planned))


def about(planned: Plan) -> str:
    """Return a line on a plan."""
    tiles = planned.tiles
    if tiles is None:
        return "it is finished already"
    disk = amount(planned.needed_bytes)
    took = duration(planned.seconds_left)
    several = "" if tiles.num_tiles == 1 else "s"
    return (
        f"{tiles.num_tiles:,} tile{several} of {tiles.tile_px} px, about {took}, at most {disk} on the disk"
    )


def go_on(owner: Owner, name: str, report: Report) -> str:
    """Go on with an image that was stopped."""
    note = note_of(owner, image_named(owner, name))
    try:
        asked_for = Wanted(**json.loads(note.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{name}: its note is damaged ({one_line(error)}); make it anew") from None
    return begin_image(owner, asked_for, report)


def images(owner: Owner) -> list[str]:
    """Return the names of all large images, finished or not."""
    return sorted(path.stem for path in owner.options.images.glob("*.json"))


def image_named(owner: Owner, name: str | None) -> str:
    """Return the name of a large image; refuse any other text."""
    if name is None:
        raise ValueError("there is no image: must be made first")
    require(name in images(owner), "image", name, "one that is listed")
    return name


def note_of(owner: Owner, name: str) -> Path:
    """Return the file that says how an image is made."""
    return owner.options.images / f"{name}.json"


def link(owner: Owner, name: str | None) -> str:
    """Open the viewer of a finished image; return a link to it."""
    path = owner.options.images / f"{image_named(owner, name)}{ENDING}"
    if not OmeZarrWriter(str(path)).is_finished:
        raise ValueError(f"{name}: must be finished first; `Go on` goes on with it")
    return linked(owner, path)


def linked(owner: Owner, path: Path) -> str:
    """Return a link to the viewer of an image."""
    name = path.name.removesuffix(ENDING)
    address = owner.viewers.address(path)
    return f'<p><a class="open" href="{address}" target="_blank">Look at {escape(name)}</a></p>'


def look(owner: Owner, session: Session) -> list[Any]:
    """Return how far the large image is, as HTML, and the list of images: a new one is chosen there."""
    work, names = owner.works.latest.get(KIND), images(owner)
    chosen = {"value": work.name} if work is not None and work.name in names else {}
    return [status(owner, session, KIND) + result(owner), gr.update(choices=names, **chosen)]


def result(owner: Owner) -> str:
    """Return a link to the image that was finished last."""
    work = owner.works.latest.get(KIND)
    is_there = work is not None and not work.is_running and work.share == 1.0
    return linked(owner, work.folder) if is_there and work is not None else ""
