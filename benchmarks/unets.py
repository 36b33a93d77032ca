"""How long is a call of a UNet, next to one of a cellular automaton, at equal image size?

The UNets are those of `diffusers` with 3.94 and 17.2 million parameters, in float32 and in the type that the
machine is fast at; the automata run in the engine. All are timed in turns, in one process. Example:

    python benchmarks/unets.py --models diff_nca fourier_diff_nca --batch 8 --size 64
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from diffusers import UNet2DModel
from torch import nn

from diffnca.benchmark import in_turns, machine
from diffnca.engine import prepare
from diffnca.engine.precision import device_named, fast_dtype
from diffnca.recipes import RECIPES, recipe_named
from diffnca.training.checkpoint import build_denoiser, load


@dataclass(frozen=True)
class Options:
    """What to time."""

    models: tuple[str, ...] = ("diff_nca", "fourier_diff_nca")
    """Recipes, bundled models, model files."""
    batch: int = 8
    """Images in a call."""
    size: int = 64
    """Height and width in px; a multiple of 4, as the UNets want it."""
    rounds: int = 5
    """How often each is timed."""
    device: str = "auto"
    """Where to compute."""


def unets() -> dict[str, UNet2DModel]:
    """Return the UNets by their number of parameters: 3,940,547 and 17,256,195."""
    down, up = "DownBlock2D", "UpBlock2D"
    small = UNet2DModel(
        block_out_channels=(32, 64, 128),
        down_block_types=(down, down, "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", up, up),
    )
    large = UNet2DModel(
        block_out_channels=(128, 128, 256), down_block_types=(down,) * 3, up_block_types=(up,) * 3
    )
    return {f"UNet, {parameters_of(each):,} parameters": each for each in (small, large)}


def parameters_of(network: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(weight.numel() for weight in network.parameters())


@torch.no_grad()
def main(options: Options) -> None:
    """Time all in turns and print a table."""
    device = torch.device(device_named(options.device))
    x_t = torch.randn(options.batch, 3, options.size, options.size, device=device)
    t = torch.full((options.batch,), 0.5, device=device)
    works: dict[str, Callable[[], object]] = {}
    for name in options.models:
        network = (build_denoiser(recipe_named(name)) if name in RECIPES else load(name)).network
        ready = prepare(network, device)
        works[f"{name}, {parameters_of(network):,} parameters"] = lambda ready=ready: ready(x_t, t)
    for name, unet in unets().items():
        for dtype in sorted({torch.float32, fast_dtype(device)}, key=str):
            made = nn.Module.to(copy.deepcopy(unet), device, dtype, memory_format=torch.channels_last)
            x = x_t.to(dtype, memory_format=torch.channels_last)
            works[f"{name}, {dtype}"] = lambda made=made, x=x: made(x, 1000.0 * t)
    seconds = in_turns(works, options.rounds, device)
    print(machine(device))
    print(f"{'':52}{'seconds':>10}{'ms an image':>13}")
    for name, taken in seconds.items():
        print(f"{name:52}{taken:10.4f}{1000.0 * taken / options.batch:13.1f}")


if __name__ == "__main__":
    main(tyro.cli(Options))
