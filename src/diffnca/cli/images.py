"""Commands that make new images: samples, and films between two samples."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from diffnca.cli import console
from diffnca.config.model import SamplerName
from diffnca.errors import require
from diffnca.jobs.options import Choices, Place, Seamless
from diffnca.progress import Report, amount, duration

if TYPE_CHECKING:
    from diffnca.config.model import Config
    from diffnca.jobs.plan import Plan
    from diffnca.jobs.request import Request
    from diffnca.jobs.run import Made
    from diffnca.jobs.tasks import Interpolate as Between
    from diffnca.jobs.tasks import New, Vary
    from diffnca.sampling.layouts import Layout

Nested = tyro.conf.arg(name="")
"""Marks a group of flags whose names have no prefix."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Output files.

    Attributes:
        compression: compression of an .ome.tif file: jpeg of quality 90 (without it), or lossless deflate.
        dry_run: print the plan with its time and memory; write no file.
    """

    compression: Literal["jpeg", "deflate"] | None = None
    dry_run: bool = False

    def compression_of(self, out: str) -> Literal["jpeg", "deflate"] | None:
        """Return the compression of a TIFF file; other files have `None` and allow no compression."""
        is_tiff = out.endswith((".ome.tif", ".ome.tiff"))
        if self.compression is not None and not is_tiff:
            raise ValueError(
                f"--compression {self.compression}: must be of a TIFF file; end --out in .ome.tif"
            )
        return (self.compression or "jpeg") if is_tiff else None


@dataclass(frozen=True, kw_only=True)
class Making:
    """Options of all commands that make images.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name).
        choices: how to sample.
        place: where to make and keep the image.
        output: how to write the image.
    """

    model: tyro.conf.Positional[str]
    choices: Annotated[Choices, Nested] = field(default_factory=Choices)
    place: Annotated[Place, Nested]
    output: Annotated[Output, Nested] = field(default_factory=Output)


@dataclass(frozen=True, kw_only=True)
class Sample(Making):
    """Make images with a trained model.

    Attributes:
        height: height of the image in pixels; without it, the size of the training crops.
        width: width of the image in pixels; without it, the size of the training crops.
        region: make only this region, TOP,LEFT,HEIGHT,WIDTH in pixels; it equals the crop of the whole image.
        direct: make a large image in one walk. By default, a student that sees whole images grows large
            images out of an image of its training size.
        even_px: side in pixels of squares whose noise starts with one mean, so that a texture has one tone;
            with 0, tones differ from place to place; without it, the model's own choice.
        tone: colours at the start of the walk, in standard deviations, one number for each channel
            (--tone 1 0 -1); without it, the seed decides.
        layout: a label image (PNG or TIFF) that says what stands where: class numbers, or the colours of the
            legend in `diffnca info MODEL`; what is transparent is free. It has any size, which is the size of
            the image without --height and --width. Or polygons in pixels (GeoJSON, as QuPath exports it) with
            the names of the classes; around them is the first class. For a model that knows no layouts, a
            flat drawing in the colours of its images.
        maker: the model that makes the map, or what the layout leaves free of it; without it, the model's
            own choice.
        label: what the image shows: one of the labels in `diffnca info MODEL`; without it, any of them.
        like: a picture (PNG, JPEG, TIFF) of any size, whose colours and texture the image has, for a model
            that was trained with --layout.style; without it, the seed takes the style of a training image.
        obey: how closely to follow layout and label, from 0 (not at all) to 10; above 1 the model is led away
            from what it would make without, in twice the time.
    """

    verb: ClassVar = "sample"

    place: Annotated[Place, Nested] = field(default_factory=lambda: Place(out="sample.png"))
    height: int | None = None
    width: int | None = None
    region: tuple[int, int, int, int] | None = None
    direct: bool = False
    even_px: int | None = None
    tone: tuple[float, ...] | None = None
    layout: Path | None = None
    maker: str | None = None
    label: str | None = None
    like: Path | None = None
    obey: float = 1.0

    def run(self) -> int:
        """Make the images; return the exit code."""
        from diffnca.jobs.request import asked

        size, compression = (self.height, self.width), self.output.compression_of(self.place.out)
        request = asked(self.model, self._task(), self.choices, size, compression, self.maker)
        return make(request, self.place, self.output.dry_run)

    def _task(self) -> New | Vary:
        """Return what is asked for; refuse a layout that is no map."""
        from diffnca.data.outlines import OUTLINE_SUFFIXES
        from diffnca.data.sources import IMAGE_SUFFIXES
        from diffnca.jobs.target import check_kept
        from diffnca.models.file import find_model, read_config

        path, config = self.layout, read_config(find_model(self.model))
        check_kept([each for each in (path, self.like) if each is not None], [self.place], self.choices.count)
        if path is None:
            return self._new(config)
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, *OUTLINE_SUFFIXES):
            raise ValueError(
                f"--layout {path}: must be an image, such as map.png, or polygons, such as map.geojson; or "
                f"give --maker {path}, if it is a model that makes maps"
            )
        return self._led(path, config) if config.layout.classes else self._drawn(path, config)

    def _new(self, config: Config, layout: Layout | None = None) -> New:
        from diffnca.jobs.tasks import New
        from diffnca.sampling.styles import read_style

        like = None if self.like is None else read_style(self.like, config)
        return New(
            self.region,
            self.even_px,
            self.tone,
            grown=() if self.direct else None,
            layout=layout,
            label=self.label,
            like=like,
            obey=self.obey,
        )

    def _led(self, path: Path, config: Config) -> New:
        from diffnca.sampling.layouts import read_layout

        return self._new(config, read_layout(path, config, (self.height, self.width)))

    def _drawn(self, path: Path, config: Config) -> Vary:
        """Return variations of a drawing, for a model that knows no layouts; say so."""
        from diffnca.data.given import read_drawing
        from diffnca.jobs.tasks import DRAWN_STRENGTH, drawn

        is_asked = {
            "--region": self.region is not None,
            "--direct": self.direct,
            "--even-px": self.even_px is not None,
            "--tone": self.tone is not None,
            "--maker": self.maker is not None,
            "--label": self.label is not None,
            "--like": self.like is not None,
            "--obey": self.obey != 1.0,
        }
        flags = [flag for flag, is_there in is_asked.items() if is_there]
        if flags:
            raise ValueError(f"{flags[0]}: must be left out with a drawing; {self.model} knows no layouts")
        given = read_drawing(path, config.model.image_channels)
        console.note(
            f"{self.model} knows no layouts: {path.name} is taken for a drawing in the colours of the image, "
            f"and varied with strength {DRAWN_STRENGTH} (diffnca vary)"
        )
        return drawn(given, self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class Interpolate:
    """Make a film, or frames, between the images of two seeds.

    Attributes:
        model: a bundled model, a model file, a run's folder, or a hub id (owner/name).
        seeds: seeds of the first and the last image; both equal the images of sample --direct.
        out: the film (.gif, .webp, .png or .mp4), or a folder for frames: a name without an ending.
        frames: number of images of the film, with the first and the last image.
        height: height of the images in pixels; without it, the size of the training crops.
        width: width of the images in pixels; without it, the size of the training crops.
        milliseconds: time of a frame.
        sampler: ddpm, ddim or dpmpp2m; without it, the model's own choice.
        steps: diffusion steps; without it, the model's own choice.
        seamless: axes along which the images continue at the opposite edge.
        batch: number of frames at once; changes speed and memory, not the images.
        device: where to compute; auto takes a GPU where there is one.
        layout: what stands where in both images: a label image or polygons, as for sample.
        label: what both images show, as for sample; two labels (--label moss bark) lead from one to the
            other.
        like: a picture whose colours and texture both images have, as for sample; without it, the seeds take
            the styles of training images.
        obey: how closely to follow layout and label, as for sample.
    """

    verb: ClassVar = "interpolate"

    model: tyro.conf.Positional[str]
    seeds: tuple[int, int]
    out: Path
    frames: int = 24
    height: int | None = None
    width: int | None = None
    milliseconds: int = 80
    sampler: SamplerName | None = None
    steps: int | None = None
    seamless: Seamless = "none"
    batch: int = 8
    device: str = "auto"
    layout: Path | None = None
    label: tuple[str, ...] = ()
    like: Path | None = None
    obey: float = 1.0

    def run(self) -> int:
        """Make the film; return the exit code."""
        from diffnca.jobs.request import asked
        from diffnca.jobs.target import check_kept, frame_name

        place = Place(out=str(self.out), batch=self.batch, device=self.device)
        frames = [replace(place, out=str(self.out / frame_name(index))) for index in range(self.frames)]
        check_kept([each for each in (self.layout, self.like) if each is not None], [place, *frames], 1)
        choices = Choices(seamless=self.seamless, sampler=self.sampler, steps=self.steps)
        return make(asked(self.model, self._task(), choices, (self.height, self.width)), place)

    def _task(self) -> Between:
        from diffnca.jobs.tasks import Interpolate as Between
        from diffnca.models.file import find_model, read_config
        from diffnca.sampling.layouts import read_layout
        from diffnca.sampling.styles import read_style

        config, size = read_config(find_model(self.model)), (self.height, self.width)
        layout = None if self.layout is None else read_layout(self.layout, config, size)
        like = None if self.like is None else read_style(self.like, config)
        require(len(self.label) <= 2, "label", " ".join(self.label), "one label, or those of both images")
        first, last = (*self.label, None, None)[:2]
        told = (self.seeds, self.frames, self.milliseconds, last)
        return Between(*told, layout=layout, label=first, like=like, obey=self.obey)


def make(request: Request, place: Place, is_dry: bool = False, report: Report | None = None) -> int:
    """Print the plan of a request, make its images, and print their files; return the exit code."""
    from diffnca.jobs.plan import plan
    from diffnca.jobs.run import Made, run

    planned = plan(request, place)
    for line in lines_of(planned):
        console.say(line)
    there = planned.lacking_memory
    if there is not None:
        console.note(
            f"warning: {place.workers} x {planned.worker_bytes / 1e9:.1f} GB are more than the "
            f"{there / 1e9:.1f} GB of memory here; take a smaller --tile or fewer --workers"
        )
    if is_dry:
        if planned.is_finished:
            console.say(told(Made(place.out, was_there=True, is_large=True), request))
        elif planned.tiles is None and planned.region_cost is None:
            canvas = request.canvas
            console.say(f"image    {canvas.height}x{canvas.width} px, {request.count:,} in all, in memory")
        return 0
    with nullcontext(report) if report is not None else console.progress() as progress:
        for made in run(request, place, progress, planned=planned):
            console.say(told(made, request))
    return 0


def lines_of(planned: Plan) -> list[str]:
    """Return the plan of a region or a large image as lines for the user; no lines for other images."""
    request, tiles, cost = planned.request, planned.tiles, planned.region_cost
    canvas, region = request.canvas, request.region
    if cost is not None:
        height, width, times = cost
        return [
            f"region   {region.height}x{region.width} px of {canvas.height}x{canvas.width}: begins "
            f"with {height}x{width} px, {times:,.1f} times the work of an image of its size"
        ]
    if tiles is None:
        return []
    area = canvas.whole.area
    size = f"{area / 1e6:,.1f} megapixels" if area >= 1e5 else f"{area:,} pixels"
    left = f"{duration(planned.seconds_left)} left of " if planned.is_begun else ""
    return [
        f"image    {canvas.height}x{canvas.width} px, {size}; "
        f"{request.model.name}, {counted(tiles.steps, 'step')}, seed {request.seed}",
        f"tiles    {tiles.num_tiles:,} of {tiles.tile_px} px, {counted(len(tiles.sweeps), 'sweep')}; "
        f"{tiles.overhead:.1%} computed twice, as a step sees {tiles.radius} px",
        f"memory   about {amount(planned.worker_bytes)} for a worker",
        f"disk     {amount(tiles.disk_bytes)} while it is made, then at most "
        f"{amount(planned.finished_bytes)}",
        f"time     about {left}{duration(tiles.seconds)} in all for one worker: "
        f"{tiles.seconds_per_px * 1e6:.2f} s per megapixel and step, measured on a small tile",
        *map_lines(planned),
        *(["begun    goes on with what is there"] if planned.is_begun else []),
    ]


def map_lines(planned: Plan) -> list[str]:
    """Return a line on the map that another model makes first."""
    from diffnca.jobs.target import Target

    request = planned.request
    if request.maker is None:
        return []
    canvas = request.map().canvas
    there = Target(planned.place.out).map
    return [f"map      {canvas.height}x{canvas.width} px, made first by {request.maker.name}: {there}"]


def told(made: Made, request: Request) -> str:
    """Return a line for the user on a finished file."""
    from diffnca.jobs.tasks import Upscale

    if made.was_there:
        hint = f"; look at it: diffnca view {made.path}" if made.is_large else ""
        return f"{made.path} is finished already{hint}"
    if made.residual is None or not isinstance(request.task, Upscale):
        return made.path
    name = request.task.given.path.name
    return f"{made.path}: reduced again, within {255.0 * made.residual:.1f} of 255 levels of {name}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, singular or plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
