"""New images from noise."""

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffnca.baselines.autoencoder import Autoencoder
from diffnca.canvas.noise import Noise
from diffnca.canvas.region import MAX_SIDE_PX, Canvas, Region
from diffnca.diffusion.denoiser import ImageDenoiser
from diffnca.diffusion.walk import Planes, Progress
from diffnca.engine import Engine
from diffnca.sampling.arguments import canvas_of, check_model, number, place_of, seeds_of, undisturbed
from diffnca.sampling.coarse import completing, make_map
from diffnca.sampling.growth import canvases_of, grown
from diffnca.sampling.guidance import prepare
from diffnca.sampling.labels import check_label, labelled
from diffnca.sampling.layouts import Layout, layout_of, obeying
from diffnca.sampling.starts import start_of
from diffnca.sampling.styles import drawn_styles, styled, styles_like
from diffnca.sampling.task import Options, Task, check_options, check_region, sample_task, walk_of
from diffnca.sampling.world import World, check_world


@undisturbed()
def generate(
    model: ImageDenoiser | Autoencoder,
    *,
    height: int,
    width: int,
    region: Region | None = None,
    batch: int | None = None,
    direct: bool = False,
    even_px: int | None = None,
    tone: Sequence[float] | None = None,
    layout: Shaped[Tensor, "*b_y_x"] | None = None,
    maker: ImageDenoiser | None = None,
    label: str | Sequence[str] | None = None,
    like: Shaped[Tensor, "*b_c_y_x"] | None = None,
    obey: float = 1.0,
    **options: Unpack[Options],
) -> Float[Tensor, "b c h w"]:
    """Make new images from noise of variance 1, even if the schedule does not reach pure noise.

    Args:
        model: as `diffnca.load` returns it. An `Autoencoder` takes no steps and has one image size.
        height: rows in pixels, >= 1.
        width: columns in pixels, >= 1.
        region: the part of the image to make, equal to the crop of the canvas; `None` makes the canvas.
        batch: number of images; `None` makes one image per seed.
        direct: make the image in one walk, even if the model, a student, would grow it from a smaller image.
        even_px: side in pixels of squares whose noise has one mean; 0 for none, `None` as the model does.
        tone: the tone, one number per channel in standard deviations; `None` draws the tone.
        layout: the class of each place, -1 for any; (y, x) or b maps, of any size.
        maker: a model of maps, which makes the map, or what the layout leaves free of it.
        label: what the image shows, by a name that the model knows, also as it makes a map; or one per image.
        like: a picture whose colours and texture the images have, or one for each image: b c y x, in [-1, 1],
            of any size; `None` draws the style of a training image, if the model knows styles.
        obey: how closely to follow layout and label, from 0 to 10; all but 1 (as trained) take twice as long.
        **options: see `Options`.

    Returns:
        Images in [-1, 1]. A model that makes maps adds a plane for each class: the largest is the class.

    Raises:
        ValueError: an argument is not allowed, or the model cannot make a region by itself.
    """
    check_model(model, maker=maker)
    check_options(options)
    boundary, progress = options.get("boundary", Canvas.boundary), options.get("progress")
    sampler, steps, engine = options.get("sampler"), options.get("steps"), options.get("engine", "auto")
    obey, region = number("obey", obey), _region_on(canvas_of(height, width, boundary), region)
    noise = Noise(seeds_of(options.get("seed", 0), batch), place_of(model, options.get("device")))
    if isinstance(model, Autoencoder):
        told = (sampler, steps, even_px, tone, layout, maker, label, like, None if obey == 1.0 else obey)
        check_drawn(model, region, dict(zip(CHOICES, told, strict=True)))
        return model.draw(noise).clamp(-1.0, 1.0)
    method, levels = walk_of(model, sampler, steps)
    denoiser = prepare(obeying(model, obey), torch.device(noise.device), engine)
    canvases, initial = canvases_of(denoiser, region.canvas, direct), start_of(denoiser, even_px, tone)
    check_region(denoiser, region)  # before the map and the smaller images are made
    known = layout_of(layout, obey, denoiser.config, len(noise.seeds), maker is not None or label is not None)
    planes = _planes(known, maker, label, like, denoiser, region, len(levels), noise, engine, progress)
    task, noise = grown(denoiser, canvases, levels, method, noise, initial, progress, planes, known)
    return sample_task(task, denoiser, method, noise, region, progress)


