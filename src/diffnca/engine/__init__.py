"""The engine: runs networks fast and exactly on the given device."""

import copy
from collections.abc import Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffnca.canvas.region import Canvas
from diffnca.config.model import Engine
from diffnca.engine.blocks import Blocks
from diffnca.engine.cells import FastRule, Stepper
from diffnca.engine.machine import fast_dtype
from diffnca.engine.native import native_steps
from diffnca.engine.threads import computing_alone
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import Rule
from diffnca.networks.fourier import Window
from diffnca.networks.patches import PatchGrid

__all__ = ["Engine", "prepare"]

SMALL_IMAGE_PX = 64
"""Side of an image whose cells should fill a block."""


class Prepared(nn.Module):
    """A network whose cell rules an engine runs. Tiles and batches equal the complete image to the bit.

    The rules hold copies of the weights: prepare a network again after training it. `radius` is in pixels.
    """

    def __init__(self, network: Automaton, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.network, self.rules = network, rules
        self.radius, self.has_context, self.context = network.radius, network.has_context, network.context

    def forward(
        self, x_t: Float[Tensor, "b n h w"], t: Float[Tensor, " b"], *others: Any, **named: Any
    ) -> Float[Tensor, "b n h w"]:
        """Return the prediction; the arguments are those of `Automaton.forward`, without `rules`."""
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            computing_alone(),
        ):
            predicted: Tensor = self.network(x_t.float(), t.float(), *others, **named, rules=self.rules)
        return predicted


def prepare(
    network: nn.Module,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    engine: Engine = "auto",
) -> nn.Module:
    """Return a network that computes what `network` does, for inference on `device`.

    On a CPU the results are equal to the bit for any tile, batch and number of threads. Networks without a
    finite radius, and networks on other devices, are returned as they are, or copied to the device. `dtype`
    is the type of matrix products, float32 or bfloat16; `None` takes the faster. States stay float32.

    Raises:
        ValueError: `dtype` or `engine` is unknown.
    """
    if engine not in get_args(Engine):
        raise ValueError(f"engine={engine}: must be one of {', '.join(get_args(Engine))}")
    device = torch.device(device)
    dtype = fast_dtype(device) if dtype is None else dtype
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype={dtype}: must be torch.float32 or torch.bfloat16; choose one of these")
    is_there = all(weight.device.type == device.type for weight in network.parameters())
    made = (network if is_there else copy.deepcopy(network)).to(device)
    if engine == "auto" and device.type == "cpu" and isinstance(made, Automaton) and made.radius is not None:
        return fast(made, native_steps(dtype) or Blocks(dtype))
    return made


def fast(network: Automaton, stepper: Stepper) -> Prepared:
    """Return `network`, prepared for a CPU, whose cell steps `stepper` does."""
    small, config = Canvas(SMALL_IMAGE_PX, SMALL_IMAGE_PX), network.config
    cells = [] if config.fourier is None else [Window(config.fourier, small).region]
    cells += [
        PatchGrid(small.whole, each.patch).cells for each in (config.coarse, config) if each is not None
    ]
    parts = zip(network.compiled_parts(), cells, strict=True)
    return Prepared(network, [FastRule(rule, stepper, each.area) for rule, each in parts])
