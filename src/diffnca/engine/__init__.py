"""The engine: how networks run fast and exactly on the machine at hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.noise import CellNoise
from diffnca.canvas.region import Canvas, Region
from diffnca.engine.cpu import BlockedRule
from diffnca.engine.machine import OLDEST_TRITON, fast_dtype, has_triton
from diffnca.engine.threads import computing_alone
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import Rule
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid

__all__ = ["Engine", "prepare"]

SMALL_IMAGE_PX = 64
"""Side of an image whose cells are to fill a block."""

Engine = Literal["auto", "eager", "fused"]
"""How a network runs: as is fast and exact on the device, as it was trained, or by the kernels for a GPU."""


class Prepared(nn.Module):
    """A network whose cell rules an engine runs: its tiles equal the whole to the bit, and so do its batches.

    The weights of the cell rules are copied; prepare a network again that has been trained on.

    Attributes:
        network: the network itself.
        rules: its cell rules as the engine runs them, those of the image stage last.
        config: the choices it was built from.
        image_channels: channels of the images.
        radius: pixels that one output pixel can see in each direction, the context being given.
        has_context: whether it must know something of the whole canvas, which `context` sums up.
    """

    def __init__(self, network: Automaton, rules: Sequence[Rule]) -> None:
        """Take the network, and its rules as an engine runs them."""
        super().__init__()
        self.network, self.rules = network, rules
        self.config, self.image_channels = network.config, network.image_channels
        self.radius, self.has_context = network.radius, network.has_context

    def context(
        self, x_t: Tensor, t: Tensor, region: Region | None = None, given: Tensor | None = None
    ) -> Tensor | None:
        """Return what must be known of the whole canvas; additive over the parts of it."""
        return self.network.context(x_t, t, region, given)

    def forward(
        self,
        x_t: Float[Tensor, "b n h w"],
        t: Float[Tensor, " b"],
        region: Region | None = None,
        noise: CellNoise | None = None,
        context: Tensor | None = None,
        given: Tensor | None = None,
        observe: Callable[[Tensor], object] | None = None,
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction; the arguments are those of the network."""
        with torch.inference_mode(False), torch.no_grad(), computing_alone():
            predicted: Tensor = self.network(
                x_t.float(), t.float(), region, noise, context, given, observe, self.rules
            )
        return predicted


def prepare(
    network: nn.Module,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    engine: Engine = "auto",
) -> nn.Module:
    """Return a network that computes what `network` does, for inference on `device`.

    On a CPU the results are the same to the bit for any tile, batch and number of threads. A network without
    a finite radius (group normalisation), and any on another device, is returned as it is, or a copy there.

    Args:
        network: a network as `diffnca.models.build.build_network` makes it.
        device: where it will run.
        dtype: of the matrix products, float32 or bfloat16; `None` is what the device is fast at. States stay
            float32.
        engine: `"fused"` takes the kernels of `engine.gpu`, which have not been run on a GPU yet and so are
            nobody's default; `"eager"` returns the network itself.

    Raises:
        ValueError: type or engine are others, or the fused kernels cannot run this network here.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine={engine}: must be one of {', '.join(get_args(Engine))}")
    device = torch.device(device)
    dtype = fast_dtype(device) if dtype is None else dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype={dtype}: must be torch.float32 or torch.bfloat16; choose one of these")
    is_there = all(weight.device.type == device.type for weight in network.parameters())
    made: Any = (network if is_there else copy.deepcopy(network)).to(device)
    is_local = isinstance(made, Automaton) and made.radius is not None
    if engine == "fused":
        if not (is_local and device.type == "cuda" and has_triton()):
            raise ValueError(
                f"engine=fused: must run on an NVIDIA GPU, here {device}, with triton {OLDEST_TRITON[0]}."
                f"{OLDEST_TRITON[1]} or newer, and cells without group normalisation; take auto"
            )
        return fused(made, device, dtype)
    if engine == "auto" and is_local and device.type == "cpu":
        return blocked(made, dtype)
    unchanged: nn.Module = made
    return unchanged


def blocked(network: Automaton, dtype: torch.dtype) -> Prepared:
    """Return `network`, prepared for a CPU."""
    small, config = Canvas(SMALL_IMAGE_PX, SMALL_IMAGE_PX), network.config
    cells = [PatchGrid(small.whole, config.patch).cells.area]
    if config.fourier is not None:
        cells.insert(0, Window(config.fourier, small).region.area)
    elif config.coarse is not None:
        cells.insert(0, PatchGrid(small.whole, config.coarse.patch).cells.area)
    rules = zip(network.compiled_parts(), cells, strict=True)
    return Prepared(network, [BlockedRule(rule, dtype, count) for rule, count in rules])


def fused(network: Automaton, device: torch.device, dtype: torch.dtype) -> Prepared:
    """Return `network`, prepared for a GPU (or for Triton's interpreter)."""
    from diffnca.engine.gpu import FusedRule

    return Prepared(network, [FusedRule(rule, device, dtype) for rule in network.compiled_parts()])