@undisturbed()
def world(
    model: ImageDenoiser,
    *,
    height: int = MAX_SIDE_PX,
    width: int = MAX_SIDE_PX,
    even_px: int | None = None,
    tone: Sequence[float] | None = None,
    layout: Shaped[Tensor, "*b_y_x"] | None = None,
    label: str | Sequence[str] | None = None,
    like: Shaped[Tensor, "*b_c_y_x"] | None = None,
    obey: float = 1.0,
    kept_bytes: int = 2**30,
    **options: Unpack[Options],
) -> World:
    """Return a canvas whose pixels are made where they are wanted: `world.pixels(top, left, height, width)`.

    Finished parts of each noise level are kept, so a region beside a known region takes a part of the time.
    The pixels are those of `generate` on this canvas. Without sides, the canvas has no end: it is the largest
    canvas, and joins its opposite edges. Further arguments are those of `generate`.

    Args:
        model: a model of cells that sees a finite radius, as `diffnca.load` returns it.
        height: rows of the canvas; a multiple of 32 px if its edges are joined.
        width: columns of the canvas; a multiple of 32 px if its edges are joined.
        even_px: side in pixels of squares whose noise has one mean.
        tone: the tone, one number per channel in standard deviations.
        layout: the class of each place of the canvas.
        label: what the image shows.
        like: a picture whose colours and texture the image has.
        obey: how closely to follow layout and label.
        kept_bytes: memory of what is kept between calls; what was not read for longest is dropped.
        **options: see `Options`; `boundary` is circular by default, and `progress` is for `World.pixels`.

    Raises:
        ValueError: an argument is not allowed, or the model must see the whole canvas.
    """
    check_model(model)
    check_options(options)
    obey = number("obey", obey)
    if isinstance(model, Autoencoder):
        raise ValueError("the model makes whole images; take diffnca.generate")
    if options.get("progress") is not None:
        raise ValueError("progress: must be given to World.pixels, which does the work")
    canvas = canvas_of(height, width, options.get("boundary", ("circular", "circular")))
    noise = Noise(seeds_of(options.get("seed", 0), None), place_of(model, options.get("device")))
    method, levels = walk_of(model, options.get("sampler"), options.get("steps"))
    engine = options.get("engine", "auto")
    denoiser = prepare(obeying(model, obey), torch.device(noise.device), engine)
    check_world(denoiser, canvas)
    known = layout_of(layout, obey, denoiser.config, len(noise.seeds), label is not None)
    planes = _planes(known, None, label, like, denoiser, canvas.whole, len(levels), noise, engine, None)
    task = Task(canvas, levels, start_of(denoiser, even_px, tone), given=planes)
    return World(completing(task, known, denoiser.config), denoiser, method, noise, kept_bytes)


def _planes(
    layout: Layout | None,
    maker: ImageDenoiser | None,
    label: str | Sequence[str] | None,
    like: Tensor | None,
    denoiser: ImageDenoiser,
    region: Region,
    num_steps: int,
    noise: Noise,
    engine: Engine,
    progress: Progress | None,
) -> Planes | None:
    """Return the given planes of a layout, or of the map that a model makes, of labels and of styles."""
    planes: Planes | None = layout
    makers, config, images = () if maker is None else (maker.config,), denoiser.config, len(noise.seeds)
    check_label(label, images, config, *makers)
    styles = drawn_styles(config, noise) if like is None else styles_like(like, config, images)
    if maker is not None:
        drawer = prepare(maker, torch.device(noise.device), engine)
        of_label = labelled(None, label, maker.config)
        planes = make_map(drawer, denoiser, region, num_steps, noise, progress, layout, of_label)
    return styled(labelled(planes, label, config), styles, config)


def _region_on(canvas: Canvas, region: Any) -> Region:
    region = canvas.whole if region is None else region
    if not isinstance(region, Region):
        raise ValueError(f"region={region!r}: must be a diffnca.Region, such as Region(0, 0, 1, 1, canvas)")
    if region.canvas != canvas:
        raise ValueError(f"region on {region.canvas}: must lie on the canvas of the image, {canvas}")
    return region


CHOICES = ("sampler", "steps", "even_px", "tone", "layout", "maker", "label", "like", "obey")
"""Arguments of `generate` that a model has no use for if it draws images at once."""


def check_drawn(model: Autoencoder, region: Region, choices: Mapping[str, object]) -> None:
    """Refuse choices, by their names, and a region for a model that draws whole images at once."""
    name, size = model.config.name, model.choices.size
    given = [choice for choice, value in choices.items() if value is not None]
    if given:
        raise ValueError(
            f"model {name}: must be without {', '.join(given)}, as it draws an image at once; leave "
            f"{'it' if len(given) == 1 else 'these'} out"
        )
    if region != Canvas(size, size).whole:
        raise ValueError(
            f"model {name}: must make whole images of {size}x{size} px with edges; ask for these"
        )
