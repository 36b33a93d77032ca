"""Make what is asked for: small images in memory, large ones in tiles, films; nothing is printed.

A stopped request goes on: what is finished is there, and is not made again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.pixels import to_model, to_uint8
from diffnca.config.model import Config
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.walk import Planes
from diffnca.engine.machine import device_named
from diffnca.errors import Interrupted
from diffnca.files import lock, remove_partials
from diffnca.formats.film import write_film
from diffnca.formats.png import write_numbers, write_png
from diffnca.jobs.options import Place
from diffnca.jobs.plan import (
    SHARD_PX,
    Plan,
    canvases_of,
    crew_of,
    is_in_tiles,
    large_target,
    plan,
    task_of,
    told,
)
from diffnca.jobs.request import Request, text_of
from diffnca.jobs.target import Target, begun_files, frame_name, holds_all, numbered
from diffnca.jobs.tasks import Interpolate, New, Upscale
from diffnca.progress import Number, Report, part_of, unseen
from diffnca.sampling.coarse import MadeMap, make_map, map_of
from diffnca.sampling.filmed import Filmed
from diffnca.sampling.generate import generate
from diffnca.sampling.growth import STRENGTH, grown
from diffnca.sampling.guidance import prepare
from diffnca.sampling.labels import labelled, mixed
from diffnca.sampling.layouts import shown_layout
from diffnca.sampling.starts import start_of
from diffnca.sampling.styles import drawn_styles, styled, styles_between
from diffnca.sampling.task import Task, later_levels, sample_task
from diffnca.sampling.upscale import residual
from diffnca.sampling.vary import transition


@dataclass(frozen=True)
class Made:
    """A finished file, at a path or an address; whether it was there before, and whether it is made in tiles.

    `residual` is how far an enlarged image, reduced again, is from the given one; 1 is from black to white.
    """

    path: str
    was_there: bool = False
    is_large: bool = False
    residual: float | None = None


def run(
    request: Request,
    place: Place,
    report: Report = unseen,
    cancelled: Callable[[], bool] = lambda: False,
    planned: Plan | None = None,
) -> Iterator[Made]:
    """Make the images of a request; yield each file when it is finished.

    After each step or tile, `cancelled` is asked whether to stop. `planned` is what `plan` returned for this
    request and place, if it was called.

    Raises:
        ValueError: it cannot be made; nothing is written.
        OSError: a file cannot be read or written; what is finished is kept.
        Interrupted: the work was stopped; what is finished is kept.
    """
    planned = plan(request, place) if planned is None else planned
    watch = Watch(report, cancelled)
    with lock(place.out, begun_files(place, request.count)):
        if planned.is_finished:
            yield _finished(place)
            yield from _saved_layout(request, place, watch)
        elif is_in_tiles(request, place):
            yield _in_tiles(planned, watch)
            yield from _saved_layout(request, place, watch)
        elif isinstance(request.task, Interpolate):
            yield _between(request, request.task, place, watch)
        else:
            yield from _in_memory(request, place, watch)


@dataclass
class Watch:
    """Passes on what is done, notes its share, and raises `Interrupted` if the work is cancelled."""

    report: Report
    cancelled: Callable[[], bool]
    share: float = 0.0

    def __call__(self, title: str, done: Number, total: Number) -> None:
        """Pass on a report; raise `Interrupted` if the work is cancelled."""
        self.share = done / max(total, 1e-9)
        self.report(title, done, total)
        if self.cancelled():
            raise Interrupted


def _finished(place: Place) -> Made:
    """Remove what a killed command left beside a large image that it had finished."""
    from diffnca.tiles.states import remove_work

    remove_work(large_target(place).work)
    return Made(place.out, was_there=True, is_large=True)


def _in_tiles(planned: Plan, watch: Watch) -> Made:
    """Make what is left of a large image; an `OSError` names the image."""
    from diffnca.formats.ome_zarr import OmeZarrWriter
    from diffnca.tiles.crews import DaskCluster
    from diffnca.tiles.sweeps import sample_tiled

    request, place, job = planned.request, planned.place, planned.job
    assert job is not None
    assert planned.tiles is not None
    target, crew, writer = large_target(place), crew_of(place), job.writer
    assert isinstance(writer, OmeZarrWriter)
    text = text_of(request, is_large=True)
    if isinstance(crew, DaskCluster):
        crew.check()
    if request.maker is not None:
        made = _map_in_tiles(request, place, target, watch)
        config = job.denoiser.config
        planes = told(request.task, made, config, drawn_styles(config, Noise((request.seed,))))
        job = replace(job, task=replace(job.task, given=planes))
    if len(canvases_of(request)) > 1:
        device = torch.device(device_named(place.device))
        denoiser, noise = prepare(job.denoiser, device, request.engine), Noise((request.seed,), device)
        progress = partial(watch, "smaller images")
        job = replace(job, task=_task(request, denoiser, noise, progress, _layout_of([request]))[0])
    try:
        job.states.begin(text)
        writer.open(request.canvas, job.denoiser.image_channels, text)
        sample_tiled(job, planned.tiles, crew, partial(watch, "tiles"))
        writer.close(partial(watch, "levels"))
        target.finish(request, watch)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped at {watch.share:.0%}", "goes on from there") from None
    except OSError as error:
        where = "" if target.out in str(error) else f"{target.out}: "
        raise OSError(f"{where}{error}; what is finished is kept, the same request goes on") from error
    return Made(place.out, is_large=True)


def _map_in_tiles(request: Request, place: Place, target: Target, watch: Watch) -> MadeMap:
    """Make the map of a large image in its own store, unless it is there."""
    from diffnca.formats.ome_zarr import StoredPixels

    asked, there = request.map(), replace(place, out=target.map, save_layout=None, tile=None)
    for _ in run(asked, there, partial(_prefixed, watch, "map: "), watch.cancelled):
        pass
    pixels, noise = StoredPixels(target.map), Noise((request.seed,))
    return map_of(request.opened().config, pixels, noise, request.task.layout)


def _saved_layout(request: Request, place: Place, watch: Watch) -> Iterator[Made]:
    """Write the classes of a large image, tile by tile, if that is asked for; keep no more than these."""
    if place.save_layout is None:
        return
    config: Config = request.opened().config
    canvas, count = request.canvas, len(config.layout.classes)
    numbers = np.empty((canvas.height, canvas.width), np.uint8)
    try:
        planes = _classes_in_tiles(request, place, config, watch)
        for tile in canvas.whole.tiles(SHARD_PX, SHARD_PX):
            watch("layout", tile.top, canvas.height)
            shown = shown_layout(planes(tile)[:, :count]).numbers[0].numpy()
            numbers[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = shown
    except KeyboardInterrupt:
        raise Interrupted("stopped", f"writes {place.save_layout}") from None
    write_numbers(place.save_layout, numbers, config.layout.colours, text_of(request, is_large=True))
    yield Made(str(place.save_layout))


def _classes_in_tiles(request: Request, place: Place, config: Config, watch: Watch) -> Planes:
    """Return the planes of the classes of a finished large image: made with it, made before it, or given."""
    from diffnca.formats.ome_zarr import StoredPixels

    target, colours = large_target(place), config.model.image_channels
    if config.layout.made:
        pixels = StoredPixels(target.image)
        return lambda region: pixels(region)[:, colours:] / 127.5
    if request.maker is not None:
        return _map_in_tiles(request, place, target, watch)
    assert request.task.layout is not None
    return request.task.layout


def _prefixed(report: Report, prefix: str, title: str, done: Number, total: Number) -> None:
    report(f"{prefix}{title}", done, total)


def _in_memory(request: Request, place: Place, watch: Watch) -> Iterator[Made]:
    """Make images, some at once, and yield the file of each, in order."""
    filmed = None if place.film is None else Filmed(request.opened(), _calls(request))
    for first in range(0, request.count, place.batch):
        indices = range(first, min(first + place.batch, request.count))
        ones = {numbered(Path(place.out), i, request.count): request.image(i) for i in indices}
        files = {path: _files(path, index, request, place) for index, path in zip(indices, ones, strict=True)}
        there = {path for path, one in ones.items() if filmed is None and holds_all(files[path], one)}
        missing = [one for path, one in ones.items() if path not in there]
        progress = part_of(watch, "images", first, len(missing), request.count)
        try:
            images = iter(draw(missing, place, filmed, progress) if missing else ())
        except KeyboardInterrupt:
            if request.count == 1:
                raise Interrupted from None
            raise Interrupted(f"stopped after {first} of {request.count} images", "goes on") from None
        for path, one in ones.items():
            if path in there:
                yield from (Made(str(each), was_there=True) for each in files[path])
                continue
            made = next(images)
            yield _kept(path, one, made.pixels)
            if place.save_layout is not None and made.numbers is not None:
                name = files[path][1]
                write_numbers(name, made.numbers, request.opened().config.layout.colours, text_of(one))
                yield Made(str(name))
    if filmed is not None and place.film is not None:
        write_film(list(filmed.frames()), place.film, milliseconds=50)
        yield Made(str(place.film))


def _files(path: Path, index: int, request: Request, place: Place) -> tuple[Path, ...]:
    """Return the file of an image, and that of its map if it is kept."""
    if place.save_layout is None:
        return (path,)
    return path, numbered(place.save_layout, index, request.count)


@dataclass(frozen=True)
class Drawn:
    """The pixels of an image, and the class of each pixel if its map is kept."""

    pixels: UInt8[np.ndarray, "h w c"]
    numbers: UInt8[np.ndarray, "h w"] | None = None


def draw(
    requests: Sequence[Request], place: Place, filmed: Filmed | None, progress: Callable[..., object]
) -> list[Drawn]:
    """Return the images of requests that differ by their seeds and their layouts alone."""
    request, seeds = requests[0], [one.seed for one in requests]
    device, canvas = torch.device(device_named(place.device)), request.canvas
    model: Any = request.opened() if filmed is None else filmed
    if isinstance(model, Autoencoder):
        images = generate(model, height=canvas.height, width=canvas.width, seed=seeds, device=device)
        return [Drawn(pixels) for pixels in to_uint8(images)]
    denoiser = prepare(model, device, request.engine)
    task, noise = _task(request, denoiser, Noise(tuple(seeds), device), progress, _layout_of(requests))
    images = sample_task(task, denoiser, request.walk()[0], noise, request.region, progress)
    config: Config = request.opened().config
    pixels, colours = to_uint8(images), config.model.image_channels
    pixels, made = pixels[..., :colours], pixels[..., colours:]
    if place.save_layout is None:
        return [Drawn(each) for each in pixels]
    if config.layout.made:
        planes = torch.from_numpy(made).movedim(-1, 1) / 127.5  # in 8 bits, as in the file of a large image
    else:
        assert task.given is not None
        planes = task.given(request.region)[:, : len(config.layout.classes)]
    numbers = shown_layout(planes).numbers.expand(len(seeds), -1, -1).numpy()
    return [Drawn(*each) for each in zip(pixels, numbers, strict=True)]


def _layout_of(requests: Sequence[Request]) -> Planes | None:
    """Return the planes of the layouts of all requests; `None` without layouts."""
    layouts = [one.task.layout for one in requests if isinstance(one.task, New)]
    given = [layout for layout in layouts if layout is not None]
    if all(layout is given[0] for layout in given):
        return given[0] if given else None
    return lambda region: torch.cat([layout(region) for layout in given])


def _task(
    request: Request,
    denoiser: ImageDenoiser,
    noise: Noise,
    progress: Callable[..., object],
    layout: Planes | None = None,
) -> tuple[Task, Noise]:
    """Return the task and what it draws from, after making the smaller images from which a new one grows."""
    if not isinstance(request.task, New):
        return task_of(request), noise
    sampler, levels = request.walk()
    start, planes = start_of(denoiser, request.task.even_px, request.task.tone), layout
    if request.maker is not None:
        maker = prepare(request.opened_maker(), torch.device(noise.device), request.engine)
        of_label = labelled(None, request.task.label, maker.config)
        planes = make_map(maker, denoiser, request.region, len(levels), noise, progress, layout, of_label)
    planes = told(request.task, planes, denoiser.config, drawn_styles(denoiser.config, noise))
    return grown(denoiser, canvases_of(request), levels, sampler, noise, start, progress, planes, layout)


def _kept(path: Path, request: Request, pixels: UInt8[np.ndarray, "h w c"]) -> Made:
    """Write the file of an image, and return what a user should know of it."""
    write_png(path, pixels, text_of(request))
    if not isinstance(request.task, Upscale):
        return Made(str(path))
    return Made(str(path), residual=residual(to_model(pixels)[None], request.task.given.image))


def _calls(request: Request) -> int:
    """Return how often the denoiser is called for an image."""
    (_, levels), walks = request.walk(), len(canvases_of(request)) - 1
    own = len(levels) if walks else len(task_of(request).levels)
    return own + walks * len(later_levels(request.opened(), levels, STRENGTH))


def _between(request: Request, task: Interpolate, place: Place, watch: Watch) -> Made:
    """Make the images between those of two seeds, and their film or frames."""
    frames: list[np.ndarray] = []
    out, device = Path(place.out), torch.device(device_named(place.device))
    (sampler, levels), denoiser = request.walk(), prepare(request.opened(), device, request.engine)
    label = task.label if task.last_label is None else task.labels
    config: Config = denoiser.config
    for first in range(0, task.frames, place.batch):
        last = min(first + place.batch, task.frames)
        shares = tuple(index / (task.frames - 1) for index in range(first, last))
        styles = styles_between(config, task.seeds, shares) if task.styles is None else task.styles
        planes = styled(labelled(task.layout, mixed(label, shares), config), styles, config)
        made = replace(transition(request.canvas, task.seeds[1], shares)(denoiser, levels), given=planes)
        noise = Noise((request.seed,) * len(shares), device)
        progress = part_of(watch, "frames", first, len(shares), task.frames)
        images = sample_task(made, denoiser, sampler, noise, progress=progress)
        frames += list(to_uint8(images[:, : config.model.image_channels]))
        watch("frames", len(frames), task.frames)
    if out.suffix and not out.is_dir():
        write_film(frames, out, task.milliseconds)
    else:
        out.mkdir(exist_ok=True)
        remove_partials(out)
        for index, frame in enumerate(frames):
            write_png(out / frame_name(index), frame, text_of(request))
    return Made(place.out)
