"""An image as somebody asks for it: model, task, canvas, seeds, how to sample; and what its file says of it.

A request is complete: no choice is left to the model any more. Two requests of equal identity give equal
pixels. Where they are made, and on how many workers, is no part of a request.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

from torch import Tensor

from diffnca import __version__
from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import MAX_SEED
from diffnca.canvas.region import Boundary, Canvas, Region
from diffnca.config.model import Config
from diffnca.data.given import Given
from diffnca.diffusion.samplers import Sampler
from diffnca.diffusion.schedule import Level
from diffnca.engine import Engine
from diffnca.errors import require
from diffnca.files import OWN
from diffnca.jobs.options import Choices
from diffnca.jobs.tasks import Edit, Interpolate, New, name_of
from diffnca.models.file import find_model, load, load_denoiser
from diffnca.sampling.coarse import check_maker, check_sides, covered
from diffnca.sampling.generate import check_drawn
from diffnca.sampling.growth import canvases_of
from diffnca.sampling.guidance import guided
from diffnca.sampling.labels import check_label
from diffnca.sampling.layouts import Layout, check_edited, check_kept, check_obey, check_proportions, obeying
from diffnca.sampling.maps import sides_of
from diffnca.sampling.pyramid import num_halves
from diffnca.sampling.styles import check_follows_styles
from diffnca.sampling.task import walk_of
from diffnca.sampling.windows import Blended

SEAMLESS: dict[str, tuple[Boundary, Boundary]] = {
    "none": ("reflect", "reflect"),
    "x": ("reflect", "circular"),
    "y": ("circular", "reflect"),
    "both": ("circular", "circular"),
}

LAST = ("even_px", "tone", "grown", "halves", "seed", "height", "width", "compression")
SIZE_AND_WALK = ("seed", "height", "width", "sampler", "steps")
LAST_OF_LARGE = (*SIZE_AND_WALK, "grown", "halves", "even_px", "tone", "compression")
"""What files say at the end, and files of new images that are made in tiles."""

IMPLIED = {"engine": "auto", "compression": "jpeg"}
"""What an image was made with whose file does not say it."""


@dataclass(frozen=True)
class Weights:
    """The weights of a model: its name as it was given, and what tells its file from any other."""

    name: str
    digest: str

    @classmethod
    def of(cls, name: str) -> "Weights":
        """Return the weights of a model as they are now."""
        return cls(name, sha256(find_model(name).read_bytes()).hexdigest()[:16])


@dataclass(frozen=True, kw_only=True)
class Request:
    """One image, or several that differ by their seeds.

    A field without a default is written into every file; a field with one where it differs from it.

    Attributes:
        model, canvas: the weights of the model, and the image.
        guide, guidance, windows, engine, seed, count: as in `Choices`.
        task: what is made.
        maker: the weights of the model that makes the map of a new image, or what its layout leaves free;
            `None` for an image without such a model.
        sampler, steps: how the model walks from pure noise; `None` for a model that takes no steps.
        compression: of a TIFF file, which may lose something.
        halves: number of smaller canvases with which each estimate agrees.
    """

    model: Weights
    canvas: Canvas
    guide: Weights | None = None
    guidance: float | None = None
    windows: int | None = None
    engine: Engine = "auto"
    task: New | Edit | Interpolate
    maker: Weights | None = None
    sampler: str | None = None
    steps: int | None = None
    seed: int
    compression: Literal["jpeg", "deflate"] | None = None
    count: int = 1
    halves: int = 0

    def __post_init__(self) -> None:
        require(self.count >= 1, "count", self.count, ">= 1")
        last = self.seed + self.count - 1
        seeds = self.task.seeds if isinstance(self.task, Interpolate) else (self.seed, last)
        for seed in seeds:
            require(0 <= seed <= MAX_SEED, "seed", seed, f"from 0 to {MAX_SEED}, also of the last image")
        check_obey(self.task.obey, has_layout=self.maker is not None or self.task.is_led)

    @property
    def region(self) -> Region:
        """The part of the canvas that is made."""
        part = self.task.region if isinstance(self.task, New) else None
        return self.canvas.whole if part is None else Region(*part, self.canvas)

    def image(self, index: int) -> "Request":
        """Return the request of one of the images alone."""
        return replace(self, seed=self.seed + index, count=1)

    def identity(self) -> dict[str, str]:
        """Return what tells the images from others: all fields, but for the name of the model."""
        return {key: value for key, value in self.written().items() if key != "model"}

    def written(self) -> dict[str, str]:
        """Return all fields as text, and theirs in turn."""
        return dict(_written(self))

    def opened(self) -> Any:
        """Return the model on the CPU, as it is sampled; `Any` is a denoiser or an `Autoencoder`."""
        return _opened(self.model, self.guide, self.guidance, self.windows, self.task.obey)

    def opened_maker(self) -> Any:
        """Return the model that makes the map, on the CPU; refuse a model that makes other maps."""
        assert self.maker is not None
        maker = _opened(self.maker, None, None, None, 1.0)
        check_maker(maker.config, self.opened().config)
        return maker

    def map(self) -> "Request":
        """Return the request of the map: the image that its maker makes of this seed."""
        assert self.maker is not None
        seamless = next(key for key, boundary in SEAMLESS.items() if boundary == self.canvas.boundary)
        canvas = covered(self.canvas.whole, self.opened().config.layout.coarse).canvas
        own = {"seed": self.seed, "count": self.count, "engine": self.engine}
        choices = Choices(seamless=seamless, **own)  # type: ignore[arg-type]
        label = self.task.label if self.opened_maker().config.layout.labels else None
        new = New(label=label, layout=self.task.layout)
        return asked(self.maker.name, new, choices, (canvas.height, canvas.width))

    def walk(self) -> tuple[Sampler, tuple[Level, ...]]:
        """Return the sampler, and the levels of the walk from pure noise."""
        return walk_of(self.opened(), self.sampler, self.steps)


def asked(
    model: str,
    task: New | Edit | Interpolate,
    choices: Choices,
    size: tuple[int | None, int | None] = (None, None),
    compression: Literal["jpeg", "deflate"] | None = None,
    maker: str | None = None,
) -> Request:
    """Return the complete request of what is asked for; the model makes the choices that are left open.

    `model` is a bundled model, a model file, a run's folder, or a hub id. `size` is the height and width of a
    new image; `None` is the size of its layout, or of the training crops. `compression` is of a TIFF file.
    `maker` is the model that makes the map of a new image, or what its layout leaves free; `None` is the
    model's own choice.

    Raises:
        ValueError: a choice is not allowed.
    """
    guide = None if choices.guide is None else Weights.of(choices.guide)
    weights, boundary = Weights.of(model), SEAMLESS[choices.seamless]
    opened = _opened(weights, guide, choices.guidance, choices.windows, task.obey)
    canvas = _canvas_of(model, opened.config, task, size, boundary)
    sampler, steps = choices.sampler, choices.steps
    if isinstance(opened, Autoencoder):
        if not isinstance(task, New):
            raise ValueError(f"model {model}: must be a denoiser; this one only makes new images")
    else:
        method, levels = walk_of(opened, sampler, steps)
        sampler, steps = method.name, len(levels)  # type: ignore[assignment]
    if isinstance(task, New):
        is_direct = task.grown == () or isinstance(opened, Autoencoder)
        canvases = (canvas,) if is_direct else canvases_of(opened, canvas)
        task = replace(task, grown=tuple((each.height, each.width) for each in canvases[:-1]))
        maker = maker or _maker_of(task, opened.config)
    made = Request(
        model=weights,
        canvas=canvas,
        guide=guide,
        guidance=choices.guidance,
        windows=choices.windows,
        engine=choices.engine,
        task=task,
        maker=None if maker is None else Weights.of(maker),
        sampler=sampler,
        steps=steps,
        seed=task.seeds[0] if isinstance(task, Interpolate) else choices.seed,
        compression=compression,
        count=choices.count,
        halves=num_halves(_seen_at_once(canvas, choices.windows), opened.config),
    )
    if isinstance(opened, Autoencoder):
        assert isinstance(task, New)
        walk = dict[str, object](sampler=choices.sampler, steps=choices.steps)
        own = {name: getattr(task, name) for name in ("even_px", "tone", "layout", "label", "like")}
        check_drawn(opened, made.region, walk | own)
    _check_led(made, opened.config)
    return made


def _seen_at_once(canvas: Canvas, windows: int | None) -> Canvas:
    """Return the canvas of one estimate: the image, or a window of it."""
    return canvas if windows is None else Canvas(min(windows, canvas.height), min(windows, canvas.width))


def _check_led(made: Request, config: Config) -> None:
    """Refuse a label and a style that the model does not know, and a size of which its map is no part."""
    makers = () if made.maker is None else (made.opened_maker().config,)
    for maker in makers:
        check_sides(made.canvas, maker, config)
    for label in made.task.labels:
        check_label(label, 1, config, *makers)
    if made.task.like is not None:
        check_follows_styles(config)


def _maker_of(task: New, config: Config) -> str | None:
    """Return who makes what the layout of a new image leaves free; `None` if it leaves nothing free."""
    if task.layout is not None:
        check_kept(config, task.obey, has_label=task.label is not None)
    return config.layout.maker if task.layout is None or task.layout.leaves_free else None


def _canvas_of(
    model: str,
    config: Config,
    task: New | Edit | Interpolate,
    size: tuple[int | None, int | None],
    boundary: tuple[Boundary, Boundary],
) -> Canvas:
    """Return the canvas of what is asked for; refuse what a model that makes maps does not do."""
    if isinstance(task, New | Interpolate):
        if isinstance(task, Interpolate) and task.layout is not None:
            check_edited(config)
        return Canvas(*_sides(task, size, config.data.crop), boundary)
    if config.layout.made:
        raise ValueError(f"model {model}: must edit images alone, but makes maps too; it makes new images")
    return canvas_of_edit(task, boundary)


def _sides(task: New | Interpolate, size: tuple[int | None, int | None], crop: int) -> tuple[int, int]:
    """Return height and width of a new image: those asked for, of its layout, or of the training crops."""
    if task.layout is not None:
        return sides_of(task.layout.map.size, *size)
    height, width = (crop if side is None else side for side in size)
    return height, width


@lru_cache(maxsize=3)
def _opened(
    model: Weights, guide: Weights | None, guidance: float | None, windows: int | None, obey: float
) -> Any:
    """Return the model of a request on the CPU, as workers may have other devices."""
    if guide is None and guidance is None:
        opened: Any = load(model.name)
    else:
        weaker = None if guide is None else load_denoiser(guide.name)
        opened = guided(load_denoiser(model.name), guidance, weaker)
    if isinstance(opened, Autoencoder):
        if windows is not None:
            raise ValueError(f"model {model.name}: must be a denoiser for windows={windows}; leave them out")
        return opened
    opened = obeying(opened, obey)
    return opened if windows is None else Blended(opened, windows)


def canvas_of_edit(task: Edit, boundary: tuple[Boundary, Boundary]) -> Canvas:
    """Return the canvas of the result of an edit, on which its layout lies; errors name the given image."""
    try:
        canvas, _ = task.on(boundary)
        if task.layout is not None:
            check_proportions(task.layout.map.size, canvas)
        return canvas
    except ValueError as error:
        raise ValueError(f"{task.given.path}: {error}") from None


def _written(record: Any) -> Iterator[tuple[str, str]]:
    """Yield the fields of a record as text, but those that are as their default."""
    for each in fields(record):
        value = getattr(record, each.name)
        if each.default is MISSING or value != each.default:
            yield from _texts(each.name, value)


def _texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    match name, value:
        case "model", Weights():
            yield from (("model", value.name), ("weights", value.digest))
        case _, Weights():
            yield name, f"{value.name} {value.digest}"
        case _, Canvas():
            yield "seamless", next(key for key, boundary in SEAMLESS.items() if boundary == value.boundary)
            yield from (("height", str(value.height)), ("width", str(value.width)))
        case _, Given():
            yield "image", _fingerprint(value.pixels.tobytes())
            if value.holes is not None:
                yield "mask", _fingerprint(value.holes.numpy().tobytes())
        case _, Tensor():
            yield name, _fingerprint(value.numpy().tobytes())
        case "guidance" | "obey", _:
            yield name, f"{value:g}"
        case _, Layout():
            yield name, layout_text(value)
        case "like", _:
            yield name, " ".join(f"{each:g}" for each in value)
        case "region", _:
            yield name, ",".join(map(str, value))
        case "size", _:
            yield name, "x".join(map(str, value))
        case "grown", _:
            if value:
                yield name, ", ".join(f"{height}x{width}" for height, width in value)
        case _, New():
            yield from _written(value)
        case _ if is_dataclass(value):
            yield name, name_of(value)
            yield from _written(value)
        case _:
            yield name, str(value)


def layout_text(layout: Layout) -> str:
    """Return what files say of a layout: its size, and what tells it from others."""
    height, width = layout.map.size
    return f"{height}x{width} {_fingerprint(*layout.map.content)}"


def _fingerprint(*parts: bytes) -> str:
    return sha256(b"".join(parts)).hexdigest()[:16]


def text_of(request: Request, is_large: bool = False) -> dict[str, str]:
    """Return the text that the file of an image holds, in the order that files have always had."""
    if isinstance(request.task, Interpolate):  # one frame of a film
        one, other = request.task.seeds
        return {f"{OWN}model": request.model.name, f"{OWN}seeds": f"{one} {other}"}
    written = request.written()
    last = LAST_OF_LARGE if is_large and isinstance(request.task, New) else LAST
    keys = sorted(written, key=lambda key: last.index(key) if key in last else -1)
    return {"Software": f"diffnca {__version__}", **{f"{OWN}{key}": written[key] for key in keys}}


def difference(there: Mapping[str, Any], request: Request) -> str | None:
    """Return how the image whose file says `there` differs from a request; `None` if it does not."""
    made = {key.removeprefix(OWN): str(value) for key, value in there.items() if key.startswith(OWN)}
    wanted = request.identity()
    for key in dict.fromkeys((*wanted, *made)):
        has, wants = (side.get(key, IMPLIED.get(key, "none")) for side in (made, wanted))
        if key != "model" and has != wants:
            return f"of {key} {has}, this command says {wants}"
    return None
