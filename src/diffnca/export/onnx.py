"""Write a model as an ONNX file: one estimate of the clean image, or all steps of a student.

The graph takes any height, width and number of images, as a whole canvas. The facts in the file say what a
program needs to sample: the channels, the steps to visit, and alpha and sigma of each step.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffnca.canvas.region import Boundary, Canvas
from diffnca.config.json import to_json
from diffnca.diffusion.denoiser import Denoiser
from diffnca.errors import require
from diffnca.export.graph import Graph, Value, Weights
from diffnca.export.grid import Grid
from diffnca.export.network import Estimator
from diffnca.files import replace_atomically
from diffnca.networks.automaton import Automaton
from diffnca.sampling.guidance import self_guided
from diffnca.sampling.task import walk_of


@dataclass(frozen=True)
class Options:
    """What an ONNX file holds.

    Attributes:
        weights: type of the weights in the file; the graph computes in float32.
        loop: all steps of a student in one graph, from noise to image; without it, one estimate.
        boundary: how an image goes on beyond its edges, (y, x): reflect or circular.
    """

    weights: Weights = "float32"
    loop: bool = False
    boundary: tuple[Boundary, Boundary] = Canvas.boundary


def write_onnx(path: Path, denoiser: Denoiser, options: Options, name: str | None = None) -> None:
    """Write a denoiser as an ONNX file; refuse what `model_of` refuses."""
    content = model_of(denoiser, options, name).SerializeToString()
    with replace_atomically(path) as partial:
        partial.write_bytes(content)


def model_of(denoiser: Denoiser, options: Options, name: str | None = None) -> Any:
    """Return a denoiser as a model of ONNX; refuse a network without cells, and the loop of many steps.

    Errors call it by `name`; `None` is the name of its recipe.
    """
    config = denoiser.config
    name = name or config.name
    require(isinstance(denoiser.network, Automaton), "model", name, "a model of cells")
    if options.loop and config.sampling.visited is None:
        raise ValueError(
            f"model {name}: must be a student of few steps (diffnca distill) for --loop; leave it out"
        )
    graph, sides = Graph(options.weights), ("images", config.drawn_channels, "height", "width")
    sampler, levels = walk_of(denoiser, None, None)
    image = graph.input("noise" if options.loop else "x_t", np.float32, sides)
    if options.loop:
        estimator = _estimator(denoiser, image, options, len(levels))
        between = (len(levels) - 1) * config.drawn_channels
        shape = ("images", between, "height", "width")
        fresh = graph.input("fresh", np.float32, shape) if sampler.is_stochastic and between else None
        output, name = estimator.walk(image, levels, sampler, fresh), "image"
    else:
        step = graph.input("step", np.int32, ("images",))
        output, name = _estimator(denoiser, image, options, 1).estimate(image, step), "clean"
    return graph.model(output, name, sides, _facts_of(denoiser))


def _estimator(denoiser: Denoiser, image: Value, options: Options, num_calls: int) -> Estimator:
    """Return the estimator of the image, with inputs for its planes and for the cells that update."""
    graph, guided = image.graph, self_guided(denoiser)
    planes, given = guided.network.config.given_channels, None
    if planes:
        given = graph.input("given", np.float32, ("images", planes, "height", "width"))
    masks = {}
    for stage in ("fourier", "coarse", "image"):
        rule = getattr(guided.network, stage)
        if rule is not None and rule.config.update_probability < 1.0:
            shape = ("images", num_calls * rule.config.num_cell_steps, f"{stage}_rows", f"{stage}_columns")
            masks[stage] = graph.input(f"updates_{stage}", np.bool_, shape).to(np.float32)
    pixels = Grid(image.side(2), image.side(3), options.boundary)
    return Estimator(guided, pixels, given, masks)


def _facts_of(denoiser: Denoiser) -> dict[str, str]:
    """Return what a program needs to sample with the file."""
    _, levels = walk_of(denoiser, None, None)
    return {
        "config": to_json(denoiser.config),
        "visited": json.dumps([level.index for level in levels]),
        "alphas_cumprod": json.dumps(denoiser.schedule.alphas_cumprod),
    }
