"""How much faster is the engine than the published network written down plainly?

The plain one is the network of [1] as one would write it from the paper: all that a cell is told by time and
place is computed for each cell of each image in each cell step, and all is PyTorch, eager, in float32. Both
have the same weights, and the script stops if they disagree. Image stage and whole call are timed in turns:

    python benchmarks/plain.py --batch 8 --size 64

References:
    [1] Kalkhof et al., "Parameter-efficient diffusion with neural cellular automata", npj Unconventional
        Computing, 2025.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from diffnca.benchmark.timing import in_turns
from diffnca.benchmark.works import floor_of, products
from diffnca.canvas.noise import Noise
from diffnca.config.recipes import recipe_named
from diffnca.engine import prepare
from diffnca.engine.machine import device_named, fast_dtype, machine_of
from diffnca.networks.automaton import Automaton
from diffnca.networks.cell import CellRule

AGREEMENT = 1e-5
"""Relative error between the plain network and ours."""

PROBABILITY = 0.9
"""That a cell of the image stage updates."""

STAGES = {"image stage": "diff_nca_npj", "whole call": "fourier_diff_nca_npj"}


@dataclass(frozen=True)
class Options:
    """What to time."""

    batch: int = 8
    """Images in a call."""
    size: int = 64
    """Height and width in px."""
    rounds: int = 5
    """How often each is timed."""
    device: str = "auto"
    """Where to compute."""


def convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the 1x1 convolution of `x` with these weights."""
    return F.conv2d(x, layer.weight, layer.bias)


def two_layers(net: nn.Sequential, x: Tensor) -> Tensor:
    """Return two 1x1 convolutions of `x` with SiLU between."""
    return convolution(net[2], F.silu(convolution(net[0], x)))


def embedding(rule: CellRule, t: Tensor, clock: float, height: int, width: int) -> Tensor:
    """Return the embedding (b 4 h w) of row, column, t and cell step."""
    row = torch.linspace(1, 0, height, device=t.device)[:, None].expand(height, width)
    column = torch.linspace(1, 0, width, device=t.device).expand(height, width)
    places = torch.stack([row, column]).expand(len(t), 2, height, width)
    times = t[:, None, None, None].expand(-1, 1, height, width)
    numbers = torch.cat([places, times, torch.full_like(times, clock)], dim=1)
    angles = torch.arange(4.0, device=t.device)[:, None] * torch.tensor([1.0, 0.01], device=t.device)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    features = (numbers[:, :, None] * waves[None, :, :, None, None]).flatten(1, 2)
    return two_layers(rule.embedding.features.net, features)


def cell_steps(rule: CellRule, state: Tensor, t: Tensor, probability: float) -> Tensor:
    """Return `state` after all cell steps; each cell updates with its `probability`."""
    config = rule.config
    for k in range(config.num_cell_steps):
        clock = k / (config.cell_step_period or config.num_cell_steps)
        e = embedding(rule, t, clock, *state.shape[-2:])
        z = torch.cat([state, e], dim=1)
        padded = F.pad(z, [1] * 4, mode="reflect") if config.padding == "reflect" else F.pad(z, [1] * 4)
        z = torch.cat([z, F.conv2d(padded, rule.perceive.weight, rule.perceive.bias)], dim=1)
        z = z * two_layers(rule.gate_perception.net, e)
        h = convolution(rule.expand, z)
        mean, variance = h.mean(1, keepdim=True), h.var(1, keepdim=True, unbiased=False)
        h = F.leaky_relu((h - mean) / torch.sqrt(variance + 1e-5), 0.01)
        h = h * two_layers(rule.gate_hidden.net, e)
        mask = (torch.rand(len(t), 1, *state.shape[-2:], device=t.device) < probability).float()
        state = state + convolution(rule.project, h) * mask * rule.writable
    return state


def empty_state(network: Automaton, x_t: Tensor) -> Tensor:
    """Return a state that holds `x_t`, and zeros."""
    return torch.cat([x_t, x_t.new_zeros(len(x_t), network.config.channels - 3, *x_t.shape[-2:])], dim=1)


def fourier_stage(network: Automaton, state: Tensor, t: Tensor) -> Tensor:
    """Return the state with its low frequencies worked on."""
    height, width, n = *state.shape[-2:], network.image_channels
    spectrum = torch.fft.fftshift(torch.fft.fft2(state, norm="forward"), dim=(-2, -1))
    window = (slice(height // 2, height // 2 + 16), slice(width // 2, width // 2 + 16))
    low = spectrum[:, :, *window]
    low = cell_steps(network.fourier, torch.cat([low.real, low.imag], dim=1), t, probability=1.0)
    real, imaginary = low.chunk(2, dim=1)
    spectrum[:, n:, *window] = torch.complex(real, imaginary)[:, n:]
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), norm="forward").real


def plain_call(network: Automaton, x_t: Tensor, t: Tensor, probability: float) -> Tensor:
    """Return the prediction of the network."""
    state, n = empty_state(network, x_t), network.image_channels
    if network.fourier is not None:
        state = fourier_stage(network, state, t)
    return cell_steps(network.image, state, t, probability)[:, n : 2 * n]


def published(recipe: str, device: torch.device, probability: float) -> Automaton:
    """Return the network of a recipe, all of its weights random: fresh ones hide much behind zeros."""
    torch.manual_seed(0)
    model = recipe_named(recipe).model
    network = Automaton(replace(model, cell=replace(model.cell, update_probability=probability)))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1 if parameter.dim() < 2 else parameter[0].numel() ** -0.5)
    return network.requires_grad_(False).to(device)


def check_agreement(recipe: str, x_t: Tensor, t: Tensor) -> None:
    """Stop unless both compute the same when every cell updates."""
    network = published(recipe, x_t.device, probability=1.0)
    expected = network(x_t, t)
    error = (plain_call(network, x_t, t, 1.0) - expected).norm() / expected.norm()
    if not error < AGREEMENT:
        raise SystemExit(f"{recipe}: the plain network differs by {error:.1e}")


@torch.no_grad()
def main(options: Options) -> None:
    """Check that both agree, then time them and the matrix products alone."""
    device, size, works = torch.device(device_named(options.device)), options.size, {}
    x_t = torch.randn(options.batch, 3, size, size, device=device)
    t = torch.full((options.batch,), 0.5, device=device)
    noise = Noise(tuple(range(options.batch)), device).at(150)
    for title, recipe in STAGES.items():
        check_agreement(recipe, x_t, t)
        network = published(recipe, device, PROBABILITY)
        ready, needed = prepare(network, device), products(network.config, size, size, options.batch)
        works[f"{title}, plain"] = partial(plain_call, network, x_t, t, PROBABILITY)
        works[f"{title}, engine"] = partial(ready, x_t, t, noise=noise)
        for dtype in (fast_dtype(device), torch.float32):
            works[f"{title}, products alone, {dtype}"] = floor_of(needed, dtype, device)
    seconds = in_turns(works, options.rounds, device)
    print(machine_of(device))
    for name, taken in seconds.items():
        ratio = seconds[f"{name.split(',')[0]}, plain"] / taken
        print(f"{name:48}{taken:9.4f} s{ratio:8.2f} times as fast as plain")


if __name__ == "__main__":
    main(tyro.cli(Options))
